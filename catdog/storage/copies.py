"""Copy whole files between this node's disk and a remote store, with retries."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from catdog.storage import Location
from catdog.storage.retrying import retried

#: How much goes to or from a store at once.
REMOTE_PIECE = 8 << 20


def node_cache() -> Path:
    """Where this node keeps copies of remote files: ``$CATDOG_CACHE`` or a temporary folder."""
    given = os.environ.get("CATDOG_CACHE")
    return Path(given) if given else Path(tempfile.gettempdir()) / f"catdog-cache-{os.getuid()}"


def fetched(file: Location, cache: Path | None = None) -> Path:
    """The copy of ``file`` on this node's disk, fetched once for all workers."""
    if file.is_local:
        return file.local_path
    folder = cache or node_cache()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy = folder / f"{hashlib.sha256(file.uri.encode()).hexdigest()[:24]}-{file.name}"
    if copy.exists():
        return copy
    with _locked(copy.with_suffix(".lock")):
        if not copy.exists():
            retried(lambda: _download(file, copy), file)
    return copy


def send(source: Path, target: Location) -> None:
    """Copy a file from this disk to a store."""
    retried(lambda: _upload(source, target), target)


def _upload(source: Path, target: Location) -> None:
    with (
        source.open("rb") as local,
        target.filesystem.open_output_stream(target.path) as remote,
    ):
        shutil.copyfileobj(local, remote, REMOTE_PIECE)
    _check_whole(target, source.stat().st_size)


def _download(file: Location, copy: Path) -> None:
    handle, name = tempfile.mkstemp(dir=copy.parent, prefix=".part.")
    try:
        with (
            os.fdopen(handle, "wb") as local,
            file.filesystem.open_input_stream(file.path) as remote,
        ):
            shutil.copyfileobj(remote, local, REMOTE_PIECE)
        _check_whole(file, Path(name).stat().st_size)
        os.replace(name, copy)
    finally:
        Path(name).unlink(missing_ok=True)


def _check_whole(remote: Location, size: int) -> None:
    """Check the size: a broken connection does not always raise. :func:`retried` then repeats."""
    there = remote.filesystem.get_file_info(remote.path).size
    if there != size:
        raise OSError(f"{remote} has {there} bytes and its copy here {size}")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
