"""Augmentation beyond single photos, in graph mode as the step runs it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catdog.config import AugmentationSettings, ScratchSettings

from .steps import make_step

OFF = AugmentationSettings(horizontal_flip=False, rotation=0, zoom=0)


def plain_photos(count: int = 16) -> tuple[Any, Any]:
    """Dogs are white and cats are black: after mixing a photo's mean tells its label."""
    labels = (np.arange(count) % 2).astype(np.float32)
    pixels = np.zeros((count, 64, 64, 3), np.uint8)
    pixels[labels == 1] = 255
    return pixels, labels


def draws(positions: Any, step: int = 0, count: int = 16, seed: int = 0) -> Any:
    """What the rows at ``positions`` of a batch of ``count`` rows draw in a step."""
    import tensorflow as tf

    from catdog.training.draws import Draws

    step, positions, count = (tf.constant(x, tf.int64) for x in (step, positions, count))
    return Draws(seed, step, positions, count)


def mixed(**settings: float) -> tuple[Any, Any]:
    import tensorflow as tf

    from catdog.training.augmentation import make_mixing

    mixing = make_mixing(OFF.model_copy(update=settings))
    assert mixing is not None
    (pixels, labels), at = plain_photos(), np.arange(16)
    partners = (at + 3) % 16
    both = np.concatenate([pixels, pixels[partners]]), np.concatenate([labels, labels[partners]])
    mixed = tf.function(lambda *given: mixing(*given, draws(at)))(*both)
    return tuple(np.asarray(each) for each in mixed)


@pytest.mark.parametrize(
    "settings, tolerance",
    [({"mixup": 0.8}, 1e-5), ({"cutmix": 1.0}, 0.05), ({"mixup": 0.8, "cutmix": 1.0}, 0.05)],
    ids=["mixup", "cutmix", "one of both"],
)
def test_photos_are_mixed_as_their_labels_are(settings: dict[str, float], tolerance: float) -> None:
    pixels, labels = mixed(**settings)
    assert pixels.shape == (16, 64, 64, 3)
    assert ((labels > 0.02) & (labels < 0.98)).any(), "nothing was mixed"
    np.testing.assert_allclose(pixels.mean((1, 2, 3)) / 255, labels, atol=tolerance)


def test_mixing_that_is_not_asked_for_is_none() -> None:
    from catdog.training.augmentation import make_mixing

    assert make_mixing(OFF) is None
    assert make_mixing(None) is None


def fixed(values: dict[str, float]) -> Any:
    """A table of random numbers (1, 7) that draws the given shares of the largest amounts."""
    from catdog.training import augmentation

    table = np.full((1, 7), 0.5)
    for name, value in values.items():
        table[0, getattr(augmentation, name)] = (value + 1) / 2
    return table


def smooth(side: int = 48) -> Any:
    y, x = np.mgrid[0:side, 0:side] / side
    return (127 + 100 * np.stack([np.sin(5 * x), np.cos(4 * y), np.sin(3 * (x + y))], -1))[None]


def varied(photo: Any, settings: dict[str, Any], values: dict[str, float]) -> Any:
    """``photo`` as the augmentation varies it where these numbers are drawn."""
    from types import SimpleNamespace

    from catdog.training.augmentation import make_augmentation

    given: Any = SimpleNamespace(
        table=lambda stream, columns: fixed(values), own=lambda table: table
    )
    vary = make_augmentation(OFF.model_copy(update=settings))
    assert vary is not None
    return np.asarray(vary(photo, given))


