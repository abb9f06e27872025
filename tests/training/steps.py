"""A network that is small enough to train by Keras beside our own step."""

from __future__ import annotations

from typing import Any

import numpy as np

from catdog.config import FineTuneSettings, ScratchSettings

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


def make_step(
    model: Any,
    settings: ScratchSettings | FineTuneSettings,
    strategy: Any = None,
    **options: Any,
) -> Any:
    """The global step of this process alone, with an optimizer of its own (``.optimizer``)."""
    import tensorflow as tf

    from catdog.training.optimization import make_optimizer
    from catdog.training.step import GlobalStep

    optimizer = make_optimizer(settings)
    optimizer.build(model.trainable_variables)
    plain: dict[str, Any] = {"label_smoothing": 0.0, "row_dtype": np.float32}
    strategy = strategy or tf.distribute.get_strategy()
    return GlobalStep(strategy, model, optimizer, None, **(plain | options))
