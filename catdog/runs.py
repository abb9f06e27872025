"""The run directory: what lies where, what is finished, who may write.

::

    <storage>/<name>/
        config.yaml  run.json  events.jsonl  lease.json
        data/            manifest.json  rejected.parquet  photos.parquet  (of the prepared set)
        models/<model>/  history.json  model.json  model.keras  predictions.parquet
                         checkpoints/  artifacts/
                         seeds/<seed>/  the same again, trained with another seed
        sweeps/<model>/  trials.json  trials.parquet  best.yaml  trials/
        report.json  report.html  report.md

A run directory is never wiped. Whatever is written is written atomically, and ``run.json`` says
``finished`` last of all.
"""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from catdog.config import Config, ModelName
from catdog.errors import RunFailed, UserError
from catdog.storage import Location

LEASE_S = 30.0
RENEW_S = 8.0
#: Of two that start at once the one that wrote last holds the lease. Longer than writing usually
#: takes; who is slower is found out at one of the first looks, which follow each other closely.
SETTLE_S = 0.3
FIRST_LOOKS, FIRST_LOOK_S = 8, 1.0
#: Tells the main thread that the lease is another's.
LOST_SIGNAL = signal.SIGUSR1
#: A store that takes longer to answer was away, seconds.
SLOW_ANSWER_S = 3.0


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class TrainingId:
    """A training of a run: a model, and of a repeat the other seed that it has."""

    model: ModelName
    seed: int | None = None

    def __str__(self) -> str:
        """``base_cnn``, ``base_cnn seed 1``: in events, lines and the report."""
        return self.model if self.seed is None else f"{self.model} seed {self.seed}"


@dataclass(frozen=True)
class RunDirectory:
    """Names and small files of one run."""

    root: Location

    @classmethod
    def of(cls, config: Config) -> RunDirectory:
        return cls(Location.of(config.storage) / config.run_name)

    @property
    def data(self) -> Location:
        return self.root / "data"

    def model(self, name: str) -> Location:
        return self.root / "models" / name

    def training(self, training: TrainingId) -> Location:
        """The folder of a training; that of a repeat lies below its model's."""
        folder = self.model(training.model)
        return folder if training.seed is None else folder / "seeds" / str(training.seed)

    def sweep(self, name: str) -> Location:
        return self.root / "sweeps" / name

    def read(self) -> dict[str, Any]:
        """``run.json``, empty for a run that has not begun."""
        try:
            record: dict[str, Any] = (self.root / "run.json").read_json()
        except FileNotFoundError:
            return {}
        return record

    def update(self, **changes: Any) -> dict[str, Any]:
        """Set keys of ``run.json`` and return the whole of it."""
        record = self.read() | changes
        (self.root / "run.json").write_json(record)
        return record

    def claim(self, config: Config) -> dict[str, Any]:
        """Make this directory the run of ``config``, or find it to be that already.

        Raises:
            UserError: the directory holds a run with other settings.
        """
        record = self.read()
        if record and record["identity"] != config.identity:
            raise UserError(
                f"{self.root} holds a run with other settings (its config.yaml shows them); "
                "give another --name, or the settings of that run"
            )
        if not record:
            record = {"name": config.run_name, "identity": config.identity, "status": "new"}
            (self.root / "run.json").write_json(record)
        (self.root / "config.yaml").write_text(config.to_yaml())
        return record

    def is_finished(self, config: Config) -> bool:
        """Whether this run of ``config`` is complete, with as many epochs and trials as asked for.

        Raises:
            UserError: the directory holds a run with other settings.
        """
        record = self.read()
        if not record or record["status"] != "finished":
            return False
        if record["identity"] != config.identity:
            self.claim(config)
        had = record["asked"]
        enough = all(had.get(key, 0) >= count for key, count in asked(config).items())
        return enough and (self.root / "report.html").exists()


def asked(config: Config) -> dict[str, int]:
    """What may grow from one command to the next without making it another run."""
    return {
        "epochs": config.scratch.epochs,
        "backbone_epochs": config.scratch.backbone_epochs or config.scratch.epochs,
        "fine_tune_epochs": config.fine_tune.epochs,
        "trials": config.sweep.trials,
        "seeds": config.seeds,
    }


