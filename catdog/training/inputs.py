"""The rows that a job trains on: raw pixels, or kept activations of the frozen part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from catdog.data.feed import Batch, batches, epoch_order
from catdog.data.prepare import PreparedSet
from catdog.data.shards import Rows, open_rows
from catdog.storage import Location
from catdog.training.job import TrainingJob
from catdog.training.progress import Rank

Split = Literal["train", "val", "test"]


class Chunk(TypedDict):
    """Rows ``start`` to ``stop`` of a split: what a worker is given at a time."""

    split: Split
    start: int
    stop: int


#: Photos of a chunk: large enough that files are few, small enough that little is lost.
CHUNK = 256
#: Of a set below this, so that every worker has a share.
SMALL_SET, SMALL_CHUNK = 2048, 64


def chunks_of(dataset: PreparedSet, splits: Sequence[Split]) -> list[Chunk]:
    """The rows of ``splits`` in pieces, every row exactly once.

    Their size depends on the set alone: files are named by where a chunk starts, and a session with
    more workers takes up what one with fewer has left.
    """
    size = SMALL_CHUNK if dataset.manifest.get("kept", 0) < SMALL_SET else CHUNK
    return [
        Chunk(split=split, start=start, stop=min(start + size, count))
        for split in splits
        for count in [len(dataset.rows(split))]
        for start in range(0, count, size)
    ]


def photos_in(chunks: Sequence[Chunk]) -> int:
    return sum(chunk["stop"] - chunk["start"] for chunk in chunks)


def open_dataset(uri: str) -> PreparedSet:
    """The prepared set at ``uri``, complete as it is named only when it is."""
    root = Location.of(uri)
    return PreparedSet(root, (root / "manifest.json").read_json())


def open_inputs(job: TrainingJob) -> tuple[Rows, Rows]:
    """(training rows, validation rows), memory-mapped."""
    if job.features is None:
        prepared = open_dataset(job.dataset)
        return prepared.rows("train"), prepared.rows("val")
    root = Location.of(job.features)
    manifest = (root / "manifest.json").read_json()
    opened = [
        open_rows([root / split / name for name in manifest["files"][split]])
        for split in ("train", "val")
    ]
    return opened[0], opened[1]


def epoch_batches(
    job: TrainingJob, rank: Rank, rows: Rows, epoch: int, *, skipped: int, unit: int, fewest: int
) -> tuple[int, Iterator[Batch]]:
    """(rows of a global batch, a rank's batches of ``epoch`` after the first ``skipped``).

    Shares of a batch are multiples of ``unit`` rows and have ``fewest`` at least; the last
    incomplete batch is left out. Where photos are mixed each row comes with its partner.
    """
    order = epoch_order(len(rows), job.seed, epoch)
    size = min(job.batch_size, len(order))
    augmentation = job.applied_augmentation
    mixes = augmentation is not None and (augmentation.mixup or augmentation.cutmix)

    def roll(number: int, count: int) -> int:
        """Another one in each step, the same on every rank; never 0, which mixes nothing."""
        generator = np.random.default_rng([job.seed, epoch, skipped + number])
        return int(generator.integers(1, count)) if count > 1 else 0

    return size, batches(
        rows,
        order[skipped * size :],
        batch_size=size,
        rank=rank.rank,
        world_size=rank.world_size,
        drop_last=True,
        unit=unit,
        fewest=fewest,
        roll=roll if mixes else None,
    )


#: Without being asked, classes are weighted from this ratio on.
UNEVEN = 1.5


def class_weights(labels: NDArray[Any], asked: bool | None) -> tuple[float, float] | None:
    """Weights of (cat, dog) that make the classes count alike; ``None`` for no weights.

    A class of ``k`` among ``n`` photos weighs ``n / (2 k)``, so that the mean over photos is 1.

    Args:
        labels: 0 or 1, one for each photo (n,).
        asked: weigh or do not; none: weigh where the larger class is more than :data:`UNEVEN` times
            the smaller.
    """
    dogs = int(np.count_nonzero(labels))
    cats = len(labels) - dogs
    if asked is False or not cats or not dogs:
        return None
    if asked is None and max(cats, dogs) <= UNEVEN * min(cats, dogs):
        return None
    return len(labels) / (2 * cats), len(labels) / (2 * dogs)
