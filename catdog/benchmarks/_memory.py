"""Peak memory of a driver and its Ray workers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


@contextmanager
def peak(interval_s: float = 0.1) -> Iterator[list[int]]:
    """Watch this process and the Ray workers below it; the yielded list gets the peak in bytes.

    Counted is memory of their own (anonymous) and their part of what they share; pages of files,
    which the kernel takes back when it likes, are not.
    """
    result: list[int] = []
    stop, highest = threading.Event(), 0

    def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, _now())
            if stop.wait(interval_s):
                return

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()
        result.append(highest)


def _now() -> int:
    this = psutil.Process()
    return sum(map(_own, [this, *filter(_is_worker, this.children(recursive=True))]))


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name().startswith("ray::")
    return False


def _own(process: psutil.Process) -> int:
    """In bytes. psutil's numbers (rss, pss, uss) have pages of files among them."""
    with contextlib.suppress(OSError):  # it has ended, or there is no /proc
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        kib = [int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))]
        return sum(kib) * 1024
    return 0
