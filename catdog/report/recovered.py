"""Epochs and trials of an unfinished run, recovered from its events.

``history.json`` and ``trials.json`` are written when all of it is done. The events have the same
numbers as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Tree = dict[str, Any]

_ROW = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy", "seconds")
_MORE = ("images_per_second", "learning_rate")


def history(events: Sequence[Tree], model: str) -> list[Tree]:
    """Rows of ``model`` as in ``history.json``; an epoch that was trained again counts once."""
    rows: dict[tuple[Any, Any], Tree] = {}
    for event in events:
        if event.get("event") in ("probe", "epoch") and event.get("model") == model:
            rows[event.get("phase"), event.get("epoch")] = _row(event)
    return list(rows.values())


def sweep(events: Sequence[Tree]) -> Tree | None:
    """The trials so far as in ``trials.json``, without a best; ``None`` where there are none."""
    trials: dict[str, Tree] = {}
    for event in events:
        if event.get("event") != "trial":
            continue
        name = str(event.get("id"))
        trial = trials.setdefault(
            name, {"id": name, "config": event.get("config"), "history": [], "status": "running"}
        )
        again = [row for row in trial["history"] if row.get("epoch") == event.get("epoch")]
        trial["history"] = [row for row in trial["history"] if row not in again] + [_row(event)]
    for trial in trials.values():
        reached = [row["val_accuracy"] for row in trial["history"] if "val_accuracy" in row]
        trial["epochs"] = len(trial["history"])
        trial["val_accuracy"] = max(reached, default=None)
        trial["seconds"] = sum(row.get("seconds", 0) for row in trial["history"])
    return {"trials": list(trials.values())} if trials else None


def _row(event: Tree) -> Tree:
    return {key: event[key] for key in (*_ROW, *_MORE) if event.get(key) is not None}
