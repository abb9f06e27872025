"""Mistakes of the user, told in one line.

A :class:`UserError` says what was given, what is wrong with it and what to do. The entry points
print it without a traceback and exit with 2. Everything else is a mistake of ours and keeps its
traceback.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable


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


def install_command(extra: str) -> str:
    """The command that installs an extra of pyproject.toml, to be run in the project's checkout.

    By path, never by name: the project is on no package index, and others' packages are.
    """
    python = sys.orig_argv[0] if sys.orig_argv else "python"
    return f"{python} -m pip install --constraint constraints.txt --editable '.[{extra}]'"


def nearest(word: str, known: Iterable[str], most: int = 1) -> list[str]:
    """The ``known`` names that ``word`` may have been meant for, the likeliest first."""
    names = {name.lower(): name for name in known}
    lower = word.lower()
    found = difflib.get_close_matches(lower, names, most)
    if not found and len(lower) >= 3:
        found = [name for name in names if lower in name][:most]
    return [names[name] for name in found]


def did_you_mean(names: Iterable[str]) -> str:
    """``; did you mean a, b or c?`` to end a line with; nothing where there are no names."""
    *others, last = (*names,) or ("",)
    choice = f"{', '.join(others)} or {last}" if others else last
    return f"; did you mean {choice}?" if last else ""
