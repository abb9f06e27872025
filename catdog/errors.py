"""Mistakes of the user, told in one line.

A :class:`UserError` says what was given, what is wrong with it and what to do. The entry points
print it without a traceback and exit with 2. Everything else is a mistake of ours and keeps its
traceback.
"""

from __future__ import annotations


class UserError(Exception):
    """Something the user gave cannot be used; the message is the whole explanation.

    ``details`` are lines printed below the message: examples and reasons, never a traceback.
    """

    exit_code = 2

    def __init__(self, message: str, *, details: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.details = details


class RunFailed(Exception):
    """The run ended without a result for a cause that is not the user's input (exit code 1).

    ``cause`` in one line, as a worker reported it; the run's files stay as they are, so the same
    command continues from the last checkpoint.
    """

    exit_code = 1


class StorageAway(OSError):
    """A remote store that has not answered for longer than a run waits for it (exit code 1)."""

    exit_code = 1
