"""Which photo is for training, validation or test: decided by the picture itself.

The split is a function of the photo's perceptual hash and of nothing else. Equal pictures land
together, any machine and any number of workers agree, the order of the files does not matter, and
no photo moves when others are added.
"""

from __future__ import annotations

from typing import Literal

Split = Literal["train", "val", "test"]
#: The index of a name is its number in arrays and files.
SPLITS: tuple[Split, ...] = ("train", "val", "test")


_BITS = (1 << 64) - 1


def split_of(perceptual_hash: int, val_fraction: float, test_fraction: float) -> int:
    """0 (train), 1 (val) or 2 (test) for a 64-bit perceptual hash.

    The fractions cut the interval of a well-mixed hash; test comes first, so that changing the
    validation fraction leaves the test set as it is.
    """
    position = _mixed(perceptual_hash) / 2.0**64
    if position < test_fraction:
        return 2
    return 1 if position < test_fraction + val_fraction else 0


def _mixed(value: int) -> int:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): neighbours end far apart.

    Perceptual hashes are far from uniform (their bits are as alike as photos are), the positions
    must be uniform.
    """
    z = (value + 0x9E3779B97F4A7C15) & _BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _BITS
    return z ^ (z >> 31)
