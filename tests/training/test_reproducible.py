"""Reproducible layers: Keras' arithmetic, and the same bits for any division of the rows.

That whole trainings on one, two and three workers agree is tested through ``jobs/train.py``.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from catdog.config import AugmentationSettings


def small_network(*, normalise: bool, depthwise: bool = False) -> Any:
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
    if depthwise:
        x = layers.DepthwiseConv2D(3, padding="same", activation="relu")(x)
        x = layers.SeparableConv2D(12, 2, depth_multiplier=2)(x)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(8, activation="relu")(x)
    return keras.Model(pixels, layers.Dense(1, name="logit")(x))


def rows(count: int = 16) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (count, 16, 16, 3)).astype(np.uint8)
    return pixels, generator.integers(0, 2, count).astype(np.float32)


def gradients_of(
    network: Any, exact: bool, x: Any, y: Any, of_rows: int = 16, weights: Any = None
) -> list[Any]:
    weights = np.ones(len(y), np.float32) if weights is None else weights
    return traced(network, exact, x)(x, y, weights, of_rows)


def traced(network: Any, exact: bool, x: Any) -> Callable[..., list[Any]]:
    """(rows, labels, weights, global rows) -> gradients, of any number of rows like ``x``."""
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
    signature = [
        tf.TensorSpec((None, *x.shape[1:]), tf.as_dtype(x.dtype)),
        tf.TensorSpec((None,), tf.float32),
        tf.TensorSpec((None,), tf.float32),
        tf.TensorSpec((), tf.float64),
    ]
    compute = tf.function(step._gradients, input_signature=signature, autograph=False)

    def gradients(x: Any, y: Any, weights: Any, of_rows: int) -> list[Any]:
        return [np.asarray(each) for each in compute(x, y, weights, np.float64(of_rows))[0]]

    return gradients


def _settings() -> Any:
    from catdog.config import ScratchSettings

    return ScratchSettings(learning_rate=0.01, clip_norm=None, weight_decay=0.0)


@pytest.mark.parametrize(
    "normalise, depthwise, unit",
    [(False, False, 3), (True, False, 1), (True, True, 3), (False, True, 16)],
)
def test_gradients_are_those_of_keras_own_layers(
    normalise: bool, depthwise: bool, unit: int
) -> None:
    from catdog.training.reproducible import reproducible

    network = small_network(normalise=normalise, depthwise=depthwise)
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
    """Gradients of the whole batch are, in float32, those of its parts, added last part first.

    Parts of one row are padded as a rank's are.
    """
    gradients = traced(network, True, x)
    whole = gradients(x, y, np.ones(len(y), np.float32), len(y))
    parts = []
    for start, stop in itertools.pairwise([0, *cuts, len(y)]):
        padded = max(stop, start + 2)
        rows = np.arange(start, padded) % len(y)
        weights = (np.arange(start, padded) < stop).astype(np.float32)
        parts.append(gradients(x[rows], y[rows], weights, len(y)))
    for index, gradient in enumerate(whole):
        summed = sum(part[index] for part in reversed(parts))
        assert np.array_equal(summed.astype(np.float32), gradient.astype(np.float32))
        assert np.abs(gradient).max() > 0


@pytest.mark.parametrize("cuts", [(8,), (5, 11), (1, 2, 15)])
def test_any_division_of_the_rows_gives_the_same_bits(cuts: tuple[int, ...]) -> None:
    from catdog.training.reproducible import reproducible

    network = small_network(normalise=False, depthwise=True)
    assert_divisible(reproducible(network, 1), *rows(), cuts)


def test_rows_of_weight_zero_enter_no_statistics_and_no_gradient() -> None:
    from catdog.training.reproducible import reproducible

    x, y = rows(4)
    found = []
    for padding in (0, 2):
        copy = reproducible(small_network(normalise=True), 1)
        padded = np.concatenate([x, 255 - x[:padding]]), np.concatenate([y, y[:padding]])
        weights = (np.arange(4 + padding) < 4).astype(np.float32)
        gradients = gradients_of(copy, True, *padded, 4, weights)
        found.append(gradients + [v.numpy() for v in copy.get_layer("norm").variables])
    for plain, padded in zip(*found, strict=True):
        np.testing.assert_array_equal(plain.astype(np.float32), padded.astype(np.float32))


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name, side", [("resnet50v2", 32), ("inception_v3", 75)])
def test_a_backbones_last_block_has_the_same_bits_for_any_division(name: Any, side: int) -> None:
    """From kept activations, batch normalisation frozen."""
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
    assert_divisible(copy, kept, generator.integers(0, 2, 7).astype(np.float32), (1, 4))


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
    # Not to the bit: the dense layers compute in float64 in evaluation too.
    np.testing.assert_allclose(np.asarray(copy(x)), np.asarray(network(x)), atol=1e-5)


def chosen(tmp_path: Path, network: Any, asked: bool | None, **changes: Any) -> tuple[bool, int]:
    """(whether it is to be reproducible, lines said)"""
    from catdog.training.progress import Rank
    from catdog.training.reproducible import is_reproducible
    from tests.tiny import make_job

    lines: list[Any] = []
    rank = Rank(0, 2, cast(Any, None), lines.append, lambda row: None, cast(Any, None))
    job = replace(make_job(tmp_path, "model"), reproducible=asked, **changes)
    return is_reproducible(job, rank, network), len(lines)


@pytest.mark.parametrize("asked, expected", [(None, False), (True, True), (False, False)])
def test_large_networks_are_reproducible_where_that_is_asked_for(
    tmp_path: Path, asked: bool | None, expected: bool
) -> None:
    import keras

    from catdog.training.reproducible import SMALL_PARAMETERS

    large = keras.Sequential([keras.Input((3000,)), keras.layers.Dense(2000)])
    assert large.count_params() > SMALL_PARAMETERS
    assert chosen(tmp_path, large, asked) == (expected, 0)
    deep = keras.Sequential([keras.Input((8, 8, 800)), keras.layers.SeparableConv2D(800, 3)])
    assert deep.count_params() < SMALL_PARAMETERS
    assert chosen(tmp_path, deep, asked) == (expected, 0)
    assert chosen(tmp_path, small_network(normalise=True), asked) == (asked is not False, 0)


def test_what_cannot_be_reproducible_is_not_tried_and_says_so_where_it_was_asked_for(
    tmp_path: Path,
) -> None:
    network = small_network(normalise=True)
    drawn = {"boundary": "pixels", "augmentation": AugmentationSettings(rand_augment=0.5)}
    assert chosen(tmp_path, network, None, **drawn) == (False, 0)
    assert chosen(tmp_path, network, True, **drawn) == (False, 1)
    network.get_layer("norm").synchronized = False
    assert chosen(tmp_path, network, None) == (False, 0)
    assert chosen(tmp_path, network, True) == (False, 1)
    network.get_layer("norm").trainable = False
    assert chosen(tmp_path, network, True) == (True, 0)


PROVE = """
import sys
import numpy as np, tensorflow as tf
from catdog.training.proof import what_differs
from catdog.training.progress import Rank
from catdog.training.reproducible import reproducible
from tests.training.test_reproducible import small_network
rank = Rank(0, 1, tf.distribute.get_strategy(), print, print, None)
print(what_differs(reproducible(small_network(normalise=True), 1), rank, np.uint8))
"""


@pytest.mark.parametrize(
    "settings, expected",
    [({}, "None"), ({"TF_ENABLE_ONEDNN_OPTS": "0"}, "this CPU's kernels")],
    ids=["oneDNN", "without it"],
)
def test_the_proof_tells_kernels_that_look_at_the_size_of_a_batch(
    project: Path, settings: dict[str, str], expected: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROVE],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project)} | settings,
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert done.stdout.startswith(expected)
