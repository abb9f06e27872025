"""Reproducible layers: Keras' arithmetic, and the same bits for any division of the rows.

That whole trainings on one, two and three workers agree is tested through ``jobs/train.py``.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.config import AugmentationSettings


def small_network(*, normalise: bool) -> Any:
    """Logits of (16, 16, 3) pixels: strided and padded convolutions with and without bias."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = pixels = keras.Input((16, 16, 3), dtype="uint8")
    x = layers.Rescaling(1 / 127.5, -1.0)(x)
    x = layers.Conv2D(8, 5, padding="same", activation="relu")(x)
    if normalise:
        x = layers.BatchNormalization(momentum=0.9, synchronized=True, name="norm")(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(16, 3, strides=2, use_bias=False)(x)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(pixels, layers.Dense(1, name="logit")(x))


def rows(count: int = 16) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (count, 16, 16, 3)).astype(np.uint8)
    return pixels, generator.integers(0, 2, count).astype(np.float32)


def gradients_of(network: Any, exact: bool, x: Any, y: Any, of_rows: int = 16) -> list[Any]:
    import tensorflow as tf

    from catdog.training.optimization import make_optimizer
    from catdog.training.step import GlobalStep

    step = GlobalStep(
        tf.distribute.get_strategy(),
        network,
        make_optimizer(_settings()),
        None,
        label_smoothing=0.1,
        row_dtype=x.dtype,
        reproducible=exact,
    )
    weights = np.ones(len(y), np.float32)
    gradients, _ = tf.function(step._gradients)(x, y, weights, np.float64(of_rows))
    return [np.asarray(gradient) for gradient in gradients]


def _settings() -> Any:
    from catdog.config import ScratchSettings

    return ScratchSettings(learning_rate=0.01, clip_norm=None, weight_decay=0.0)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("unit", [1, 3, 16])
def test_gradients_are_those_of_keras_own_layers(normalise: bool, unit: int) -> None:
    from catdog.training.reproducible import reproducible

    network = small_network(normalise=normalise)
    copy = reproducible(network, unit)
    ours = gradients_of(copy, True, *rows())
    theirs = gradients_of(network, False, *rows())
    assert [v.path for v in copy.variables] == [v.path for v in network.variables]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == np.float64
        np.testing.assert_allclose(mine, other, atol=1e-6 + 1e-4 * np.abs(other).max())


def test_normalisation_keeps_the_statistics_that_keras_keeps() -> None:
    from catdog.training.reproducible import reproducible

    network = small_network(normalise=True)
    copy = reproducible(network, 4)
    gradients_of(copy, True, *rows())
    gradients_of(network, False, *rows())
    for mine, other in zip(
        copy.get_layer("norm").non_trainable_variables,
        network.get_layer("norm").non_trainable_variables,
        strict=True,
    ):
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-5, atol=1e-7)


def assert_divisible(network: Any, x: Any, y: Any, cuts: tuple[int, ...]) -> None:
    """Gradients of the whole batch are, in float32, those of its parts, added last part first."""
    whole = gradients_of(network, True, x, y, len(y))
    parts = [
        gradients_of(network, True, x[start:stop], y[start:stop], len(y))
        for start, stop in itertools.pairwise([0, *cuts, len(y)])
    ]
    for index, gradient in enumerate(whole):
        summed = sum(part[index] for part in reversed(parts))
        assert np.array_equal(summed.astype(np.float32), gradient.astype(np.float32))
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("cuts", [(8,), (5, 11), (1, 2, 15)])
def test_any_division_of_the_rows_gives_the_same_bits(cuts: tuple[int, ...]) -> None:
    from catdog.training.reproducible import reproducible

    assert_divisible(reproducible(small_network(normalise=False), 1), *rows(), cuts)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name, side", [("resnet50v2", 32), ("inception_v3", 75)])
def test_a_backbones_last_block_has_the_same_bits_for_shares_of_two_rows_or_more(
    name: Any, side: int
) -> None:
    """From kept activations, batch normalisation frozen; of a lone row the module tells."""
    import keras

    from catdog.models import registry
    from catdog.training.reproducible import reproducible

    keras.utils.set_random_seed(3)
    model = registry.build(registry.Architecture(name, side, side, "-1..1", dropout=0.0))
    cut = registry.boundary(name, 1)
    registry.freeze_below(model, cut)
    copy = reproducible(registry.split_at(model, cut)[1], 1)
    assert len(copy.trainable_variables) > 2, "more than the head"
    generator = np.random.default_rng(0)
    kept = generator.normal(size=(7, *copy.input_shape[1:])).astype(np.float16)
    assert_divisible(copy, kept, generator.integers(0, 2, 7).astype(np.float32), (2, 4))


def test_without_the_layers_a_division_shows_in_the_last_bits() -> None:
    """What the layers are for; where this fails they are needed no more."""
    network = small_network(normalise=False)
    x, y = rows()
    whole = gradients_of(network, False, x, y)
    parts = [gradients_of(network, False, x[part], y[part]) for part in (slice(5), slice(5, 16))]
    assert any(
        not np.array_equal(sum(part[index] for part in parts), gradient)
        for index, gradient in enumerate(whole)
    )


def test_frozen_layers_and_inference_are_keras_own() -> None:
    from catdog.training.reproducible import reproducible

    network = small_network(normalise=True)
    network.get_layer("norm").trainable = False
    copy = reproducible(network, 2)
    before = [variable.numpy() for variable in copy.get_layer("norm").variables]
    assert len(gradients_of(copy, True, *rows())) == len(copy.trainable_variables)
    for variable, value in zip(copy.get_layer("norm").variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    x, _ = rows()
    np.testing.assert_array_equal(np.asarray(copy(x)), np.asarray(network(x)))


@pytest.mark.parametrize(
    "dropout, workers, asked, expected, told",
    [
        (0.0, 2, None, True, False),
        (0.2, 2, None, False, False),
        (0.2, 2, True, True, False),
        (0.0, 2, False, False, False),
        (0.0, 5, None, True, True),
    ],
    ids=["nothing drawn", "dropout", "asked for", "declined", "lone rows"],
)
def test_a_fine_tuned_backbone_is_reproducible_where_nothing_is_drawn(
    tmp_path: Path, dropout: float, workers: int, asked: bool | None, expected: bool, told: bool
) -> None:
    import keras

    from catdog.training.progress import Rank
    from catdog.training.reproducible import SMALL_PARAMETERS, is_reproducible
    from tests.tiny import make_job

    lines: list[Any] = []
    rank = Rank(0, workers, None, lines.append, lambda row: None, None)
    job = make_job(tmp_path, "model", dropout=dropout)
    job = replace(job, phase="finetune", reproducible=asked, augmentation=AugmentationSettings())
    large = keras.Sequential([keras.Input((3000,)), keras.layers.Dense(2000)])
    assert large.count_params() > SMALL_PARAMETERS
    assert is_reproducible(job, rank, large) is expected
    assert bool(lines) == told
    if asked is None and expected:
        drawn = replace(job, boundary="pixels")
        assert not is_reproducible(drawn, rank, large), "its augmentation draws"
