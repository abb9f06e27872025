"""Classes that are not alike in number."""

from __future__ import annotations

import numpy as np
import pytest

from catdog.training.weighting import class_weights

from .test_step import SETTINGS, network, rows


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


def test_an_update_is_that_of_keras_with_the_same_weights() -> None:
    import keras
    import tensorflow as tf

    from catdog.training.optimization import make_optimizer
    from catdog.training.step import GlobalStep

    x, y = rows()
    ours, theirs = network(), network()
    optimizer = make_optimizer(SETTINGS)
    optimizer.build(ours.trainable_variables)
    step = GlobalStep(
        tf.distribute.get_strategy(),
        ours,
        optimizer,
        None,
        label_smoothing=0.0,
        row_dtype=np.float32,
        class_weights=(0.5, 3.0),
    )
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.05)
    reference.exclude_from_weight_decay(var_names=["bias"])
    theirs.compile(reference, keras.losses.BinaryCrossentropy(from_logits=True))
    for _ in range(5):
        told = np.asarray(step.train(x, y, np.ones(8, np.float32), 8))
        theirs.train_on_batch(x, y, class_weight={0: 0.5, 1: 3.0})
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    assert told[2] == 8, "rows are counted, not weighed"
