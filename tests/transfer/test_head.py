"""The head in NumPy against the same training by Keras and our optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catdog.config import FineTuneSettings
from catdog.transfer.head import HeadData, HeadDiverged, train_head
from tests.training.steps import make_step

SETTINGS = FineTuneSettings(
    epochs=3, learning_rate=0.02, dropout=0.0, weight_decay=0.3, label_smoothing=0.1, clip_norm=0.2
)


def data(count: int = 90, width: int = 12, views: int = 1) -> HeadData:
    generator = np.random.default_rng(0)

    def split(rows: int) -> tuple[Any, Any]:
        x = generator.normal(size=(rows, width)).astype(np.float32)
        noisy = x[:, 0] + x[:, 1] + generator.normal(size=rows)
        return x, (noisy > 0).astype(np.float32)

    return HeadData(split(count), split(40), views)


def keras_losses(given: HeadData, settings: FineTuneSettings, batch: int) -> list[list[float]]:
    """(training loss, validation loss) by epoch, by the step that trains every model."""
    import keras

    from catdog.data.feed import epoch_order, one_view_each
    from catdog.training.optimization import RateSchedule
    from catdog.training.weighting import class_weights

    features = keras.Input(given.train[0].shape[1:])
    logit = keras.layers.Dense(1, kernel_initializer="zeros")(features)
    network = keras.Model(features, logit)
    step = make_step(
        network,
        settings,
        label_smoothing=settings.label_smoothing,
        class_weights=class_weights(given.train[1], settings.class_weights),
    )
    photos = len(given.train[0]) // given.views
    steps = photos // batch
    schedule = RateSchedule.of(settings, steps)
    losses = []
    for epoch in range(1, settings.epochs + 1):
        order = one_view_each(epoch_order(photos, 7, epoch), given.views, epoch)
        total = np.zeros(3)
        for index in range(steps):
            rows = order[index * batch : (index + 1) * batch]
            step.optimizer.learning_rate.assign(schedule.at((epoch - 1) * steps + index))
            weights = np.ones(batch, np.float32)
            total += step.train(given.train[0][rows], given.train[1][rows], weights, batch).numpy()
        ones = np.ones(len(given.val[0]), np.float32)
        val = step.evaluate(given.val[0], given.val[1], ones).numpy()
        losses.append([total[0] / total[2], val[0] / val[2]])
    return losses


@pytest.mark.parametrize("weighed, views", [(True, 1), (False, 1), (False, 3)])
def test_without_dropout_it_equals_the_training_by_keras(weighed: bool, views: int) -> None:
    given, settings = data(views=views), SETTINGS.model_copy(update={"class_weights": weighed})
    rows = train_head(given, settings, batch_size=16, seed=7)
    ours = [[row["loss"], row["val_loss"]] for row in rows]
    np.testing.assert_allclose(ours, keras_losses(given, settings, 16), atol=1e-5)


def test_it_learns_what_can_be_learnt() -> None:
    settings = SETTINGS.model_copy(update={"epochs": 20, "dropout": 0.2, "weight_decay": 0.01})
    rows = train_head(data(400), settings, batch_size=32, seed=0)
    assert rows[-1]["val_accuracy"] > 0.7
    assert rows[-1]["val_loss"] < rows[0]["val_loss"] < 0.7


def test_the_same_seed_gives_the_same_losses() -> None:
    settings = SETTINGS.model_copy(update={"dropout": 0.5})
    one, two, other = (
        [row["loss"] for row in train_head(data(), settings, 16, seed)] for seed in (1, 1, 2)
    )
    assert one == two != other


def test_a_loss_that_is_not_finite_ends_it() -> None:
    settings = SETTINGS.model_copy(update={"learning_rate": 1e38})
    with pytest.raises(HeadDiverged, match="the loss is"):
        train_head(data(), settings, batch_size=16, seed=0)


def test_patience_ends_it_early() -> None:
    settings = SETTINGS.model_copy(update={"epochs": 50, "learning_rate": 1e-9, "patience": 3})
    rows = train_head(data(), settings, batch_size=16, seed=0)
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert len(rows) == best["epoch"] + 3 < 50
