"""List the files of a source: a folder, a bucket's prefix, an archive or a table.

Listing reads names and sizes only; :func:`read` returns the bytes of one file.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import stat
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from catdog.data import archives
from catdog.data.labels import CLASSES, UNKNOWN, is_litter, label_named, label_of
from catdog.errors import UserError
from catdog.redact import without_secrets
from catdog.storage import Location
from catdog.storage.retrying import retried
from catdog.storage.streams import opened

#: A file above this is not read whole: no photo within the limit on pixels is so large.
MAX_FILE_BYTES = 1 << 30
_HEAD_BYTES = 1 << 16
_PIECE = 1 << 24

FILES = pa.schema(
    [
        ("uri", pa.string()),  # for people
        ("base", pa.int16()),  # number of the file system in Listing.bases
        ("path", pa.string()),  # within that file system
        ("offset", pa.int64()),
        ("size", pa.int64()),  # bytes from offset on, -1: the whole file, of unknown size
        ("label", pa.int8()),
        ("problem", pa.string()),  # known before reading: no regular file, damaged in the archive
    ]
)


@dataclass(frozen=True)
class Listing:
    """All files of a source, sorted by path, without operating systems' litter."""

    source: Location
    files: pa.Table
    bases: tuple[Location, ...]
    digest: str
    archive: bool = False

    def counts(self) -> dict[str, int]:
        labels = self.files.column("label").to_numpy()
        counted = {name: int((labels == i).sum()) for i, name in enumerate(CLASSES)}
        return counted | {"unknown": int((labels == UNKNOWN).sum())}

    def bytes(self) -> int:
        return int(np.maximum(self.files.column("size").to_numpy(), 0).sum())


@dataclass
class _Rows:
    """Columns of a listing while it grows, and what names it."""

    columns: dict[str, list[Any]] = field(default_factory=lambda: {n: [] for n in FILES.names})
    stamps: list[str] = field(default_factory=list)

    def add(self, stamp: object, **values: Any) -> None:
        row = {"base": 0, "offset": 0, "problem": None} | values
        for name, column in self.columns.items():
            column.append(row[name])
        self.stamps.append(f"{row['uri']}\0{row['size']}\0{row['label']}\0{stamp}")

    def listing(self, source: Location, *bases: Location, archive: bool = False) -> Listing:
        table = pa.table(self.columns, schema=FILES)
        uris = np.asarray(self.columns["uri"], dtype=object)
        order = np.argsort(uris, kind="stable") if len(uris) else np.zeros(0, np.int64)
        digest = hashlib.sha256()
        for index in order:
            digest.update(self.stamps[index].encode("utf-8", "surrogatepass") + b"\n")
        files = table.take(pa.array(order))
        return Listing(source, files, bases, digest.hexdigest()[:32], archive)


def list_source(source: str, *, labelled: bool = True) -> Listing:
    """List a folder, prefix, archive or table.

    Args:
        source: path or URI.
        labelled: without, a table needs no labels, and any other single file is a photo.

    Raises:
        UserError: there is no such place, or it is a file of an unknown kind.
    """
    place = Location.of(source)
    try:
        info = place.info()
    except OSError as error:
        raise UserError(f"cannot reach {place}: {_first_line(error)}") from error
    if info.type == pafs.FileType.Directory:
        return _list_local(place) if place.is_local else _list_remote(place)
    if info.type == pafs.FileType.NotFound:
        raise UserError(f"there is no {place}; give a folder, an archive, a table or a bucket")
    name = place.name.lower()
    if archives.is_archive(name):
        return _list_archive(place, info)
    if name.endswith((".csv", ".parquet")):
        return _list_table(place, labelled)
    if not labelled:
        return _list_file(place, info)
    raise UserError(f"{place} is neither a folder nor a .zip, .tar, .tar.gz, .csv or .parquet file")


def _list_local(root: Location) -> Listing:
    rows, seen = _Rows(), set()
    top = root.path

    def refused(error: OSError) -> None:
        uri = _printable(error.filename or top)
        rows.add(0, uri=uri, path=uri, size=-1, label=UNKNOWN, problem="a folder that is closed")

    for folder, below, names in os.walk(top, followlinks=True, onerror=refused):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back up
            below.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, top) if folder != top else name
            if not is_litter(relative.replace(os.sep, "/")):
                _add_local(rows, path, relative)
    return rows.listing(root, root)


def _add_local(rows: _Rows, path: str, relative: str) -> None:
    problem, size, stamp = None, -1, 0
    try:
        status = os.stat(path)
        size, stamp = status.st_size, status.st_mtime_ns
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            problem, size = "no regular file", -1
    except OSError as error:
        problem = error.strerror or type(error).__name__
    shown = _printable(path)
    if shown != path:
        problem = problem or "a name that is not UTF-8"
    label = label_of(_printable(relative).replace(os.sep, "/"))
    rows.add(stamp, uri=shown, path=shown, size=size, label=label, problem=problem)


