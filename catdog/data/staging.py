"""Staging folder of a prepared set: invisible until it is complete, removed if it fails.

On a local disk it is a hidden folder that is renamed when everything is written. An object store
cannot rename: there the names of the shards contain the attempt, and the manifest, written last,
lists the shards. Simultaneous attempts do not share files; the first to finish wins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from catdog.config import digest
from catdog.storage import Location
from catdog.storage.retrying import retried


class StagingFolder:
    """A context manager; :meth:`publish` makes the set visible under its fingerprint.

    ``root`` is where to write, ``suffix`` belongs into the names of shards. ``owner`` makes one
    attempt at a time; what a killed one has left goes when the next begins.
    """

    def __init__(self, datasets: Location, fingerprint: str, owner: str | None = None) -> None:
        self._final = datasets / fingerprint
        # An object store has no lock that ends with a process. There an owner's attempts have one
        # name, so that the next can tell what the last has left.
        named = owner is not None and not datasets.is_local
        self._name = f".{fingerprint}.{digest(owner)[:8] if named else uuid.uuid4().hex[:8]}"
        self._datasets = datasets
        self._lock: IO[str] | None = None
        self._scratch: Location | None = None
        self._written = False
        self.suffix = "" if datasets.is_local else "-" + self._name[-8:]
        self.root = datasets / self._name if datasets.is_local else self._final

    def __enter__(self) -> StagingFolder:
        if self._datasets.is_local:
            folder = self._datasets.mkdir().local_path
            _remove_abandoned(folder)
            # The lock ends with the process, whatever ends it: so a dead attempt can be told.
            self._lock = (folder / f"{self._name}.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            self.root.mkdir()
        else:
            self._delete_remote()
        return self

    def scratch(self) -> Location:
        """A folder for files that are needed during the attempt only."""
        self._scratch = self._datasets / f"{self._name}.scratch"
        return self._scratch

    def publish(
        self, manifest: dict[str, Any], is_whole: Callable[[], bool] = lambda: True
    ) -> None:
        """Write the manifest and show the set; one that is there and ``is_whole`` stays."""
        self._drop_scratch()
        if not self._datasets.is_local:
            (self.root / "manifest.json").write_json(manifest)
            self._written = True
            return
        (self.root / "manifest.json").write_json(manifest)
        for left in self.root.local_path.glob("*/.*"):  # of a task whose process was killed
            left.unlink(missing_ok=True)
        if not self._shown() and not is_whole():
            shutil.rmtree(self._final.local_path, ignore_errors=True)
            self._shown()

    def _shown(self) -> bool:
        """Whether the set has its final name now; not where another is there."""
        try:
            os.rename(self.root.local_path, self._final.local_path)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False
        return True

    def _drop_scratch(self) -> None:
        if self._scratch is not None:
            self._scratch.delete_tree()
            self._scratch = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._drop_scratch()
        if not self._datasets.is_local:
            if not self._written:
                self._delete_remote()
            return
        self._delete_local()
        if self._lock is not None:
            Path(self._lock.name).unlink(missing_ok=True)
            self._lock.close()

    def _delete_local(self) -> None:
        """Under another name, so that a task that is still at work finds nowhere to write to."""
        root = self.root.local_path
        gone = root.with_name(f"{self._name}.gone")
        with contextlib.suppress(OSError):  # none is there where it was published
            os.rename(root, gone)
        for left in (gone, root):
            shutil.rmtree(left, ignore_errors=True)

    def _delete_remote(self) -> None:
        with contextlib.suppress(OSError):
            (self._datasets / f"{self._name}.scratch").delete_tree()
        with contextlib.suppress(OSError):
            for info in self.root.list(recursive=True):
                if self.suffix in info.path.rpartition("/")[2]:
                    retried(partial(self.root.filesystem.delete_file, info.path), self.root)


def _remove_abandoned(folder: Path) -> None:
    """Delete attempts whose process is gone; a lock that is held belongs to a living one."""
    for lock in folder.glob(".*.lock"):
        with contextlib.suppress(OSError), lock.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name = lock.name.removesuffix(".lock")
            for left in (name, f"{name}.scratch", f"{name}.gone"):
                shutil.rmtree(folder / left, ignore_errors=True)
            lock.unlink(missing_ok=True)
