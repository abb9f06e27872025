"""A time limit on steps: a worker that waits for a lost peer exits, and Ray restarts the group."""

from __future__ import annotations

import os
import sys
import threading
import time
from typing import Self

#: How often the watchdog looks.
LOOK_EVERY_S = 1.0

#: Of a worker that hangs: an internal error (sysexits.h).
EXIT_CODE = 70


class Watchdog(threading.Thread):
    """Ends this process when :meth:`feed` has not been called for ``limit_s`` seconds.

    It watches inside of its ``with`` block only: who has no more steps to take is not hanging.

    A rank that is stuck in a collective cannot raise: it is inside TensorFlow. Its process ends,
    the others get an error at once, and the restart continues from the last checkpoint. (A peer
    whose process stopped is noticed by TensorFlow itself within about 15 s.)
    """

    def __init__(self, limit_s: float) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.limit_s = limit_s
        self._fed = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.feed()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def feed(self) -> None:
        """Something went forward."""
        self._fed = time.monotonic()

    def run(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            if time.monotonic() - self._fed > self.limit_s:
                print(
                    f"no step for {self.limit_s:.0f} s: this worker hangs and ends itself",
                    file=sys.stderr,
                    flush=True,
                )
                os._exit(EXIT_CODE)
