"""Weights of the classes in the loss, where one has many more photos than the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

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
