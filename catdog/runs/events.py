"""Event log of a run, ``events.jsonl``."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from catdog.runs.directory import RunDirectory
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
