"""Ray task of the data stage: a block of files in, a shard of pixels and a table of verdicts out.

The task that decodes a photo also writes it. Only verdicts travel through Ray, some 200 bytes a
photo, so memory does not grow with the photos. A photo's split, and whether it is a duplicate, are
known only when all are seen: a shard holds photos of all splits, which are read by row number.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pyarrow as pa

from catdog.data import sources
from catdog.data.decoding import Rejected, Workspace, thumbnail
from catdog.data.images import Photo, inspect
from catdog.data.shards import ShardWriter
from catdog.storage import Location

VERDICTS = pa.schema(
    [
        ("index", pa.int64()),  # in the listing
        ("reason", pa.string()),  # null: a good photo so far
        ("detail", pa.string()),
        ("size", pa.int64()),
        ("thumbnail", pa.binary()),
        ("digest", pa.binary(32)),  # of the file's bytes
        ("hash", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("brightness", pa.float32()),
        ("sharpness", pa.float32()),
        ("flags", pa.string()),
        ("note", pa.string()),
        ("shard", pa.int32()),  # number of the block, -1 where no pixels were written
        ("row", pa.int32()),
    ]
)

#: Rejected files of one reason whose picture is kept for the report.
THUMBNAILS = 8
#: Pixels held back until they are written as one record batch. They are still in the processor's
#: cache then: with 5 MiB a photo took twice the kernel's time.
_BUFFER_BYTES = 5 << 18
_READERS = 16


@dataclass(frozen=True)
class Plan:
    """Arguments of every task; ``suffix`` makes the file names of one attempt unique."""

    bases: tuple[Location, ...]
    root: Location
    image_size: int
    suffix: str = ""
    #: Pictures of rejected files that a block may send along, for each reason.
    thumbnails: int = THUMBNAILS

    def shard(self, number: int) -> str:
        return f"pixels/part-{number:06d}{self.suffix}.arrow"


class _Shard:
    """The shard that a task fills; it exists only if there is a row for it."""

    def __init__(self, target: Location, image_size: int) -> None:
        self._target, self.rows = target, 0
        shape = (image_size, image_size, 3)
        count = max(4, min(64, _BUFFER_BYTES // (3 * image_size**2)))
        self._buffer = np.empty((count, *shape), np.uint8)
        self._labels: list[int] = []
        self._uris: list[str] = []
        self._writer: ShardWriter | None = None

    @property
    def slot(self) -> Any:
        """The array (size, size, 3) where the pixels of the next photo belong."""
        return self._buffer[len(self._labels)]

    def commit(self, label: int, uri: str) -> int:
        """Take what is in :attr:`slot` as the next row and return its number."""
        self._labels.append(label)
        self._uris.append(uri)
        self.rows += 1
        if len(self._labels) == len(self._buffer):
            self._flush()
        return self.rows - 1

    def _flush(self) -> None:
        count = len(self._labels)
        if self._writer is None:
            self._writer = ShardWriter(self._target, self._buffer.shape[1:], self._buffer.dtype)
        self._writer.append(self._buffer[:count], self._labels, self._uris)
        self._labels, self._uris = [], []

    def close(self) -> None:
        if self._labels:
            self._flush()
        if self._writer is not None:
            self._writer.close()

    def abandon(self) -> None:
        if self._writer is not None:
            self._writer.abandon()


def inspect_block(block: pa.Table, plan: Plan) -> pa.Table:
    """Read, judge, decode and write the files of one block.

    Args:
        block: rows of :data:`catdog.data.sources.FILES` and their ``index`` and ``block`` numbers.
        plan: the same for all blocks.

    Returns:
        One row of :data:`VERDICTS` for each file, in the same order.
    """
    cv2.setNumThreads(1)  # the tasks share the cores already
    number = block.column("block")[0].as_py()
    shard = _Shard(plan.root / plan.shard(number), plan.image_size)
    rows: list[tuple[Any, ...]] = []
    workspace, pictured = _workspace(), Counter[str]()
    try:
        for entry, data in contents(block, plan.bases):
            verdict: Photo | Rejected = (
                data
                if isinstance(data, Rejected)
                else _judge(entry, data, plan, workspace, shard.slot)
            )
            if isinstance(verdict, Photo):
                rows.append(_kept(entry, data, verdict, shard, number))
            else:
                rows.append(_rejected(entry, data, verdict, plan, pictured))
        shard.close()
    except BaseException:
        shard.abandon()
        raise
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, field.type) for c, field in zip(columns, VERDICTS, strict=True)]
    return pa.table(arrays, schema=VERDICTS)


@functools.cache
def _workspace() -> Workspace:
    return Workspace()


def _judge(
    entry: dict[str, Any], data: bytes, plan: Plan, workspace: Workspace, slot: Any
) -> Photo | Rejected:
    verdict = judge_unlabelled(entry, data, plan.image_size, workspace, slot)
    if isinstance(verdict, Photo) and entry["label"] < 0:
        return Rejected("no_label", "neither the name nor a folder says cat or dog")
    return verdict


def judge_unlabelled(
    entry: dict[str, Any], data: bytes, size: int, workspace: Workspace | None, slot: Any
) -> Photo | Rejected:
    """All that one file says by itself; ``slot``: uint8 (size, size, 3) for a good photo."""
    verdict = inspect(data, size, workspace, out=slot)
    if entry["size"] > sources.MAX_FILE_BYTES:
        if isinstance(verdict, Rejected) and verdict.reason == "not_an_image":
            return verdict
        return Rejected("unreadable", f"larger than {sources.MAX_FILE_BYTES >> 20} MiB")
    return verdict


def _rejected(
    entry: dict[str, Any],
    data: bytes | Rejected,
    verdict: Rejected,
    plan: Plan,
    pictured: Counter[str],
) -> tuple[Any, ...]:
    """A row of :data:`VERDICTS`; the first few of a reason carry a picture."""
    picture, size = None, entry["size"]
    if isinstance(data, bytes):
        size = max(size, len(data))
        if pictured[verdict.reason] < plan.thumbnails:
            picture = thumbnail(data)
            pictured[verdict.reason] += picture is not None
    start = (entry["index"], verdict.reason, verdict.detail, size, picture)
    return (*start, *(None,) * (len(VERDICTS) - len(start) - 2), -1, None)


def _kept(
    entry: dict[str, Any], data: Any, photo: Photo, shard: _Shard, number: int
) -> tuple[Any, ...]:
    """A row of :data:`VERDICTS` for a photo whose pixels lie in the slot of the shard.

    Tuples, as a dict for each photo took 0.03 ms.
    """
    return (
        entry["index"],
        None,
        None,
        max(len(data), entry["size"]),
        None,
        hashlib.sha256(data).digest(),
        photo.hash,
        photo.width,
        photo.height,
        photo.brightness,
        photo.sharpness,
        ",".join(photo.flags),
        photo.note,
        number,
        shard.commit(entry["label"], entry["uri"]),
    )


def contents(
    block: pa.Table, bases: Sequence[Location]
) -> Iterator[tuple[dict[str, Any], bytes | Rejected]]:
    """Each entry of a listing with its bytes, or with the reason why there are none."""

    def content(entry: dict[str, Any]) -> bytes | Rejected:
        if entry["problem"] is not None:
            return Rejected("unreadable", entry["problem"])
        base = bases[entry["base"]]
        try:
            return sources.read(base, entry["path"], entry["offset"], entry["size"])
        except (OSError, ValueError) as error:
            text = (str(error).splitlines() or [""])[0]
            return Rejected("unreadable", f"{type(error).__name__}: {text}"[:200])

    entries = block.to_pylist()
    if all(base.is_local for base in bases):
        for entry in entries:
            yield entry, content(entry)
        return
    # A remote read waits most of its time: many at once, a bounded number ahead.
    with ThreadPoolExecutor(_READERS) as pool:
        waiting: deque[tuple[dict[str, Any], Future[bytes | Rejected]]] = deque()
        for entry in entries:
            waiting.append((entry, pool.submit(content, entry)))
            if len(waiting) > 2 * _READERS:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
