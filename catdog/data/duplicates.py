"""Find pairs and groups of near-duplicates by perceptual hash. Arrays in, arrays out.

Whether two pictures are equal is decided by their pixels (:mod:`catdog.data.verdicts`). Nearly
equal means at most :data:`NEAR_BITS` of 64 bits apart: among 2,400 real photos the one pair of
shots of one scene is 2 bits apart and the next pair, of different cats, 12.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

NEAR_BITS = 6
_CHUNK = 1 << 20

Pairs = NDArray[np.int64]


def near_pairs(hashes: NDArray[np.uint64], bits: int = NEAR_BITS) -> Pairs:
    """All pairs (i, j), i < j, of hashes at most ``bits`` apart, shape (n, 2).

    Of ``bits + 1`` bands at least one is equal in such a pair (pigeonhole), so only hashes that
    share a band are compared. Hashes that are equal are chained, first to each, not all to all:
    a picture that is there a thousand times gives 999 pairs.
    """
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    order = np.arange(len(hashes))
    repeated = order[first[inverse] != order]
    equal = np.stack([first[inverse[repeated]], repeated], axis=1)
    found = [equal.astype(np.int64)]
    seen: list[NDArray[np.int64]] = []
    for band in _bands(unique, bits + 1):
        for i, j in _within_groups(band):
            close = np.bitwise_count(unique[i] ^ unique[j]) <= bits
            seen.append(i[close].astype(np.int64) * len(unique) + j[close])
    if seen:
        codes = np.unique(np.concatenate(seen))
        pairs = np.stack([first[codes // len(unique)], first[codes % len(unique)]], axis=1)
        found.append(np.sort(pairs, axis=1))
    return np.concatenate(found)


def _bands(hashes: NDArray[np.uint64], count: int) -> Iterator[NDArray[np.uint64]]:
    edges = np.linspace(0, 64, count + 1).astype(int)
    for low, high in itertools.pairwise(edges):
        mask = np.uint64((1 << int(high - low)) - 1)
        yield (hashes >> np.uint64(low)) & mask


def _within_groups(keys: NDArray[np.uint64]) -> Iterator[tuple[Pairs, Pairs]]:
    """All pairs of positions with equal keys, in pieces of bounded size."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    ends = np.searchsorted(ranked, ranked, side="right")
    following = ends - np.arange(len(keys)) - 1  # partners behind each in its group
    start = 0
    while start < len(keys):
        total = np.cumsum(following[start : start + _CHUNK])
        stop = start + max(1, int(np.searchsorted(total, _CHUNK, side="right")))
        counts = following[start:stop]
        left = np.repeat(np.arange(start, stop), counts)
        within = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts)
        right = left + 1 + within
        yield order[left], order[right]
        start = stop


def groups_of(count: int, pairs: Pairs) -> NDArray[np.int64]:
    """For each of ``count`` items the smallest item that pairs connect it to (union-find)."""
    parent = np.arange(count)

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = int(parent[item])
        return item

    for a, b in pairs.tolist():
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    return np.array([root(i) for i in range(count)], np.int64)
