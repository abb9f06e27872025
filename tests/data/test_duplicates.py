from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.data.duplicates import groups_of, near_pairs


def all_near(hashes: list[int], bits: int) -> set[tuple[int, int]]:
    pairs = itertools.combinations(range(len(hashes)), 2)
    return {(i, j) for i, j in pairs if (hashes[i] ^ hashes[j]).bit_count() <= bits}


@st.composite
def clustered(draw: st.DrawFn) -> list[int]:
    """A few hashes and others some bits away from them."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    hashes = []
    for _ in range(draw(st.integers(1, 14))):
        value = draw(st.sampled_from(centres))
        for bit in draw(st.lists(st.integers(0, 63), max_size=9)):
            value ^= 1 << bit
        hashes.append(value)
    return hashes


@given(clustered(), st.integers(0, 8))
@settings(max_examples=150, deadline=None)
def test_exactly_the_near_pairs_are_found(hashes: list[int], bits: int) -> None:
    found = {tuple(pair) for pair in near_pairs(np.array(hashes, np.uint64), bits).tolist()}
    wanted = all_near(hashes, bits)
    assert found <= wanted
    # Of equal hashes only the first is paired with others; the groups are the same.
    groups = groups_of(len(hashes), np.array(sorted(wanted)).reshape(-1, 2))
    ours = groups_of(len(hashes), np.array(sorted(found)).reshape(-1, 2))
    assert ours.tolist() == groups.tolist()


def test_a_picture_that_is_there_a_thousand_times_gives_few_pairs() -> None:
    assert len(near_pairs(np.full(1000, 12345, np.uint64))) == 999


def test_many_hashes_are_compared_in_pieces() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**63, 30_000).astype(np.uint64)
    hashes[777] = hashes[29_000] ^ np.uint64(0b1011)
    assert near_pairs(hashes).tolist() == [[777, 29_000]]


def test_groups_are_named_by_their_first_member() -> None:
    pairs = np.array([[3, 1], [1, 4], [2, 5]])
    assert groups_of(6, pairs).tolist() == [0, 1, 2, 1, 1, 2]
