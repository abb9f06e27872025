"""Classes that are not alike in number."""

from __future__ import annotations

import numpy as np
import pytest

from catdog.training.inputs import class_weights


def labels(cats: int, dogs: int) -> np.ndarray:
    return np.repeat([0, 1], [cats, dogs])


def test_classes_are_weighed_from_one_and_a_half_to_one_on() -> None:
    assert class_weights(labels(60, 40), None) is None
    assert class_weights(labels(40, 60), None) is None
    assert class_weights(labels(75, 25), None) == pytest.approx((2 / 3, 2.0))
    assert class_weights(labels(75, 25), False) is None
    assert class_weights(labels(60, 40), True) == pytest.approx((5 / 6, 5 / 4))


def test_a_photo_counts_one_on_average() -> None:
    found = class_weights(labels(70, 13), None)
    assert found is not None
    assert (70 * found[0] + 13 * found[1]) / 83 == pytest.approx(1.0)
