"""Stratified train, validation and test splits, decided by the content of the pictures.

Within each class the groups of photos that belong together are ordered by a well-mixed hash of
their content and cut at the quota of test, then of validation; the rest is for training. The
result depends on neither the machine nor the order of the files, and few photos move when others
are added: those whose place in the order lies near a cut.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
#: The index of a name is its number in arrays and files.
SPLITS: tuple[Split, ...] = ("train", "val", "test")
TRAIN, VAL, TEST = range(3)

Integers = NDArray[np.int64]


def split_photos(
    labels: NDArray[np.int8],
    hashes: NDArray[np.uint64],
    val_fraction: float,
    test_fraction: float,
    groups: Integers | None = None,
) -> NDArray[np.int8]:
    """The split of each of n photos: 0 (train), 1 (val) or 2 (test).

    Each split of each class has the number of photos that its fraction asks for, rounded, as
    exactly as whole groups allow. A class of four groups or more is in every split.

    Args:
        labels: (n,) class of each photo, from 0.
        hashes: (n,) 64-bit content hash of each photo.
        groups: (n,) a number for each photo, equal for photos that must share a split; default:
            photos of equal hash.
    """
    count = len(labels)
    if not count:
        return np.zeros(0, np.int8)
    _, group = np.unique(hashes if groups is None else groups, return_inverse=True)
    classes = int(labels.max()) + 1
    # (groups, classes): photos of each class in each group
    sizes = np.bincount(group * classes + labels, minlength=(int(group.max()) + 1) * classes)
    sizes = sizes.reshape(-1, classes)
    # A group is ordered by the smallest of its members' mixed hashes, whatever its number is.
    keys = np.full(len(sizes), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(keys, group, mixed(hashes))
    order = np.argsort(keys, kind="stable")

    found = np.full(len(sizes), TRAIN, np.int8)
    kinds = (sizes[order] > 0).sum(axis=1)
    # Groups of several classes first, by quotas of their own; the others make up for what those
    # have brought to each class.
    several = order[kinds > 1]
    total = sizes[several].sum()
    wanted = {TEST: _rounded(test_fraction * total), VAL: _rounded(val_fraction * total)}
    there = [len(several) < 3] * 3  # a few need not be everywhere
    found[several] = _cut(sizes[several].sum(axis=1), wanted, there)
    for label in range(classes):
        members = order[(kinds == 1) & (sizes[order, label] > 0)]
        total = sizes[:, label].sum()
        already = [int(sizes[several[found[several] == s], label].sum()) for s in range(3)]
        wanted = {
            TEST: _rounded(test_fraction * total) - already[TEST],
            VAL: _rounded(val_fraction * total) - already[VAL],
        }
        found[members] = _cut(sizes[members, label], wanted, [n > 0 for n in already])
    result: NDArray[np.int8] = found[group]
    return result


def _cut(sizes: Integers, wanted: dict[int, int], there: list[bool]) -> NDArray[np.int8]:
    """Splits of groups in their order, by the number of photos that test and val still want.

    ``there``: whether a split needs none of these groups, as it has photos already.
    """
    found = np.full(len(sizes), TRAIN, np.int8)
    for split, later in ((TEST, (VAL, TRAIN)), (VAL, (TRAIN,))):
        free = np.flatnonzero(found == TRAIN)
        most = max(0, len(free) - sum(not there[s] for s in later))
        fewest = min(most, 0 if there[split] else 1)
        found[free[_chosen(sizes[free], wanted[split], fewest, most)]] = split
    return found


def _chosen(sizes: Integers, wanted: int, fewest: int, most: int) -> Integers:
    """Places of the groups, first come first taken, whose sizes add up to nearly ``wanted``.

    A group that is too large for what is missing is passed over, and a smaller one after it fills
    the gap.
    """
    taken: list[Integers] = []
    count, start, missing = 0, 0, wanted
    while missing > 0 and count < most:
        # All up to the first group that is too large, in one step.
        ends = np.cumsum(sizes[start : start + most - count])
        fitting = int(np.searchsorted(ends, missing, side="right"))
        taken.append(np.arange(start, start + fitting))
        if fitting:
            count, missing = count + fitting, missing - int(ends[fitting - 1])
        smaller = np.flatnonzero(sizes[start + fitting :] <= missing)
        if not len(smaller):
            break
        start += fitting + int(smaller[0])
    chosen = np.concatenate([*taken, np.zeros(0, np.int64)]).astype(np.int64)
    if count < most and count < len(sizes):
        rest = np.delete(np.arange(len(sizes)), chosen)
        smallest = int(rest[np.argmin(sizes[rest])])
        if count < fewest or sizes[smallest] < 2 * missing:
            chosen = np.append(chosen, smallest)
    return chosen


def _rounded(value: float) -> int:
    return int(value + 0.5)


def mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): neighbours end far apart.

    Perceptual hashes are far from uniform (their bits are as alike as photos are), their order
    must be as good as random.
    """
    z = hashes.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
