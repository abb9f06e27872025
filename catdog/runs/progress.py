"""How far a run is, from what it has written: read by another terminal, nothing is changed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from catdog.runs.directory import RunDirectory
from catdog.runs.inventory import StoredRun


@dataclass(frozen=True)
class Progress:
    """What is being done; ``None`` where no event tells.

    Attributes:
        state: as :attr:`StoredRun.state`.
        stage: the last that began.
        model: the training that is under way, or the model that is swept.
        epoch: the last that ended, and how many there are.
        trials: of the sweep, that have told something, and how many are asked for.
        said: the last event in words, and how long ago that was, in seconds.
        left_s: seconds until the training under way ends, as its last epochs took.
    """

    state: str
    stage: str | None
    model: str | None
    epoch: tuple[int, int] | None
    trials: tuple[int, int] | None
    said: str | None
    age_s: float | None
    left_s: float | None


def progress_of(run: StoredRun, at: datetime | None = None) -> Progress:
    """From ``run.json``, the lease and the events of the last session."""
    moment = at or datetime.now(UTC)
    events = _of_last_session(_events(run))
    stages = [event for event in events if event["event"] == "stage"]
    stage = str(stages[-1]["name"]) if stages else None
    last = events[-1] if events else None
    training = None if run.is_done else _training(events)
    epochs = [e for e in events if e["event"] == "epoch" and e.get("model") == training]
    latest = epochs[-1] if epochs else None
    left = None
    if latest is not None and run.held:
        remaining = (latest["epochs"] - latest["epoch"]) * latest["seconds"]
        left = max(0.0, remaining - _age(latest, moment))
    tried = {event["id"] for event in events if event["event"] == "trial"}
    asked = int((run.record.get("asked") or {}).get("trials", 0))
    return Progress(
        state=run.state,
        stage=stage,
        model=training,
        epoch=None if latest is None else (latest["epoch"], latest["epochs"]),
        trials=(len(tried), asked) if stage == "sweep" and asked else None,
        said=None if last is None else _words(last),
        age_s=None if last is None else _age(last, moment),
        left_s=left,
    )


def _events(run: StoredRun) -> list[dict[str, Any]]:
    """Lines that are whole: on a disk the last may be seen while it is written."""
    try:
        lines = (RunDirectory(run.root).root / "events.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [event for event in found if "event" in event and "time" in event]


def _of_last_session(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    begins = [n for n, event in enumerate(events) if event["event"] in ("begin", "resume")]
    return events[begins[-1] :] if begins else events


def _training(events: list[dict[str, Any]]) -> str | None:
    """The model whose training has begun and not ended."""
    for event in reversed(events):
        if event["event"] in ("training", "restart", "first_step", "epoch"):
            return str(event["model"])
        if event["event"] in ("trained", "probe"):
            return None
    return None


def _age(event: dict[str, Any], moment: datetime) -> float:
    return max(0.0, (moment - datetime.fromisoformat(event["time"])).total_seconds())


def _words(event: dict[str, Any]) -> str:
    """``epoch 2/6 of base_cnn``, ``stage training``, ``probe of resnet50v2``"""
    kind, model = str(event["event"]), event.get("model")
    if kind == "stage":
        return f"stage {event['name']}"
    if kind == "epoch":
        kind = f"epoch {event['epoch']}/{event['epochs']}"
    if kind == "trial":
        return f"trial {event['id']} epoch {event.get('epoch', '?')}"
    return f"{kind.replace('_', ' ')} of {model}" if model else kind
