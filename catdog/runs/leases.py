"""Lease on a run directory, so that two commands cannot write to it at once."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from catdog.errors import RunFailed, UserError
from catdog.runs.directory import RunDirectory
from catdog.storage import Location

LEASE_S = 30.0
RENEW_S = 8.0
#: Of two that start at once the one that wrote last holds the lease. Longer than writing usually
#: takes; who is slower is found out at one of the first looks, which follow each other closely.
SETTLE_S = 0.3
FIRST_LOOKS, FIRST_LOOK_S = 8, 1.0
#: By how much the clock of a store may differ from this machine's.
SKEW_S = 15.0
#: Tells the main thread that the lease is another's.
LOST_SIGNAL = signal.SIGUSR1
#: A store that takes longer to answer was away, seconds.
SLOW_ANSWER_S = 3.0


@contextmanager
def lease(run: RunDirectory, *, say: Any = print) -> Iterator[None]:
    """Hold the lease of ``run`` while it is written.

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
    """Raised in the main thread when the lease is lost; like Ctrl-C it is not caught on the way."""


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


def is_held(run: RunDirectory, at: datetime | None = None) -> bool:
    """Whether somebody seems to hold the run: its lease was renewed a short while ago.

    Seen from outside, without waiting; clocks may differ by :data:`SKEW_S`. Only :func:`lease`
    knows for certain.
    """
    info = (run.root / "lease.json").info()
    if info.mtime is None:
        return False
    age = ((at or datetime.now(UTC)) - info.mtime).total_seconds()
    return bool(age < LEASE_S + SKEW_S)
