"""One command's session on a run: status and times in ``run.json``, events in ``events.jsonl``."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from catdog import console
from catdog.config import Config
from catdog.console import given
from catdog.pipeline.event_log import EventLog
from catdog.redact import without_secrets
from catdog.runs import Events, RunDirectory, asked, now, records
from catdog.runs.records import VERSION, Run


@dataclass
class Session:
    """Begins, notes what happens, ends; the times of all sessions of a run add up."""

    run: RunDirectory
    events: Events
    event_log: EventLog
    seconds_before: float = 0.0
    started_at: str = field(default_factory=now)
    started: float = field(default_factory=time.monotonic)

    @classmethod
    @contextmanager
    def of(cls, run: RunDirectory, config: Config, versions: dict[str, str]) -> Iterator[Session]:
        """A session on ``run``; an exception ends it as failed and goes on upwards."""
        record = run.claim(config)
        events = Events.open(run)
        session = cls(run, events, EventLog(events))
        session._begin(config, record, versions)
        try:
            yield session
        except BaseException as error:
            session.event_log.close()
            # A disk that is full is perhaps why; the next session counts this one as killed.
            with suppress(OSError):
                session._end("failed", str(error) or type(error).__name__)
            raise

    def stage(self, name: str, explanation: str = "") -> None:
        console.stage(name, explanation)
        self.events.add("stage", name=name)

    def note(self, line: str) -> None:
        """Something that the report must say plainly."""
        console.warn(line)
        self.run.update(notes=[*self.run.read().notes, without_secrets(line)])

    def finish(self, status: str = "finished") -> None:
        """``tuned`` where a sweep alone was asked for: the run's training may still come."""
        self._end(status, None)

    def _begin(self, config: Config, record: Run, versions: dict[str, str]) -> None:
        earlier = [_closed(past, self.events) for past in record.sessions]
        self.seconds_before = sum(past.seconds for past in earlier)
        command = without_secrets(given())
        self.run.update(
            status="running",
            preset=config.preset,
            command=command,
            started_at=record.started_at or self.started_at,
            resumed=bool(earlier),
            sessions=[*earlier, self._as_session("running")],
            versions=versions,
            git_commit=_git_commit(),
            seeds=list(range(config.seed, config.seed + config.seeds)),
            asked=asked(config),
            notes=[],
            error=None,
        )
        self.events.add("resume" if earlier else "begin", command=command, version=VERSION)

    def _end(self, status: str, error: str | None) -> None:
        sessions = self.run.read().sessions
        this = self._as_session(status)
        self.run.update(
            status=status,
            finished_at=now(),
            seconds=self.seconds_before + this.seconds,
            sessions=[*sessions[:-1], this],
            error=without_secrets(error),
        )
        self.events.add(status, error=without_secrets(error))

    def _as_session(self, outcome: str) -> records.Session:
        seconds = time.monotonic() - self.started
        return records.Session(started_at=self.started_at, seconds=seconds, outcome=outcome)


def _closed(past: records.Session, events: Events) -> records.Session:
    """A past session as it ended; one that was killed ended with its last event."""
    if past.outcome != "running":
        return past
    began = last = datetime.fromisoformat(past.started_at)
    for event in events.recorded():
        time_of = datetime.fromisoformat(event.time)
        if time_of > began and event.event == "resume":
            break
        last = max(last, time_of)
    return past.model_copy(update={"seconds": (last - began).total_seconds(), "outcome": "killed"})


def _git_commit() -> str | None:
    """The project's commit, where it runs from a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
