"""Spinner on a terminal, regular lines in a log, while nothing else is printed.

The spinner shows the stage and its time. In logs and pipes a plain line is printed whenever
:data:`BEAT_S` seconds have passed without one. :mod:`catdog.console` sets what is shown.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

#: Seconds without output after which a log gets a line.
BEAT_S = 20.0


@dataclass
class Activity:
    """The current stage of a command.

    Attributes:
        console: where it is shown: standard output.
        errors: standard error.
        text: what is being done; nothing is shown while it is empty.
        detail: how far it is, where that is known.
        said: whether the command has printed anything there; until then a log's lines go to
            ``errors``, for what comes may be an answer that a script reads.
        running: whether a command is running, which shows it; a library's caller sees nothing.
    """

    console: Console
    errors: Console
    text: str = ""
    detail: str = ""
    running: bool = False
    said: bool = False
    since: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    lock: threading.RLock = field(default_factory=threading.RLock)
    _spinner: Progress | None = None
    _bars: int = 0

    def begin(self, text: str) -> None:
        with self.lock:
            self._hide()
            self.text, self.detail, self.since = text, "", time.monotonic()
            self._show()

    @contextmanager
    def within(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show a progress of its own while the block runs."""
        before, since = self.text, self.since
        self.begin(text)

        def note(detail: str) -> None:
            self.detail = detail

        try:
            yield note
        finally:
            self.begin(before)
            self.since = since

    def printed(self) -> None:
        """Note that a line was printed, so that a log needs none for a while."""
        self.heard, self.said = time.monotonic(), True

    @contextmanager
    def bar_shown(self) -> Iterator[None]:
        """Hide the spinner while a bar is shown: a terminal has room for one of them."""
        with self.lock:
            self._bars += 1
            self._hide()
        try:
            yield
        finally:
            with self.lock:
                self._bars -= 1
                self._show()

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the activity until the block is left."""
        over = threading.Event()
        beat = threading.Thread(target=self._beat, args=(over,), name="heartbeat", daemon=True)
        self.running, self.said, self.text = True, False, ""
        self.heard = time.monotonic()
        beat.start()
        try:
            yield
        finally:
            over.set()
            with self.lock:
                self.running = False
                self._hide()
            beat.join()

    def _beat(self, over: threading.Event) -> None:
        while not over.wait(min(1.0, BEAT_S / 4)):
            with self.lock:
                silent = time.monotonic() - self.heard
                if self.text and silent >= BEAT_S and not self.console.is_terminal:
                    console = self.console if self.said else self.errors
                    console.print(f"… {self._line()}", markup=False)
                    self.heard = time.monotonic()

    def _line(self) -> str:
        done = f": {self.detail}" if self.detail else ""
        return f"{self.text}{done}, {time.monotonic() - self.since:.0f} s so far"

    def _show(self) -> None:
        if not (self.running and self.text and self.console.is_terminal) or self._bars:
            return
        text = TextColumn("{task.description}", markup=False)
        columns = SpinnerColumn(), text, TimeElapsedColumn()
        self._spinner = Progress(
            *columns,
            console=self.console,
            transient=True,
            refresh_per_second=4,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        task = self._spinner.add_task(self.text, total=None)
        self._spinner.tasks[task].start_time = self._spinner.get_time() - (
            time.monotonic() - self.since
        )
        self._spinner.start()

    def _hide(self) -> None:
        if self._spinner is not None:
            self._spinner.stop()
            self._spinner = None
