"""Epochs and trials of an unfinished run, recovered from its events.

``history.json`` and ``trials.json`` are written when all of it is done. The events have the same
numbers as they came.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from catdog.runs.records import Epoch, Event, Sweep, Trial


def history(events: Sequence[Event], model: str) -> list[Epoch]:
    """Rows of ``model`` as in ``history.json``; an epoch that was trained again counts once."""
    return _rows(e for e in events if e.event in ("probe", "epoch") and e.model == model)


def sweep(events: Sequence[Event]) -> Sweep:
    """The trials so far as in ``trials.json``, without a best."""
    told = [event for event in events if event.event == "trial"]
    return Sweep(
        trials=[_trial([e for e in told if e.id == key]) for key in {e.id: 0 for e in told}]
    )


def _trial(events: Sequence[Event]) -> Trial:
    rows = _rows(events)
    reached = [row.val_accuracy for row in rows if math.isfinite(row.val_accuracy)]
    return Trial(
        id=events[0].id,
        config=events[0].config,
        val_accuracy=max(reached, default=None),
        epochs=len(rows),
        seconds=sum(row.seconds for row in rows),
        status="running",
        history=rows,
    )


def _rows(events: Iterable[Event]) -> list[Epoch]:
    return list({(event.phase, event.epoch): event.row for event in events}.values())
