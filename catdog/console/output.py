"""Print lines, progress bars and tables, with keys in URIs removed.

Plain lines in job logs and pipes, a live bar on a terminal. Apart from ``--help`` nothing else in
the project prints. :mod:`catdog.console.activity` shows what is being done between the lines.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from catdog.console.activity import Activity
from catdog.redact import without_secrets

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)
_activity = Activity(_out, _err)
#: A context in which the current stage is shown while nothing else is printed.
activity_shown = _activity.shown


class Advance(Protocol):
    def __call__(self, done: float, text: str = "") -> None: ...


def say(line: str = "") -> None:
    """One line on standard output, shown at once."""
    _activity.printed()
    _out.print(without_secrets(line), markup=False)


def stage(name: str, explanation: str = "") -> None:
    line = f"── {name}" + (f"  {explanation}" if explanation else "")
    _activity.printed()
    _out.print(without_secrets(line), markup=False, style="bold")
    doing(name)


def doing(what: str) -> None:
    """Set what the spinner shows and what a silent log repeats."""
    _activity.begin(without_secrets(what))


def warn(line: str) -> None:
    _activity.printed()
    _out.print(f"note: {without_secrets(line)}", markup=False, style="yellow")


def caution(line: str) -> None:
    """A warning about a result, on standard error, so that results can be read alone."""
    _err.print(f"warning: {without_secrets(line)}", markup=False, style="yellow")


def complain(line: str, details: Iterable[str] = ()) -> None:
    """The one line that explains a failure, on standard error."""
    _err.print(f"error: {without_secrets(line)}", markup=False, style="red")
    for detail in details:
        _err.print(f"  {without_secrets(detail)}", markup=False)


def complain_more(line: str) -> None:
    """A line below :func:`complain` that says what to do."""
    _err.print(without_secrets(line), markup=False)


def table(columns: list[str], rows: list[list[str]]) -> None:
    _activity.printed()
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    _out.print(grid, markup=False) if _out.is_terminal else Console(
        width=200, file=_out.file
    ).print(grid)


def is_live() -> bool:
    """Whether the output is a terminal, where bars can move; logs and pipes get lines only."""
    return _out.is_terminal


@contextmanager
def progress(label: str, total: float, *, clock: bool = True) -> Iterator[Advance]:
    """A live bar on a terminal, silent elsewhere; call the yielded function with what is done.

    ``clock``: with the time left until ``total``; not where the text tells of another time.
    """
    if not is_live():
        with _activity.within(label) as note:
            yield lambda done, text="": note(text)
        return
    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}"),
        *([TimeRemainingColumn()] if clock else []),
    ]
    with _activity.bar_shown(), Progress(*columns, console=_out, transient=True) as bar:
        task = bar.add_task(label, total=total, text="")
        yield lambda done, text="": bar.update(task, completed=done, text=text)


def counted(advance: Advance) -> Callable[[int, int], None]:
    """Adapt ``advance`` to callers that report (done, total); the bar's own total is 1."""
    return lambda done, total: advance(done / max(total, 1), f"{done} of {total}")


@contextmanager
def chatter_to(log: Path) -> Iterator[None]:
    """Send what libraries print into ``log``; the lines of this module stay visible.

    TensorFlow and Ray's core write to file descriptor 2 past Python, Tune and Ray's error listener
    print from threads, whatever their log levels say: so the descriptors themselves are turned.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    kept = [os.dup(1), os.dup(2)]
    consoles = (_out, _err)
    streams = [os.fdopen(os.dup(number), "w", buffering=1) for number in kept]
    # None lets a console follow sys.stdout, which others may turn meanwhile.
    own = (sys.stdout, sys.stderr)
    before = [None if console.file in own else console.file for console in consoles]
    with _activity.lock:
        for number, console, stream in zip((1, 2), consoles, streams, strict=True):
            os.dup2(sink, number)
            console.file = stream
    os.close(sink)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        with _activity.lock:
            for number, saved, console, stream, old in zip(
                (1, 2), kept, consoles, streams, before, strict=True
            ):
                os.dup2(saved, number)
                os.close(saved)
                console.file = cast(IO[str], old)
                stream.close()


def plural(number: int, noun: str) -> str:
    """``1 worker``, ``2 workers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """``75`` → ``1:15``; ``3725`` → ``1:02:05``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Bytes for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def given() -> str:
    """This command as it was typed, for a shell."""
    return shlex.join([sys.orig_argv[0], *sys.argv])
