"""Peak memory of a driver and its Ray workers, from ``/proc``."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    return sum(_own(process) for process in [os.getpid(), *_workers(os.getpid())])


def _workers(driver: int) -> list[int]:
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for entry in Path("/proc").glob("[0-9]*"):  # none where there is no /proc
        with contextlib.suppress(OSError, IndexError):
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
            names[int(entry.name)] = (entry / "cmdline").read_bytes()
    found = []
    for process, name in names.items():
        at = process
        while at in parents and at != driver:
            at = parents[at]
        if at == driver and name.startswith(b"ray::"):
            found.append(process)
    return found


def _own(process: int) -> int:
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        kib = [int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))]
        return sum(kib) * 1024
    return 0
