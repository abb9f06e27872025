"""Event log of a run, ``events.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from catdog.runs.directory import RunDirectory
from catdog.runs.records import Event
from catdog.storage import Location


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class Events:
    """``events.jsonl``: what happened and when, one JSON object a line, never rewritten.

    Kept in memory and written whole, so that it is atomic on object stores too.
    """

    target: Location
    lines: list[str] = field(default_factory=list)
    #: Called with each event once it is written.
    heard: Callable[[Event], None] | None = None

    @classmethod
    def open(cls, run: RunDirectory) -> Events:
        target = run.root / "events.jsonl"
        try:
            return cls(target, target.read_text().splitlines())
        except FileNotFoundError:
            return cls(target)

    def recorded(self) -> list[Event]:
        """All events so far."""
        return [Event.fitted(json.loads(line))[0] for line in self.lines]

    def add(self, kind: str, **facts: object) -> None:
        event = Event.model_validate({"time": now(), "event": kind, **facts})
        self.lines.append(json.dumps(event.as_json(), ensure_ascii=False))
        self.target.write_text("\n".join(self.lines) + "\n")
        if self.heard is not None:
            self.heard(event)
