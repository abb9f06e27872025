from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.data.feed import batches, epoch_order, share
from catdog.data.shards import Rows, open_rows, write_shard
from catdog.storage import Location

SIZES = st.integers(0, 70)
WORLDS = st.integers(1, 6)


class Numbers:
    """Rows whose content is their number, for many small cases."""

    shape: tuple[int, ...] = ()
    dtype = np.dtype(np.int64)

    def __init__(self, count: int) -> None:
        self.labels = (np.arange(count) % 2).astype(np.uint8)
        self.gathered = 0

    def gather(self, indices: Any, out: Any = None) -> Any:
        self.gathered += 1
        if out is None:
            return np.asarray(indices).copy()
        out[:] = indices
        return out


def feed(count: int, world: int, size: int, drop_last: bool, prefetch: int = 0) -> list[list[Any]]:
    order = epoch_order(count, 3, 1)
    rows: Any = Numbers(count)
    return [
        list(
            batches(
                rows, order, batch_size=size, rank=rank, world_size=world, drop_last=drop_last,
                prefetch=prefetch,
            )
        )
        for rank in range(world)
    ]  # fmt: skip


@given(SIZES, st.integers(0, 9), st.integers(0, 9))
def test_an_order_is_a_permutation_of_seed_and_epoch(count: int, seed: int, epoch: int) -> None:
    order = epoch_order(count, seed, epoch)
    assert sorted(order.tolist()) == list(range(count))
    assert np.array_equal(order, epoch_order(count, seed, epoch))


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = [epoch_order(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


@given(st.lists(st.integers(0, 1000)), WORLDS)
def test_shares_are_contiguous_and_even_and_all(indices: list[int], world: int) -> None:
    parts = [share(indices, rank, world).tolist() for rank in range(world)]
    assert [i for part in parts for i in part] == indices
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(SIZES, WORLDS, st.integers(1, 20), st.booleans())
@settings(deadline=None)
def test_every_rank_steps_equally_often_and_never_with_nothing(
    count: int, world: int, size: int, drop_last: bool
) -> None:
    ranks = feed(count, world, size, drop_last)
    assert len({len(steps) for steps in ranks}) == 1
    for steps in ranks:
        for batch in steps:
            assert len(batch.rows) == len(batch.labels) == len(batch.weights) > 0
            assert batch.labels.dtype == batch.weights.dtype == np.float32


@given(SIZES, WORLDS, st.integers(1, 20), st.booleans())
@settings(deadline=None)
def test_any_number_of_ranks_sees_the_same_global_batches(
    count: int, world: int, size: int, drop_last: bool
) -> None:
    order = epoch_order(count, 3, 1).tolist()
    ranks = feed(count, world, size, drop_last)
    steps = [
        [int(row) for part in parts for row, w in zip(part.rows, part.weights, strict=True) if w]
        for parts in zip(*ranks, strict=True)
    ]
    wanted = [order[i : i + size] for i in range(0, count, size)]
    if drop_last:
        wanted = [batch for batch in wanted if len(batch) == size]
    assert steps == wanted


@given(SIZES, WORLDS, st.integers(1, 20), st.integers(0, 25))
@settings(deadline=None)
def test_no_share_is_below_the_fewest_rows_and_each_row_brings_its_partner(
    count: int, world: int, size: int, by: int
) -> None:
    order, rows = epoch_order(count, 3, 1), cast(Any, Numbers(count))
    for rank in range(world):
        made = batches(
            rows, order, batch_size=size, rank=rank, world_size=world, drop_last=False,
            fewest=2, roll=lambda number, count: by + number, prefetch=0,
        )  # fmt: skip
        for number, batch in enumerate(made):
            whole = order[number * size : (number + 1) * size]
            own, partners = np.split(batch.positions, 2)
            assert len(own) == len(batch.weights) >= 2
            assert np.array_equal(batch.rows, whole[batch.positions])
            assert np.array_equal(partners, (own + by + number) % len(whole))
            real = own[batch.weights == 1]
            assert np.array_equal(real, share(np.arange(len(whole)), rank, world))
            assert len(own) == max(2, len(real))


def test_training_drops_other_rows_in_another_epoch() -> None:
    dropped = {tuple(sorted(epoch_order(10, 0, epoch)[8:].tolist())) for epoch in range(6)}
    assert len(dropped) > 1


def real_rows(tmp_path: Path, count: int = 50) -> Rows:
    values = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    place = Location.of(tmp_path / "rows.arrow")
    write_shard(place, values, labels=np.arange(count) % 2, uris=["x"] * count)
    return open_rows([place])


def test_prefetched_batches_are_those_of_the_callers_thread(tmp_path: Path) -> None:
    rows, order = real_rows(tmp_path), epoch_order(50, 1, 2)
    options: dict[str, Any] = {"batch_size": 16, "rank": 1, "world_size": 2, "drop_last": False}
    plain = list(batches(rows, order, **options, prefetch=0))
    ahead = list(batches(rows, order, **options, prefetch=3))
    assert len(plain) == len(ahead) == 4
    for a, b in zip(plain, ahead, strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert np.array_equal(plain[0].rows, rows.gather(order[8:16]))
    assert np.array_equal(plain[0].labels, rows.labels[order[8:16]])


def test_batches_are_kept_by_whoever_keeps_them(tmp_path: Path) -> None:
    rows, order = real_rows(tmp_path), np.arange(50)
    options: dict[str, Any] = {"batch_size": 5, "rank": 0, "world_size": 1, "drop_last": False}
    kept = [batch.rows for batch in batches(rows, order, **options)]
    assert np.array_equal(np.concatenate(kept), rows.gather(order))


def test_memory_is_used_again_only_when_nobody_holds_it(tmp_path: Path) -> None:
    rows, order = real_rows(tmp_path, 500), np.arange(500)
    options: dict[str, Any] = {"batch_size": 5, "rank": 0, "world_size": 1, "drop_last": False}
    views, addresses = [], []
    for number, batch in enumerate(batches(rows, order, **options)):
        addresses.append(batch.rows.ctypes.data)
        if number % 7 == 0:
            views.append((number, batch.rows[2:3, 1]))
    assert len(set(addresses)) < 60, "no memory was used again"
    for number, view in views:
        assert np.array_equal(view[0], rows.gather([number * 5 + 2])[0, 1])


def feed_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "feed"]


def test_the_thread_ends_when_the_iterator_is_closed() -> None:
    rows: Any = Numbers(1000)
    iterator: Any = batches(
        rows, np.arange(1000), batch_size=10, rank=0, world_size=1, drop_last=True
    )
    next(iterator)
    assert feed_threads()
    time.sleep(0.2)
    assert rows.gathered < 10, "more was gathered than asked for"
    iterator.close()
    assert not feed_threads()


def test_an_error_in_the_thread_is_raised_where_batches_are_used() -> None:
    class Broken(Numbers):
        def gather(self, indices: Any, out: Any = None) -> Any:
            if self.gathered == 2:
                raise OSError("the disk is gone")
            return super().gather(indices, out)

    rows: Any = Broken(100)
    iterator = batches(rows, np.arange(100), batch_size=10, rank=0, world_size=1, drop_last=True)
    with pytest.raises(OSError, match="the disk is gone"):
        list(iterator)
    assert not feed_threads()


def test_a_batch_size_below_one_is_refused() -> None:
    rows: Any = Numbers(3)
    with pytest.raises(ValueError, match="batch_size"):
        batches(rows, [0], batch_size=0, rank=0, world_size=1, drop_last=False)
