"""The global step against Keras' own arithmetic, in one process."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from catdog.config import AugmentationSettings, ScratchSettings

SETTINGS = ScratchSettings(
    epochs=4,
    learning_rate=0.01,
    weight_decay=0.1,
    label_smoothing=0.0,
    clip_norm=0.05,
    warmup_epochs=1,
)


def network() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    rows = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="relu")(rows)
    return keras.Model(rows, keras.layers.Dense(1, name="logit")(hidden))


def rows() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(8, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(np.float32)


def make_step(model: Any, optimizer: Any, smoothing: float = 0.0) -> Any:
    import tensorflow as tf

    from catdog.training.step import GlobalStep

    return GlobalStep(
        tf.distribute.get_strategy(),
        model,
        optimizer,
        None,
        label_smoothing=smoothing,
        row_dtype=np.float32,
    )


def test_an_update_equals_keras_own_training_step() -> None:
    import keras

    from catdog.training.optimization import make_optimizer

    x, y = rows()
    ours, theirs = network(), network()
    optimizer = make_optimizer(SETTINGS)
    optimizer.build(ours.trainable_variables)
    step = make_step(ours, optimizer)
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.05)
    reference.exclude_from_weight_decay(var_names=["bias"])
    theirs.compile(reference, keras.losses.BinaryCrossentropy(from_logits=True))
    for _ in range(5):
        step.train(x, y, np.ones(8, np.float32), 8)
        theirs.train_on_batch(x, y)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)


def test_a_row_of_weight_zero_changes_nothing() -> None:
    from catdog.training.optimization import make_optimizer

    x, y = rows()
    results = []
    for padding in (0, 3):
        model = network()
        optimizer = make_optimizer(SETTINGS)
        optimizer.build(model.trainable_variables)
        weights = np.concatenate([np.ones(8), np.zeros(padding)]).astype(np.float32)
        padded = np.concatenate([x, x[:padding]]), np.concatenate([y, 1 - y[:padding]])
        sums = make_step(model, optimizer).train(*padded, weights, 8)
        results.append((np.asarray(sums), model.get_weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_the_loss_told_is_plain_cross_entropy_where_labels_are_smoothed() -> None:
    from sklearn.metrics import log_loss

    from catdog.training.optimization import make_optimizer

    x, y = rows()
    model = network()
    optimizer = make_optimizer(SETTINGS)
    optimizer.build(model.trainable_variables)
    step = make_step(model, optimizer, smoothing=0.2)
    loss, correct, count = np.asarray(step.evaluate(x, y, np.ones(8, np.float32)))
    probability = 1 / (1 + np.exp(-np.asarray(model(x))[:, 0].astype(np.float64)))
    assert loss / count == pytest.approx(log_loss(y, probability), rel=1e-5)
    assert correct == ((probability > 0.5) == (y > 0.5)).sum()


def test_the_rate_warms_up_and_ends_at_zero() -> None:
    from catdog.training.optimization import RateSchedule

    schedule = RateSchedule.of(SETTINGS, steps_per_epoch=10)
    rates = [schedule.at(step) for step in range(41)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == rates[9] == pytest.approx(0.01)
    assert rates[40] == pytest.approx(0.0, abs=1e-9)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[9:]))


def test_averaged_weights_are_there_within_the_block_only() -> None:
    from catdog.training.optimization import make_optimizer
    from catdog.training.step import averaged_weights

    x, y = rows()
    model = network()
    optimizer = make_optimizer(SETTINGS.model_copy(update={"ema_momentum": 0.5}))
    optimizer.build(model.trainable_variables)
    step = make_step(model, optimizer)
    for _ in range(3):
        step.train(x, y, np.ones(8, np.float32), 8)
    raw = model.get_weights()
    with averaged_weights(model, optimizer):
        averaged = model.get_weights()
    assert not np.array_equal(raw[0], averaged[0])
    for before, after in zip(raw, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_augmentation_that_is_all_off_is_none() -> None:
    from catdog.training.augmentation import make_augmentation

    off = AugmentationSettings(horizontal_flip=False, rotation=0, zoom=0)
    assert make_augmentation(off) is None
    assert make_augmentation(None) is None
