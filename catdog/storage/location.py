"""``Location``: a local path, ``s3://`` or ``gs://`` URI, read and written through pyarrow.

A :class:`Location` is an immutable path on some file system. For URIs with a query
(``s3://bucket/dir?endpoint_override=http://host:port``) joining keeps the query at the end, which
is how S3-compatible stores are named.
"""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from catdog.errors import UserError
from catdog.storage import s3
from catdog.storage.retrying import retried


@dataclass(frozen=True)
class Location:
    """A file or folder, local or remote, named by the text ``uri``."""

    uri: str

    @classmethod
    def of(cls, path_or_uri: str | os.PathLike[str] | Location) -> Location:
        """Normalise: local paths become absolute, URIs lose a trailing slash.

        Raises:
            UserError: the scheme is not one that pyarrow can open.
        """
        if isinstance(path_or_uri, Location):
            return path_or_uri
        text = os.fspath(path_or_uri)
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)))
        head, mark, query = text.partition("?")
        location = cls(head.rstrip("/") + mark + query)
        # A bad scheme is found here and not in the middle of a run; no store is asked yet.
        _ = _resolve(s3.with_a_region(location.uri) if location.is_s3 else location.uri)
        return location

    @property
    def is_local(self) -> bool:
        return "://" not in self.uri or self.uri.startswith("file://")

    @property
    def is_s3(self) -> bool:
        return self.uri.startswith("s3://")

    @property
    def is_gs(self) -> bool:
        return self.uri.startswith(("gs://", "gcs://"))

    @property
    def filesystem(self) -> pafs.FileSystem:
        return _resolve(self.uri)[0]

    @property
    def path(self) -> str:
        """The path within :attr:`filesystem` (``bucket/key`` for object stores)."""
        return _resolve(self.uri)[1]

    @property
    def local_path(self) -> Path:
        if not self.is_local:
            raise ValueError(f"{self} is not on a local disk")
        return Path(self.path)

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)

    def __truediv__(self, part: str) -> Location:
        head, mark, query = self.uri.partition("?")
        return Location(f"{head.rstrip('/')}/{part}{mark}{query}")

    @property
    def parent(self) -> Location:
        """The folder that this lies in; a URI keeps its query."""
        head, mark, query = self.uri.partition("?")
        return Location(posixpath.dirname(head) + mark + query)

    def __str__(self) -> str:
        """The location for display, without query and user information, which may be secrets."""
        if self.is_local:
            return self.path
        parts = urlsplit(self.uri)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def exists(self) -> bool:
        return bool(self.info().type != pafs.FileType.NotFound)

    def is_dir(self) -> bool:
        return bool(self.info().type == pafs.FileType.Directory)

    def info(self) -> pafs.FileInfo:
        """Kind, size and time of what is here; of kind ``NotFound`` where there is nothing."""
        return retried(lambda: self.filesystem.get_file_info(self.path), self)

    def list(self, *, recursive: bool = False) -> list[pafs.FileInfo]:
        """Files and folders below this folder (none if it does not exist), sorted by path."""
        selector = pafs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        infos = retried(lambda: self.filesystem.get_file_info(selector), self)
        return sorted(infos, key=lambda info: info.path)

    def folders(self) -> tuple[str, ...]:
        """Names of the folders in this one, sorted."""
        if self.is_gs:
            # Of what lies deeper pyarrow lists nothing there, not even that it is a folder, unless
            # all of it is listed (https://github.com/apache/arrow/issues/35993).
            start = self.path.rstrip("/") + "/"
            below = (info.path.removeprefix(start) for info in self.list(recursive=True))
            return tuple(sorted({path.partition("/")[0] for path in below if "/" in path}))
        found = (each for each in self.list() if each.type == pafs.FileType.Directory)
        return tuple(each.base_name for each in found)

    def mkdir(self) -> Location:
        if self.is_local:
            self.local_path.mkdir(parents=True, exist_ok=True)
        return self

    def read_bytes(self) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: there is none.
        """

        def read() -> bytes:
            with self.filesystem.open_input_stream(self.path) as stream:
                return bytes(stream.read())

        return retried(read, self)

    def read_text(self) -> str:
        return self.read_bytes().decode("utf-8")

    def read_json(self) -> Any:
        return json.loads(self.read_bytes())

    def write_bytes(self, content: bytes, *, retry: bool = True) -> None:
        """Write atomically: readers see the old file or the new one, never a part of it.

        ``retry=False`` is for a caller that repeats a failed attempt itself, and says so.
        """
        if not self.is_local:
            retried(lambda: self._put(content), self) if retry else self._put(content)
            return
        target = self.local_path
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _put(self, content: bytes) -> None:
        # An object store shows an object only when its upload is complete.
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(content)

    def write_text(self, text: str) -> None:
        self.write_bytes(text.encode("utf-8"))

    def write_json(self, value: Any) -> None:
        self.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def delete(self) -> None:
        """Delete this file; nothing happens if it does not exist."""
        with contextlib.suppress(FileNotFoundError):  # also a repeated attempt that had succeeded
            retried(lambda: self.filesystem.delete_file(self.path), self)

    def delete_tree(self) -> None:
        """Delete this folder and all below it; nothing happens if it does not exist."""
        if self.exists():
            with contextlib.suppress(FileNotFoundError):
                retried(lambda: self.filesystem.delete_dir(self.path), self)

    def for_ray(self) -> dict[str, Any]:
        """This folder as ``storage_path`` and ``storage_filesystem`` of Ray Train and Ray Tune.

        Ray tries each request once and ends the run where it fails, so it gets a file system that
        tries for a minute.
        """
        filesystem = self.filesystem
        if not isinstance(filesystem, s3.S3FileSystem):
            return {"storage_path": self.uri}
        patient = filesystem.with_attempts(s3.PATIENT_ATTEMPTS)
        return {"storage_path": self.path, "storage_filesystem": patient}

    def free_bytes(self) -> int | None:
        """Free space where this location is or would be; ``None`` for object stores."""
        if not self.is_local:
            return None
        folder = self.local_path
        while not folder.exists():
            folder = folder.parent
        status = os.statvfs(folder)
        return status.f_bavail * status.f_frsize


@lru_cache(maxsize=256)
def _resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    if "://" not in uri:
        return pafs.LocalFileSystem(), uri
    try:
        if uri.startswith("s3://"):
            return s3.opened(uri)
        filesystem, path = pafs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError) as error:
        scheme = uri.split("://", 1)[0]
        raise UserError(
            f"cannot open a {scheme}:// location ({type(error).__name__}); "
            "give a folder, s3://bucket/path or gs://bucket/path"
        ) from error
    return filesystem, path
