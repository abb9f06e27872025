"""Which photo is for training, validation or test: decided by the picture itself.

The split is a function of the photo's perceptual hash and of nothing else. Equal pictures land
together, any machine and any number of workers agree, the order of the files does not matter, and
no photo moves when others are added.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Split = Literal["train", "val", "test"]
#: The index of a name is its number in arrays and files.
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_of(
    hashes: NDArray[np.uint64], val_fraction: float, test_fraction: float
) -> NDArray[np.uint8]:
    """0 (train), 1 (val) or 2 (test) for each 64-bit perceptual hash.

    The fractions cut the interval of a well-mixed hash; test comes first, so that changing the
    validation fraction leaves the test set as it is.
    """
    position = _mixed(hashes).astype(np.float64) / 2.0**64
    result = np.zeros(len(hashes), np.uint8)
    result[position < test_fraction + val_fraction] = 1
    result[position < test_fraction] = 2
    return result


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64 (Steele, Lea, Flood 2014): neighbours end far apart.

    Perceptual hashes are far from uniform (their bits are as alike as photos are), the positions
    must be uniform.
    """
    z = np.asarray(hashes, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
