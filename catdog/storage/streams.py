"""Read and write files piece by piece, local or remote, with retries."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from catdog.storage import Location
from catdog.storage.copies import REMOTE_PIECE, send
from catdog.storage.retrying import retried


@contextlib.contextmanager
def opened(place: Location) -> Iterator[BinaryIO]:
    """A seekable stream over a file, local or remote."""
    if place.is_local:
        with place.local_path.open("rb") as local:
            yield local
    else:
        with (
            retried(lambda: place.filesystem.open_input_file(place.path), place) as remote,
            io.BufferedReader(_Remote(place, remote), REMOTE_PIECE) as stream,
        ):
            yield cast(BinaryIO, stream)


class _Remote(io.RawIOBase):
    """A remote file whose reads are repeated when the network fails."""

    def __init__(self, place: Location, file: Any) -> None:
        super().__init__()
        self._place, self._file = place, file
        self._size, self._at = file.size(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count: int = max(0, min(len(buffer), self._size - self._at))
        if count:
            content = retried(lambda: self._file.read_at(count, self._at), self._place)
            count = len(content)
            buffer[:count] = content
            self._at += count
        return count


class Written:
    """A file to append to; a remote one is written locally first: a failure can be repeated."""

    def __init__(self, target: Location) -> None:
        self.target, self.length = target, 0
        if target.is_local:
            target.local_path.parent.mkdir(parents=True, exist_ok=True)
            self._name = target.path
        else:
            handle, self._name = tempfile.mkstemp(prefix="catdog-upload.")
            os.close(handle)
        self._file: BinaryIO | None = open(self._name, "wb")  # noqa: SIM115 (closed in close)

    def write(self, piece: bytes) -> None:
        assert self._file is not None
        self._file.write(piece)
        self.length += len(piece)

    def close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if not self.target.is_local:
            try:
                send(Path(self._name), self.target)
            finally:
                os.unlink(self._name)
