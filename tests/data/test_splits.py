from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catdog.data.splits import SPLITS, split_of

HASHES = st.integers(0, 2**64 - 1)
FRACTIONS = st.floats(0.01, 0.49)


@given(st.lists(HASHES, min_size=1), st.randoms(), FRACTIONS, FRACTIONS)
def test_no_photo_moves_when_others_are_added_or_reordered(
    hashes: list[int], random: object, val: float, test: float
) -> None:
    alone = {h: split_of(h, val, test) for h in hashes}
    random.shuffle(hashes)  # type: ignore[attr-defined]
    assert all(split_of(h, val, test) == alone[h] for h in hashes)
    assert set(alone.values()) <= {0, 1, 2}


@given(HASHES, FRACTIONS, FRACTIONS, FRACTIONS)
def test_another_validation_fraction_leaves_the_test_set_as_it_is(
    value: int, val: float, other: float, test: float
) -> None:
    is_test = [split_of(value, v, test) == SPLITS.index("test") for v in (val, other)]
    assert is_test[0] == is_test[1]


@pytest.mark.parametrize("val, test", [(0.1, 0.1), (0.2, 0.05), (0.3, 0.3)])
def test_fractions_are_kept_by_hashes_as_alike_as_photos_are(val: float, test: float) -> None:
    # A perceptual hash has 32 of 64 bits set, and photos of one kind share many of them.
    rng = np.random.default_rng(0)
    hashes = set()
    while len(hashes) < 20_000:
        bits = rng.permutation(np.repeat([0, 1], 20)).tolist()
        hashes.add(int("".join(map(str, bits)), 2) << 24 | 0xF0F0F0)
    counts = np.bincount([split_of(h, val, test) for h in hashes], minlength=3) / len(hashes)
    assert counts == pytest.approx([1 - val - test, val, test], abs=0.015)


def test_the_function_is_the_same_for_ever() -> None:
    """Changing it would move photos of every set that was ever prepared."""
    values = [0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF, 0xFEDCBA9876543210, 3, 7]
    assert [split_of(v, 0.2, 0.3) for v in values] == [0, 0, 2, 0, 2, 1, 2, 1]
