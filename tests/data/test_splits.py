from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from catdog.data.splits import SPLITS, TEST, TRAIN, VAL, mixed, split_photos

#: (label, group) of each photo; few groups, so that some are large and some hold both classes.
PHOTOS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 30)), min_size=1, max_size=120)
#: Groups of one class: (label, photos) of each.
GROUPS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 12)), min_size=1, max_size=60)
FRACTIONS = st.floats(0.01, 0.49)
SEEDS = st.integers(0, 2**32)


def some_hashes(count: int, seed: int) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def photos_of(
    groups: list[tuple[int, int]], seed: int
) -> tuple[NDArray[np.int8], NDArray[np.uint64]]:
    """(labels, hashes) of photos whose hashes are equal within a group."""
    sizes = [size for _, size in groups]
    labels = np.repeat(np.array([label for label, _ in groups], np.int8), sizes)
    return labels, np.repeat(some_hashes(len(groups), seed), sizes)


def counts_of(labels: NDArray[np.int8], found: NDArray[np.int8]) -> NDArray[np.int64]:
    """(classes, splits)"""
    return np.array([np.bincount(found[labels == c], minlength=3) for c in range(2)])


@given(st.integers(4, 300), st.integers(4, 300), SEEDS, FRACTIONS, FRACTIONS)
def test_different_photos_are_split_exactly(
    cats: int, dogs: int, seed: int, val: float, test: float
) -> None:
    labels = np.repeat(np.array([0, 1], np.int8), [cats, dogs])
    counts = counts_of(labels, split_photos(labels, some_hashes(cats + dogs, seed), val, test))
    for count, total in zip(counts, (cats, dogs), strict=True):
        wanted = {TEST: max(1, int(test * total + 0.5)), VAL: max(1, int(val * total + 0.5))}
        if sum(wanted.values()) < total:  # otherwise training gets the one photo that it needs
            assert {TEST: count[TEST], VAL: count[VAL]} == wanted
        assert count.min() >= 1


@given(GROUPS, SEEDS, st.floats(0.01, 0.35), st.floats(0.01, 0.35))
def test_fractions_are_respected_within_one_group(
    groups: list[tuple[int, int]], seed: int, val: float, test: float
) -> None:
    labels, hashes = photos_of(groups, seed)
    counts = counts_of(labels, split_photos(labels, hashes, val, test))
    for label in range(2):
        sizes = [size for of, size in groups if of == label]
        if len(sizes) >= 4:
            wanted = np.array([1 - val - test, val, test]) * sum(sizes)
            off = np.abs(counts[label] - wanted)
            assert max(off[TEST], off[VAL]) <= max(sizes), (counts[label], wanted)
            assert off[TRAIN] <= 2 * max(sizes), (counts[label], wanted)


@given(PHOTOS, SEEDS, FRACTIONS, FRACTIONS)
def test_a_class_of_four_groups_is_in_every_split_and_groups_stay_whole(
    photos: list[tuple[int, int]], seed: int, val: float, test: float
) -> None:
    labels = np.array([label for label, _ in photos], np.int8)
    groups = np.array([group for _, group in photos], np.int64)
    found = split_photos(labels, some_hashes(len(photos), seed), val, test, groups)
    for group in np.unique(groups):
        assert len(set(found[groups == group].tolist())) == 1
    for label in range(2):
        if len(np.unique(groups[labels == label])) >= 4:
            assert set(found[labels == label].tolist()) == {TRAIN, VAL, TEST}


@given(PHOTOS, SEEDS, FRACTIONS, FRACTIONS, st.randoms())
def test_neither_the_order_of_the_files_nor_the_numbers_of_the_groups_matter(
    photos: list[tuple[int, int]], seed: int, val: float, test: float, random: object
) -> None:
    labels = np.array([label for label, _ in photos], np.int8)
    groups = np.array([group for _, group in photos], np.int64)
    hashes = some_hashes(len(photos), seed)
    order = np.arange(len(photos))
    random.shuffle(order)  # type: ignore[attr-defined]
    renamed = (groups * 7 + 3) % 31  # another number for each of 0 … 30, in another order
    found = split_photos(labels, hashes, val, test, groups)
    again = split_photos(labels[order], hashes[order], val, test, renamed[order])
    assert np.array_equal(again, found[order])