@pytest.mark.parametrize("share", [-1.0, 0.3])
def test_settings_mean_what_they_mean_to_keras_layers(share: float) -> None:
    import keras

    photo = smooth().astype(np.float32)
    layers = keras.layers
    cases: list[Any] = [
        ({"rotation": 0.1}, "ANGLE", layers.RandomRotation((0.1 * share,) * 2, "reflect")),
        ({"zoom": 0.3}, "ZOOM", layers.RandomZoom((0.3 * share,) * 2)),
        ({"translation": 0.2}, "SHIFT_X", layers.RandomTranslation(0.0, (0.2 * share,) * 2)),
        ({"translation": 0.2}, "SHIFT_Y", layers.RandomTranslation((0.2 * share,) * 2, 0.0)),
        ({"brightness": 0.4}, "BRIGHTNESS", layers.RandomBrightness((0.4 * share,) * 2)),
    ]
    for settings, column, layer in cases:
        theirs = np.asarray(layer(photo, training=True))
        ours = varied(photo, settings, {column: share})
        np.testing.assert_allclose(ours, theirs, atol=0.05, err_msg=column)
    mean = photo.mean((1, 2), keepdims=True)
    contrast = np.clip((photo - mean) * (1 + 0.5 * share) + mean, 0, 255)
    np.testing.assert_allclose(
        varied(photo, {"contrast": 0.5}, {"CONTRAST": share}), contrast, atol=1e-3
    )


def test_one_map_does_what_keras_layers_do_one_after_the_other() -> None:
    import keras

    photo = smooth().astype(np.float32)
    layers = keras.layers
    one_by_one = keras.Sequential(
        [
            layers.RandomRotation((0.05, 0.05), "reflect"),
            layers.RandomZoom((0.2, 0.2)),
            layers.RandomTranslation((0.1, 0.1), (-0.1, -0.1)),
        ]
    )
    theirs = np.asarray(one_by_one(photo[:, :, ::-1], training=True))
    amounts = {"horizontal_flip": True, "rotation": 0.05, "zoom": 0.2, "translation": 0.1}
    drawn = {"FLIP": -1.0, "ANGLE": 1.0, "ZOOM": 1.0, "SHIFT_X": -1.0, "SHIFT_Y": 1.0}
    middle = (slice(None), slice(16, 32), slice(16, 32))
    ours = varied(photo, amounts, drawn)
    np.testing.assert_allclose(ours[middle], theirs[middle], atol=1)


def test_where_nothing_is_drawn_pixels_stay_as_they_are() -> None:
    photo = np.random.default_rng(0).integers(0, 256, (1, 15, 12, 3)).astype(np.uint8)
    every = {"rotation": 0.2, "zoom": 0.2, "translation": 0.2, "brightness": 0.1, "contrast": 0.2}
    np.testing.assert_allclose(varied(photo, every, {}), photo, atol=1e-4)
    flip = {"horizontal_flip": True}
    for amounts in (flip, flip | {"zoom": 0.1}):
        flipped = varied(photo, amounts, {"FLIP": -1.0})
        np.testing.assert_array_equal(flipped, photo[:, :, ::-1])


def test_rand_augment_changes_photos_and_stays_in_their_range() -> None:
    import keras
    import tensorflow as tf

    from catdog.training.augmentation import make_augmentation

    keras.utils.set_random_seed(1)
    vary = make_augmentation(OFF.model_copy(update={"rand_augment": 0.5}))
    assert vary is not None
    photos = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype(np.uint8)
    drawn = np.asarray(tf.function(lambda rows: vary(rows, draws(np.arange(4))))(photos))
    assert drawn.shape == photos.shape
    assert drawn.min() >= 0
    assert drawn.max() <= 255
    assert not np.allclose(drawn, photos, atol=1)


def test_a_step_learns_from_mixed_photos() -> None:
    import keras

    from catdog.training.augmentation import make_mixing

    keras.utils.set_random_seed(2)
    pixels, labels = plain_photos()
    rows = keras.Input((64, 64, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255.0, -0.5)(keras.layers.GlobalAveragePooling2D()(rows))
    model = keras.Model(rows, keras.layers.Dense(1, name="logit")(scaled))
    mixing = make_mixing(OFF.model_copy(update={"mixup": 0.4}))
    step = make_step(model, ScratchSettings(learning_rate=0.05), row_dtype=np.uint8, mixing=mixing)
    weights = np.ones(len(labels), np.float32)
    before = float(step.evaluate(pixels, labels, weights)[0])
    for number in range(40):
        at = np.arange(16)
        at = np.concatenate([at, (at + 1 + number % 15) % 16])
        step.train(pixels[at], labels[at], weights, len(labels), at, number)
    assert float(step.evaluate(pixels, labels, weights)[0]) < before / 2
