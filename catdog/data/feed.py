"""Batches of prepared rows for one training worker. NumPy only: no Ray, no TensorFlow.

The order of an epoch depends on the seed and the epoch alone. A global batch is a slice of that
order and each rank takes its share of the slice, so any number of workers sees the same global
batches, and an epoch has the same number of steps on every rank.
"""

from __future__ import annotations

import contextlib
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from catdog.data.shards import Rows


class Batch(NamedTuple):
    """One rank's part of a global batch, ``k`` rows.

    Attributes:
        rows: (k, *shape); with partners (2 k, *shape), the rows and then the partner of each.
        labels: float32 (k,) or (2 k,), alike.
        weights: float32 (k,): 1, or 0 for the rows that stand in where a share is too small.
        positions: int64 (k,) or (2 k,): places in the global batch.
    """

    rows: NDArray[Any]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    positions: NDArray[np.int64]


#: (number of the batch in this iteration, its rows) → how many places on a row's partner lies.
Roll = Callable[[int, int], int]


def epoch_order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of ``range(count)``, the same on every machine for (seed, epoch)."""
    generator = np.random.Generator(np.random.PCG64([seed, epoch]))
    return generator.permutation(count).astype(np.int64)


def share(indices: ArrayLike, rank: int, world_size: int, unit: int = 1) -> NDArray[np.int64]:
    """The contiguous part of ``indices`` for ``rank``; sizes differ by ``unit`` rows at most.

    Shares are whole units, of which only the last may be shorter.
    """
    whole = np.asarray(indices, np.int64)
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in a world of {world_size}")
    units = -(-len(whole) // unit)
    return whole[units * rank // world_size * unit : units * (rank + 1) // world_size * unit]


def batches(
    rows: Rows,
    order: ArrayLike,
    *,
    batch_size: int,
    rank: int,
    world_size: int,
    drop_last: bool,
    unit: int = 1,
    fewest: int = 1,
    roll: Roll | None = None,
    prefetch: int = 2,
) -> Iterator[Batch]:
    """One rank's batches of an epoch, gathered ahead in a thread.

    Args:
        rows: the prepared set.
        order: row numbers in the order of this epoch, the same on all ranks.
        batch_size: rows of a global batch, over all ranks.
        drop_last: leave out the last global batch if it is not full (training); otherwise every
            row is seen once (evaluation).
        unit: rows that stay together on one rank, as long as every rank gets some.
        fewest: rows that a rank gets at least; those missing are real ones with weight 0.
        roll: gives every row a partner, the row so many places on in the global batch, around its
            end.
        prefetch: batches held ready; 0 gathers in the caller's thread.

    Yields:
        The same number of batches on every rank and never an empty one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}")
    if unit * world_size > batch_size:
        unit = 1
    order = np.asarray(order, np.int64)
    end = len(order) // batch_size * batch_size if drop_last else len(order)
    starts = range(0, end, batch_size)
    wholes = (order[start : start + batch_size] for start in starts)
    steps = (
        _share(whole, rank, world_size, unit, fewest, roll(number, len(whole)) if roll else None)
        for number, whole in enumerate(wholes)
    )
    if prefetch < 1:
        return (_gather(rows, step) for step in steps)
    return _ahead(rows, steps, prefetch)


class _Recycled:
    """Arrays that are no longer referenced, used again.

    A fresh array of 20 MB costs 5,000 page faults, as much as filling it. CPython counts who holds
    an array, a view of it or a tensor made from it without a copy.
    """

    def __init__(self, count: int) -> None:
        self._arrays: deque[NDArray[Any]] = deque(maxlen=count)

    def take(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array (shape, dtype) with any content."""
        for place in range(len(self._arrays)):
            # One reference of the deque and one of getrefcount's argument: nobody else's.
            if sys.getrefcount(self._arrays[place]) == _UNHELD:
                array = self._arrays[place]
                if array.shape == shape and array.dtype == dtype:
                    return array
        array = np.empty(shape, dtype)
        self._arrays.append(array)
        return array


_UNHELD = sys.getrefcount(np.empty(0)) + 1


class _Share(NamedTuple):
    """What to gather: row numbers and positions (k,) or (2 k,), weights (k,)."""

    indices: NDArray[np.int64]
    positions: NDArray[np.int64]
    weights: NDArray[np.float32]


def _share(
    whole: NDArray[np.int64],
    rank: int,
    world_size: int,
    unit: int,
    fewest: int,
    roll: int | None,
) -> _Share:
    positions = share(np.arange(len(whole)), rank, world_size, unit)
    missing = max(0, fewest - len(positions))
    weights = np.concatenate([np.ones(len(positions)), np.zeros(missing)]).astype(np.float32)
    after = positions[-1] + 1 if len(positions) else 0
    positions = np.concatenate([positions, (after + np.arange(missing)) % len(whole)])
    if roll is not None:
        positions = np.concatenate([positions, (positions + roll) % len(whole)])
    return _Share(whole[positions], positions, weights)


def _gather(rows: Rows, mine: _Share, recycled: _Recycled | None = None) -> Batch:
    labels = rows.labels[mine.indices].astype(np.float32)
    out = recycled.take((len(labels), *rows.shape), rows.dtype) if recycled else None
    return Batch(rows.gather(mine.indices, out), labels, mine.weights, mine.positions)


def _ahead(rows: Rows, steps: Iterator[_Share], prefetch: int) -> Iterator[Batch]:
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(prefetch)
    stopped, recycled = threading.Event(), _Recycled(prefetch + 3)

    def put(item: Batch | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for step in steps:
                if stopped.is_set():
                    return
                put(_gather(rows, step, recycled))
            put(None)
        except BaseException as error:  # raised again where the batches are used
            put(error)

    thread = threading.Thread(target=work, name="feed", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        thread.join()