@given(GROUPS, SEEDS, FRACTIONS, FRACTIONS, FRACTIONS)
def test_another_validation_fraction_leaves_the_test_set_as_it_is(
    groups: list[tuple[int, int]], seed: int, val: float, other: float, test: float
) -> None:
    labels, hashes = photos_of(groups, seed)
    found = [split_photos(labels, hashes, fraction, test) == TEST for fraction in (val, other)]
    assert np.array_equal(*found)


@pytest.mark.parametrize("count, most", [(100, 0.06), (1_000, 0.02), (10_000, 0.006)])
def test_few_photos_move_when_a_tenth_is_added(count: int, most: float) -> None:
    """Those near a cut: their share falls with the square root of the number of photos."""
    moved = []
    for seed in range(30):
        labels = (np.arange(count * 11 // 10) % 2).astype(np.int8)
        hashes = some_hashes(len(labels), seed)
        before = split_photos(labels[:count], hashes[:count], 0.1, 0.1)
        after = split_photos(labels, hashes, 0.1, 0.1)[:count]
        moved.append(float((before != after).mean()))
    assert max(moved) <= most


def test_splits_are_independent_of_what_photos_look_like() -> None:
    """Perceptual hashes of photos are alike; each kind of them is in each split by its share."""
    rng = np.random.default_rng(0)
    bits = np.argsort(rng.random((20_000, 40)), axis=1) < 20  # 20 of 40 bits set, 24 the same
    hashes = (bits @ (1 << np.arange(40, dtype=np.uint64))) << np.uint64(24) | np.uint64(0xF0F0F0)
    labels = np.zeros(len(hashes), np.int8)
    found = split_photos(labels, hashes, 0.2, 0.1)
    for bit in range(24, 64):
        of_kind = found[hashes >> np.uint64(bit) & np.uint64(1) == 1]
        shares = np.bincount(of_kind, minlength=len(SPLITS)) / len(of_kind)
        assert shares == pytest.approx([0.7, 0.2, 0.1], abs=0.015)


def test_groups_of_both_classes_are_spread_over_the_splits_and_made_up_for() -> None:
    groups = np.concatenate([np.repeat(np.arange(100), 2), np.arange(100, 900)])
    labels = (np.arange(1_000) % 2).astype(np.int8)
    found = split_photos(labels, some_hashes(1_000, 0), 0.1, 0.2, groups)
    assert counts_of(labels, found).tolist() == [[350, 50, 100]] * 2
    assert np.bincount(found[:200]).tolist() == [140, 20, 40]


def test_a_group_that_does_not_fit_is_passed_over() -> None:
    groups = [(0, 30), *[(0, 7)] * 5, *[(0, 1)] * 35]
    for seed in range(20):
        labels, hashes = photos_of(groups, seed)
        counts = counts_of(labels, split_photos(labels, hashes, 0.1, 0.1))
        assert counts[0].tolist() == [80, 10, 10]


def test_no_photos_have_no_splits() -> None:
    assert split_photos(np.zeros(0, np.int8), np.zeros(0, np.uint64), 0.1, 0.1).shape == (0,)


def test_the_rule_is_the_same_for_ever() -> None:
    """Changing it would move photos of every set that was ever prepared."""
    values = [0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF, 0xFEDCBA9876543210, 3, 7]
    hashes = np.array(values, np.uint64)
    assert mixed(hashes)[:2].tolist() == [0xE220A8397B1DCDAF, 0x910A2DEC89025CC1]
    found = split_photos(np.zeros(8, np.int8), hashes, 0.2, 0.3)
    assert found.tolist() == [0, 0, 1, 0, 2, 0, 2, 1]
