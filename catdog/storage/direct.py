"""Write large files with ``O_DIRECT``, past the page cache.

The kernel spends a core for every 400 MB/s to 2 GB/s that go through the page cache, and drops
other files from memory for them. ``O_DIRECT`` leaves that to the disk. A disk that does not keep
up is written through the cache again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path

#: Linux has it; elsewhere everything goes through the page cache.
O_DIRECT = getattr(os, "O_DIRECT", 0)
#: Bytes of one write: a multiple of every disk's block.
PIECE_BYTES = 2 << 20
#: A file that has waited for the disk for more than this share of its time, and for more than
#: :data:`PATIENCE_S` seconds, goes on through the page cache.
WAITED_SHARE = 0.5
PATIENCE_S = 0.5


class DirectFile:
    """A new file that is filled from its start to its end; what is full is written by a thread.

    Raises:
        OSError: at a later write or at :meth:`close`, where the disk has failed or is full.
    """

    def __init__(self, path: str | Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._began, self._waited_s = time.monotonic(), 0.0
        _set_direct(self._fd, True)
        self._filling, self._other = _spare_buffer(), _spare_buffer()
        self._filled = 0
        self._pending: Future[None] | None = None
        self.closed = False

    def write(self, data: bytes | memoryview) -> int:
        if self.closed:  # its memory is another file's by now
            raise ValueError("the file is closed")
        view = memoryview(data).cast("B")
        count = len(view)
        while len(view):
            part = view[: PIECE_BYTES - self._filled]
            self._filling[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == PIECE_BYTES:
                self._send()
        return count

    def _send(self) -> None:
        self._wait()
        piece = memoryview(self._filling)
        self._pending = _writer().submit(_write_all, self._fd, piece)
        self._filling, self._other = self._other, self._filling
        self._filled = 0

    def _wait(self) -> None:
        """Wait until the other buffer is on the disk."""
        if self._pending is None:
            return
        began = time.monotonic()
        self._pending.result()
        self._pending = None
        now = time.monotonic()
        self._waited_s += now - began
        if self._waited_s > max(PATIENCE_S, WAITED_SHARE * (now - self._began)):
            _set_direct(self._fd, False)

    @property
    def direct(self) -> bool:
        """Whether writes go past the page cache."""
        return _is_direct(self._fd)

    def flush(self) -> None:
        """Nothing to do: the last piece is written by :meth:`close`."""

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._wait()
            # The end of the file is no whole piece, which O_DIRECT would refuse.
            _set_direct(self._fd, False)
            _write_all(self._fd, memoryview(self._filling)[: self._filled])
        finally:
            self._release()

    def abandon(self) -> None:
        """Close without writing the rest; errors of the disk are ignored."""
        if not self.closed:
            if self._pending is not None:
                self._pending.exception()
            self._release()

    def _release(self) -> None:
        self.closed = True
        os.close(self._fd)
        _spare_buffers().extend((self._filling, self._other))


def _is_direct(fd: int) -> bool:
    return bool(fcntl.fcntl(fd, fcntl.F_GETFL) & O_DIRECT)


def _set_direct(fd: int, wanted: bool) -> None:
    """Set ``O_DIRECT``; on file systems without it everything goes through the page cache."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | O_DIRECT if wanted else flags & ~O_DIRECT)


def _write_all(fd: int, data: memoryview) -> None:
    while len(data):
        try:
            data = data[os.write(fd, data) :]
        except OSError as error:
            # A file system that takes the flag and not the write, or a disk whose blocks are larger
            # than what is left of a piece.
            if error.errno != errno.EINVAL or not _is_direct(fd):
                raise
            _set_direct(fd, False)


@cache
def _writer() -> ThreadPoolExecutor:
    """One thread for all files of this process: a disk gains nothing from more."""
    return ThreadPoolExecutor(1, "shards")


@cache
def _spare_buffers() -> list[mmap.mmap]:
    """Buffers kept for the next file: new memory costs the kernel more than the copy into it."""
    return []


def _spare_buffer() -> mmap.mmap:
    spare = _spare_buffers()
    # Memory of its own pages is aligned as O_DIRECT asks for.
    return spare.pop() if spare else mmap.mmap(-1, PIECE_BYTES)
