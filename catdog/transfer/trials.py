"""Records of a sweep's trials, their ranking, and the tables made from them.

::

    sweeps/<model>/trials/<id>.json        the record, written when the trial has ended
    sweeps/<model>/trials/<id>/point.json  what it tries, written before it begins
    sweeps/<model>/trials.json             all records and the best, at the end
    sweeps/<model>/trials.parquet          the same as a table, best first
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from catdog.errors import RunFailed
from catdog.runs.records import Epoch, Point, Sweep, Trial
from catdog.storage import Location
from catdog.transfer.search import Search

OnTrial = Callable[[Trial], None]

#: What is told of the best trial.
BEST = ("id", "config", "val_accuracy", "val_loss")


@dataclass(frozen=True)
class TrialStore:
    """The trials of one sweep: what each tries, and the records of those that have ended."""

    folder: Location
    search: Search
    trials: int
    ranked_by: Literal["val_accuracy", "val_loss"] = "val_accuracy"

    @property
    def ids(self) -> list[str]:
        return [f"{number:03d}" for number in range(self.search.count(self.trials))]

    def missing(self) -> list[str]:
        return [key for key in self.ids if not self._file(key).exists()]

    def records(self) -> list[Trial]:
        """The trials that have ended, in the order of their numbers."""
        files = [self._file(key) for key in self.ids]
        return [Trial.fitted(file.read_json())[0] for file in files if file.exists()]

    def output(self, key: str) -> Location:
        return self.folder / "trials" / key

    def point(self, key: str) -> Point:
        """What the trial tries; decided once, so that an interrupted trial goes on with it."""
        note = self.output(key) / "point.json"
        if note.exists():
            known: Point = note.read_json()
            return known
        known = self.search.point(int(key), self.records() if self.search.method == "tpe" else ())
        note.write_json(known)
        return known

    def close(
        self,
        key: str,
        point: Point,
        rows: Sequence[Epoch],
        seconds: float,
        status: str,
        error: str | None = None,
    ) -> Trial:
        """Write the record of a trial; ``rows`` are its epochs.

        ``status`` is ``finished``, ``stopped`` (by ASHA) or ``failed`` with ``error`` in one line.
        """
        best = max(rows, key=lambda row: row.rank, default=None)
        trial = Trial(
            id=key,
            config=point,
            val_accuracy=best.val_accuracy if best else None,
            val_loss=best.val_loss if best else None,
            epochs=len(rows),
            seconds=seconds,
            status=status,
            error=error,
            history=list(rows),
        )
        self._file(key).write_json(trial.as_json())
        return trial

    def summarise(self, seconds: float) -> Sweep:
        """Rank what has ended; writes and returns ``trials.json``.

        Args:
            seconds: wall time of this session's work; earlier sessions' is added.

        Raises:
            RunFailed: no trial came to a result.
        """
        trials = self.records()
        ranked = self.ranked()
        if not ranked or ranked[0].val_accuracy is None or ranked[0].has_failed:
            cause = trials[0].error if trials else "none has ended"
            raise RunFailed(f"no trial of the sweep came to a result: {cause}")
        target = self.folder / "trials.json"
        before = Sweep.fitted(target.read_json())[0].seconds if target.exists() else None
        sweep = Sweep(
            trials=trials,
            best=Trial(**ranked[0].model_dump(include=set(BEST))),
            search=self.search.method,
            seconds=(before or 0.0) + seconds,
        )
        target.write_json(sweep.as_json())
        (self.folder / "trials.parquet").write_bytes(table(ranked))
        return sweep

    def ranked(self) -> list[Trial]:
        """The trials that have ended, best first."""
        return ranking(self.records(), by_loss=self.ranked_by == "val_loss")

    def _file(self, key: str) -> Location:
        return self.folder / "trials" / f"{key}.json"


def ranking(trials: Sequence[Trial], by_loss: bool = False) -> list[Trial]:
    """Best validation accuracy first, the lower loss where it is equal; failed trials last.

    ``by_loss``: the lower loss first, whatever the accuracy.

    Last whatever their epochs came to before: who trained with the same settings would fail too.
    """
    return sorted(
        trials,
        key=lambda trial: (
            trial.has_failed,
            trial.val_accuracy is None,
            0.0 if by_loss else -(trial.val_accuracy or 0.0),
            trial.val_loss or 0.0,
        ),
    )


def table(ranked: Sequence[Trial]) -> bytes:
    """Parquet: rank, id, status, val_accuracy, val_loss, epochs, seconds, error and the settings.

    A setting with values of several kinds (2, 4, "all") is text.
    """
    import pandas as pd

    facts = ("id", "status", "val_accuracy", "val_loss", "epochs", "seconds", "error")
    rows = [
        {"rank": rank, **{fact: getattr(trial, fact) for fact in facts}, **trial.config}
        for rank, trial in enumerate(ranked, start=1)
    ]
    frame = pd.DataFrame(rows)
    for name in frame.columns:
        kinds = {type(value) for value in frame[name] if value is not None}
        if len(kinds) > 1 and str in kinds:
            frame[name] = frame[name].map(str)
    frame["error"] = frame["error"].astype("string")
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()