@dataclass
class Events:
    """``events.jsonl``: what happened and when, one JSON object a line, never rewritten.

    Kept in memory and written whole, so that it is atomic on object stores too.
    """

    target: Location
    lines: list[str] = field(default_factory=list)
    #: Called with each event once it is written.
    heard: Callable[[dict[str, Any]], None] | None = None

    @classmethod
    def open(cls, run: RunDirectory) -> Events:
        target = run.root / "events.jsonl"
        try:
            return cls(target, target.read_text().splitlines())
        except FileNotFoundError:
            return cls(target)

    def add(self, kind: str, **facts: Any) -> None:
        event = {"time": now(), "event": kind, **facts}
        self.lines.append(json.dumps(event, ensure_ascii=False))
        self.target.write_text("\n".join(self.lines) + "\n")
        if self.heard is not None:
            self.heard(event)


@contextmanager
def lease(run: RunDirectory, *, say: Any = print) -> Iterator[None]:
    """Hold the run while it is written, so that two commands with one name cannot mix.

    The lease is a file that its holder renews; it runs out :data:`LEASE_S` seconds after a death.
    The second command watches it for that long: if it is renewed the holder lives. Storage that is
    away is away for both of them: the holder goes on renewing when it is back, and the second
    counts from then.

    Raises:
        UserError: another process is working on this run.
        RunFailed: another process has taken the run over (this one was stopped for too long).
    """
    target = run.root / "lease.json"
    held = _read_lease(target)
    if held is not None:
        say(f"{run.root} may be in use by another command; waiting up to {LEASE_S:.0f} s")
        _watch(run, target, held)
    holder = _Holder(target)
    # Of its own, as Ctrl-C's signal is ignored by what a shell has put into the background.
    before = signal.signal(LOST_SIGNAL, _raise_taken_over)
    try:
        holder.take()
        time.sleep(SETTLE_S)
        if not holder.is_holding():
            raise UserError(_in_use(run))
        holder.start()
        yield
    except _TakenOver:
        raise RunFailed(f"{run.root} was taken over by another command") from None
    finally:
        signal.signal(LOST_SIGNAL, signal.SIG_IGN)  # it is late for that
        holder.release()
        signal.signal(LOST_SIGNAL, before)


class _TakenOver(BaseException):
    """Raised in the main thread, wherever that is; like Ctrl-C nothing on the way stops it."""


def _raise_taken_over(number: int, frame: object) -> None:
    raise _TakenOver


def _watch(run: RunDirectory, target: Location, held: tuple[str, int]) -> None:
    """Return when the lease has ended or run out.

    Raises:
        UserError: its holder lives.
    """
    deadline = time.monotonic() + LEASE_S
    while time.monotonic() < deadline:
        time.sleep(1.0)
        asked_at = time.monotonic()
        current = _read_lease(target)
        if current is None:
            return
        if current != held:
            raise UserError(_in_use(run))
        if time.monotonic() - asked_at > SLOW_ANSWER_S:
            deadline = time.monotonic() + LEASE_S


def _in_use(run: RunDirectory) -> str:
    return f"{run.root} is in use by another command; wait for its end"


class _Holder(threading.Thread):
    """Takes the lease, renews it, and interrupts the main thread if somebody else has it."""

    def __init__(self, target: Location) -> None:
        super().__init__(name="lease", daemon=True)
        self.target = target
        self.mine = uuid.uuid4().hex
        self._stopped = threading.Event()

    def take(self) -> None:
        self._write(-1)

    def run(self) -> None:
        beat = 0
        while not self._stopped.is_set():
            # Storage that fails is no reason to give the run up: whoever writes to it will know. A
            # lease that cannot be read is nobody's yet.
            with contextlib.suppress(OSError, ValueError):
                if not self.is_holding():
                    signal.pthread_kill(threading.main_thread().ident or 0, LOST_SIGNAL)
                    return
                self._write(beat)
                beat += 1
            self._stopped.wait(RENEW_S if beat > FIRST_LOOKS else min(FIRST_LOOK_S, RENEW_S))

    def release(self) -> None:
        self._stopped.set()
        if self.is_alive():
            self.join()
        # What cannot be deleted runs out.
        with contextlib.suppress(OSError, ValueError):
            if _read_lease(self.target) is not None and self.is_holding():
                self.target.delete()

    def is_holding(self) -> bool:
        """Whether nobody else has the lease now."""
        current = _read_lease(self.target)
        return current is None or current[0] == self.mine

    def _write(self, beat: int) -> None:
        self.target.write_json({"holder": self.mine, "beat": beat})


def _read_lease(target: Location) -> tuple[str, int] | None:
    try:
        content = target.read_json()
    except FileNotFoundError:
        return None
    return content["holder"], content["beat"]
