"""Shards: rows of pixels or features in Arrow IPC files, read by row number.

A shard is an uncompressed Arrow IPC file: ``row`` holds the raw bytes of one row, ``label`` uint8
and ``uri`` text; the rows' shape and dtype are in the schema's metadata. Any Arrow reader opens
it. Local shards are memory-mapped, remote ones are fetched once to the node's disk, so a training
worker gathers any rows in any order without Ray. Pixels do not compress: no time is spent trying.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from catdog.storage import Location
from catdog.storage.copies import fetched, send
from catdog.storage.direct import DirectFile
from catdog.storage.retrying import retried

#: Rows of one record batch where a whole array is written at once.
BATCH_ROWS = 256


def dtype_named(name: str) -> np.dtype[Any]:
    """A dtype by its name, ``bfloat16`` included."""
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


class ShardWriter:
    """Writes one shard batch by batch; it appears under its name when it is complete.

    Use as a context manager: left by an exception, nothing remains of it. On a disk the folder
    above that of ``target`` must be there.
    """

    def __init__(
        self,
        target: Location,
        shape: Sequence[int],
        dtype: np.dtype[Any],
        extra: pa.Schema | None = None,
    ) -> None:
        self.target, self.rows = target, 0
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)
        self._width = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        fields = [
            pa.field("row", pa.binary(self._width), nullable=False),
            pa.field("label", pa.uint8(), nullable=False),
            pa.field("uri", pa.string(), nullable=False),
            *(extra or pa.schema([])),
        ]
        about = {"shape": json.dumps(self.shape), "dtype": self.dtype.name}
        self._schema = pa.schema(fields, metadata=about)
        if target.is_local:
            folder = target.local_path.parent
            # Its folder's own is there, or the attempt that this belongs to was given up: a task
            # that outlives it leaves nothing.
            folder.mkdir(exist_ok=True)
        else:
            folder = Path(tempfile.gettempdir())
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{target.name[:100]}.")
        os.close(handle)
        self._temporary = Path(name)
        self._file = DirectFile(name)
        self._writer = pa.ipc.new_file(pa.PythonFile(self._file, "w"), self._schema)

    def append(
        self,
        rows: NDArray[Any],
        labels: ArrayLike,
        uris: Sequence[str],
        extra: Sequence[pa.Array] = (),
    ) -> None:
        """Write ``rows`` of shape (n, *shape) as one record batch, without a copy if contiguous."""
        if rows.shape[1:] != self.shape or rows.dtype != self.dtype:
            raise ValueError(
                f"rows are {rows.dtype}{rows.shape[1:]}, the shard {self.dtype}{self.shape}"
            )
        block = np.ascontiguousarray(rows)
        count = len(block)
        body = pa.py_buffer(block.reshape(-1).view(np.uint8))
        columns = [
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(self._width), count, [None, body]),
            pa.array(np.asarray(labels, np.uint8)),
            pa.array(list(uris), pa.string()),
            *extra,
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self.rows += count

    def close(self) -> dict[str, Any]:
        """Finish, publish, and return ``{"file", "rows", "bytes"}``."""
        self._writer.close()
        self._file.close()
        size = self._temporary.stat().st_size
        try:
            if self.target.is_local:
                os.chmod(self._temporary, 0o644)
                os.replace(self._temporary, self.target.local_path)
            else:
                send(self._temporary, self.target)
        finally:
            self._temporary.unlink(missing_ok=True)
        return {"file": self.target.name, "rows": self.rows, "bytes": size}

    def abandon(self) -> None:
        self._file.abandon()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.abandon()


def write_shard(
    target: Location,
    rows: NDArray[Any],
    *,
    labels: ArrayLike,
    uris: Sequence[str],
    extra: dict[str, pa.Array] | None = None,
) -> dict[str, Any]:
    """Write an array of rows (n, *shape) of any dtype, ``bfloat16`` too, as one shard.

    Args:
        target: the file; it appears when it is complete.
        labels: n values 0 or 1.
        uris: n names of the photos.
        extra: further columns of n values.

    Returns:
        ``{"file": name, "rows": n, "bytes": size of the file}``.
    """
    extra = extra or {}
    schema = pa.schema([pa.field(name, column.type) for name, column in extra.items()])
    marks = np.asarray(labels, np.uint8)
    if target.is_local:
        target.local_path.parent.mkdir(parents=True, exist_ok=True)
    with ShardWriter(target, rows.shape[1:], rows.dtype, schema) as writer:
        for start in range(0, len(rows), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            columns = [column[part] for column in extra.values()]
            writer.append(rows[part], marks[part], uris[part], columns)
        return writer.close()


class Rows:
    """Rows over many shards, numbered from 0 in the order of the files.

    ``shape`` and ``dtype`` are those of one row; ``labels`` uint8; ``uris`` the photos' names.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        blocks: list[NDArray[np.uint8]],
        labels: NDArray[np.uint8],
        uris: list[str],
        columns: dict[str, pa.ChunkedArray],
        numbers: NDArray[np.int64] | None = None,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self.labels, self.uris = labels, uris
        self._blocks, self._columns = blocks, columns
        counts = [len(block) for block in blocks]
        if numbers is None:
            numbers = np.arange(sum(counts), dtype=np.int64)
        self._numbers = numbers
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self._block_of = np.searchsorted(starts, numbers, side="right") - 1
        self._row_of = numbers - starts[self._block_of]

    def __len__(self) -> int:
        return len(self._numbers)

    def column(self, name: str) -> pa.Array:
        """An extra column, one value a row."""
        return self._columns[name].take(pa.array(self._numbers)).combine_chunks()

    def select(self, indices: ArrayLike) -> Rows:
        """The rows at ``indices``, in that order, over the same files."""
        chosen = np.asarray(indices, np.int64)
        return Rows(
            self.shape,
            self.dtype,
            self._blocks,
            self.labels[chosen],
            [self.uris[i] for i in chosen],
            self._columns,
            self._numbers[chosen],
        )

    def gather(self, indices: ArrayLike, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """A new array (len(indices), *shape) of the rows at ``indices``, in that order."""
        chosen = np.asarray(indices, np.int64)
        if out is None:
            out = np.empty((len(chosen), *self.shape), self.dtype)
        flat = out.reshape(len(chosen), -1).view(np.uint8) if len(chosen) else out
        blocks = self._blocks
        places = zip(self._block_of[chosen].tolist(), self._row_of[chosen].tolist(), strict=True)
        for position, (block, row) in enumerate(places):
            flat[position] = blocks[block][row]
        return out


def read_rows(file: Location, numbers: Sequence[int]) -> NDArray[Any]:
    """A few rows of one shard, read where it lies: (n, *shape), in the order of ``numbers``.

    Nothing is mapped and no remote shard is fetched. To open a shard that was just written touches
    it in hundreds of places, which took 0.3 s.
    """

    def fetch() -> NDArray[Any]:
        with file.filesystem.open_input_file(file.path) as source:
            reader = pa.ipc.open_file(source)
            about, batches = reader.schema.metadata, {0: reader.get_batch(0)}
            length = len(batches[0])  # that of every batch but the last
            found = []
            for number in numbers:
                index, row = divmod(number, length)
                if index not in batches:
                    batches[index] = reader.get_batch(index)
                found.append(batches[index].column("row")[row].as_py())
        flat = np.frombuffer(b"".join(found), dtype_named(about[b"dtype"].decode()))
        return flat.reshape(len(found), *json.loads(about[b"shape"]))

    return retried(fetch, file)


def open_rows(files: Sequence[Location], *, cache: Path | None = None) -> Rows:
    """Open shards as one sequence of rows.

    Args:
        files: shards of equal row shape and dtype, in order.
        cache: where copies of remote shards are kept; default: a folder of this user on the node.

    Raises:
        FileNotFoundError: a shard is missing.
        ValueError: no shard is given, or their rows differ in shape or dtype.
    """
    if not files:
        raise ValueError("no shards to open")
    blocks: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    uris: list[str] = []
    extras: dict[str, list[pa.Array]] = {}
    seen: set[tuple[tuple[int, ...], str]] = set()
    for file in files:
        reader = pa.ipc.open_file(pa.memory_map(str(fetched(file, cache))))
        about = reader.schema.metadata
        shape = tuple(json.loads(about[b"shape"]))
        seen.add((shape, about[b"dtype"].decode()))
        for index in range(reader.num_record_batches):
            batch = reader.get_batch(index)
            column = batch.column("row")
            raw = np.frombuffer(column.buffers()[1], np.uint8)
            blocks.append(raw.reshape(len(column), column.type.byte_width))
            labels.append(batch.column("label").to_numpy())
            uris.extend(batch.column("uri").to_pylist())
            for name in batch.schema.names[3:]:
                extras.setdefault(name, []).append(batch.column(name))
    if len(seen) != 1:
        raise ValueError(f"shards hold rows of different kinds: {sorted(map(str, seen))}")
    shape, dtype = seen.pop()
    joined = np.concatenate(labels) if labels else np.zeros(0, np.uint8)
    columns = {name: pa.chunked_array(parts) for name, parts in extras.items()}
    return Rows(shape, dtype_named(dtype), blocks, joined, uris, columns)
