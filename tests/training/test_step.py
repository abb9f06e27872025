"""The global step against Keras' own arithmetic, in one process."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from catdog.config import AugmentationSettings

from .steps import SETTINGS, make_step, network, rows


@pytest.mark.parametrize("weights", [None, (0.5, 3.0)], ids=["alike", "weighed classes"])
def test_an_update_equals_keras_own_training_step(weights: tuple[float, float] | None) -> None:
    import keras

    x, y = rows()
    ours, theirs = network(), network()
    by_class = dict(enumerate(weights)) if weights else None
    step = make_step(ours, SETTINGS, class_weights=weights)
    reference = keras.optimizers.AdamW(0.01, weight_decay=0.1, global_clipnorm=0.05)
    reference.exclude_from_weight_decay(var_names=["bias"])
    theirs.compile(reference, keras.losses.BinaryCrossentropy(from_logits=True))
    for _ in range(5):
        told = np.asarray(step.train(x, y, np.ones(8, np.float32), 8))
        theirs.train_on_batch(x, y, class_weight=by_class)
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    assert told[2] == 8, "rows are counted, not weighed"


@pytest.mark.parametrize("lone_worker", [False, True], ids=["no strategy", "lone worker"])
def test_two_accumulated_steps_equal_one_of_all_their_rows(lone_worker: bool) -> None:
    from catdog.cluster.workers import Workers
    from catdog.training.on_worker import strategy

    x, y = rows()
    whole, halves = network(), network()
    among = strategy(Workers(1, 2, False, "float32"), 1) if lone_worker else None
    step = make_step(whole, SETTINGS, among)
    accumulating = SETTINGS.model_copy(update={"accumulation_steps": 2})
    half = make_step(halves, accumulating, among)
    for _ in range(3):
        step.train(x, y, np.ones(8, np.float32), 8)
        for part in (slice(0, 4), slice(4, 8)):
            half.train(x[part], y[part], np.ones(4, np.float32), 4)
    for mine, other in zip(halves.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-7)


def test_a_row_of_weight_zero_changes_nothing() -> None:
    x, y = rows()
    results = []
    for padding in (0, 3):
        model = network()
        weights = np.concatenate([np.ones(8), np.zeros(padding)]).astype(np.float32)
        padded = np.concatenate([x, x[:padding]]), np.concatenate([y, 1 - y[:padding]])
        sums = make_step(model, SETTINGS).train(*padded, weights, 8)
        results.append((np.asarray(sums), model.get_weights()))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-6)
    for one, other in zip(results[0][1], results[1][1], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-7)


def test_the_loss_told_is_plain_cross_entropy_where_labels_are_smoothed() -> None:
    from sklearn.metrics import log_loss

    x, y = rows()
    model = network()
    step = make_step(model, SETTINGS, label_smoothing=0.2)
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
    from catdog.training.step import averaged_weights

    x, y = rows()
    model = network()
    step = make_step(model, SETTINGS.model_copy(update={"ema_momentum": 0.5}))
    for _ in range(3):
        step.train(x, y, np.ones(8, np.float32), 8)
    raw = model.get_weights()
    with averaged_weights(model, step.optimizer):
        averaged = model.get_weights()
    assert not np.array_equal(raw[0], averaged[0])
    for before, after in zip(raw, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_augmentation_that_is_all_off_is_none() -> None:
    from catdog.training.augmentation import make_augmentation

    off = AugmentationSettings(horizontal_flip=False, rotation=0, zoom=0)
    assert make_augmentation(off) is None
    assert make_augmentation(None) is None