def _list_remote(root: Location) -> Listing:
    rows = _Rows()
    prefix = root.path.rstrip("/") + "/"
    try:
        infos = root.list(recursive=True)
    except OSError as error:
        raise UserError(f"cannot list {root}: {_first_line(error)}") from error
    for info in infos:
        relative = info.path.removeprefix(prefix)
        if info.type == pafs.FileType.File and not is_litter(relative):
            uri = f"{str(root).rstrip('/')}/{relative}"
            rows.add(
                info.mtime_ns, uri=uri, path=info.path, size=info.size, label=label_of(relative)
            )
    return rows.listing(root, root)


def _list_archive(place: Location, info: pafs.FileInfo) -> Listing:
    rows = _Rows()
    with opened(place) as stream:
        for member in archives.members(stream, place.name, info.size):
            if not is_litter(member.path):
                rows.add(
                    info.mtime_ns,
                    uri=f"{place}/{member.path}",
                    path=member.path,
                    size=member.size,
                    label=label_of(member.path),
                    problem=member.problem,
                )
    return rows.listing(place, place, archive=True)


def _list_file(place: Location, info: pafs.FileInfo) -> Listing:
    rows = _Rows()
    if place.is_local:
        _add_local(rows, place.path, place.name)
    else:
        rows.add(info.mtime_ns, uri=str(place), path=place.path, size=info.size, label=UNKNOWN)
    return rows.listing(place, place)


def _list_table(place: Location, labelled: bool) -> Listing:
    table = _read_table(place, labelled)
    rows, bases = _Rows(), [place]
    folder, scheme_of_table = posixpath.dirname(place.path), place.uri.partition("://")[0]
    known: dict[str, int] = {}
    for path, label in zip(table["path"], table["label"], strict=True):
        if path is None or not str(path).strip():
            raise UserError(f"{place}: a row has no path")
        text, base = str(path), 0
        if "://" in text and (place.is_local or not text.startswith(scheme_of_table)):
            # A row may bring its store's endpoint, as an address on the command line does.
            plain, mark, query = text.partition("?")
            scheme, _, rest = plain.partition("://")
            host, _, key = rest.partition("/")
            bucket = f"{scheme}://{host}{mark}{query}"
            if bucket not in known:
                known[bucket] = len(bases)
                bases.append(Location.of(bucket))
            base, uri = known[bucket], without_secrets(text)
            inner = f"{host.rpartition('@')[2]}/{key}"
        elif "://" in text:  # the table's own store, with its endpoint and credentials
            inner = text.partition("://")[2].partition("?")[0]
            uri = f"{scheme_of_table}://{inner}"
        else:
            inner = posixpath.normpath(posixpath.join(folder, text))
            uri = inner if place.is_local else f"{scheme_of_table}://{inner}"
        stamp, size, problem = _stat(bases[base], inner)
        rows.add(
            stamp, uri=uri, base=base, path=inner, size=size, label=label_named(label),
            problem=problem,
        )  # fmt: skip
    return rows.listing(place, *bases)


def _read_table(place: Location, labelled: bool) -> dict[str, list[Any]]:
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    source = pa.BufferReader(place.read_bytes())
    try:
        if place.name.lower().endswith(".csv"):
            table = pacsv.read_csv(source)
        else:
            table = pq.read_table(source)
    except pa.ArrowInvalid as error:
        raise UserError(f"{place} cannot be read as a table: {_first_line(error)}") from error
    names = {name.strip().lower(): name for name in table.column_names}
    wanted = ("path", "label") if labelled else ("path",)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(
            f"{place} has no column {missing[0]!r}; it needs {' and '.join(wanted)}, "
            f"and has {', '.join(table.column_names)}"
        )
    found = {name: table.column(names[name]).to_pylist() for name in wanted}
    return {"label": [None] * len(table)} | found


def _stat(base: Location, path: str) -> tuple[object, int, str | None]:
    if not base.is_local:
        return 0, -1, None  # a request for each row costs more than it tells
    try:
        status = os.stat(path)
    except OSError as error:
        return 0, -1, error.strerror or type(error).__name__
    if not stat.S_ISREG(status.st_mode):
        return 0, -1, "no regular file"
    return status.st_mtime_ns, status.st_size, None


def read(base: Location, path: str, offset: int, size: int) -> bytes:
    """The bytes of one listed file; only its beginning if it is above :data:`MAX_FILE_BYTES`.

    Raises:
        OSError: it cannot be read, on a remote store after all retries.
    """
    wanted = size if size <= MAX_FILE_BYTES else _HEAD_BYTES
    if base.is_local:
        return _read_local(path, offset, wanted)

    def fetch() -> bytes:
        with base.filesystem.open_input_file(path) as stream:
            if wanted < 0 and stream.size() > MAX_FILE_BYTES:
                return bytes(stream.read_at(_HEAD_BYTES, offset))
            count = wanted if wanted >= 0 else stream.size() - offset
            return bytes(stream.read_at(count, offset))

    return retried(fetch, base)


def _read_local(path: str, offset: int, wanted: int) -> bytes:
    """At most ``wanted`` bytes (-1: all). A file object would cost as much as the reading."""
    left, parts = MAX_FILE_BYTES if wanted < 0 else wanted, []
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while left > 0 and (part := os.pread(file, min(left, _PIECE), offset)):
            parts.append(part)
            offset += len(part)
            left -= len(part)
    finally:
        os.close(file)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _printable(path: str) -> str:
    if path.isascii():
        return path
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
