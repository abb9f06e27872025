"""Data augmentation on the device.

Every number is drawn for the whole global batch and looked up by a row's position in it
(:mod:`catdog.training.draws`), so a photo is varied alike on any number of workers. The settings
mean what they mean for Keras' layers RandomFlip, RandomRotation, RandomZoom, RandomTranslation,
RandomBrightness and RandomContrast, applied in this order; mirror image, angle, zoom and shift are
one affine map, so that pixels are interpolated once.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import tensorflow as tf

from catdog.config import AugmentationSettings
from catdog.training.draws import Draws

#: Columns of the table of random numbers.
FLIP, ANGLE, ZOOM, SHIFT_X, SHIFT_Y, BRIGHTNESS, CONTRAST = range(7)


class Augmentation:
    """Varies photos (k, height, width, 3) with values in 0…255."""

    def __init__(self, settings: AugmentationSettings) -> None:
        self.settings = settings
        self.rand_augment: keras.layers.Layer | None = None
        if settings.rand_augment:
            # In float32: 8 bits of a bfloat16 are too few for 256 grey levels.
            self.rand_augment = keras.layers.RandAugment(
                factor=settings.rand_augment, dtype="float32"
            )

    @property
    def variables(self) -> list[keras.Variable]:
        """The states of what is not drawn by position: RandAugment's, which is Keras' own."""
        return [] if self.rand_augment is None else self.rand_augment.variables

    def __call__(self, rows: Any, draws: Draws) -> tf.Tensor:
        """The varied photos, float32."""
        settings = self.settings
        rows = tf.cast(rows, tf.float32)
        table = draws.table("augmentation", CONTRAST + 1)
        if settings.rotation or settings.zoom or settings.translation:
            rows = _warped(rows, draws.own(affine_maps(table, settings, *rows.shape[1:3])))
        elif settings.horizontal_flip:
            flipped = draws.own(table[:, FLIP] < 0.5)
            rows = tf.where(flipped[:, None, None, None], rows[:, :, ::-1], rows)
        if settings.brightness:
            change = 255 * settings.brightness * _signed(table[:, BRIGHTNESS])
            rows = _in_range(rows + _for_pixels(draws.own(change)))
        if settings.contrast:
            factor = _for_pixels(draws.own(1 + settings.contrast * _signed(table[:, CONTRAST])))
            # In float64 the order of additions does not show in the float32 that is left.
            mean = tf.reduce_mean(tf.cast(rows, tf.float64), [1, 2], keepdims=True)
            mean = tf.cast(mean, tf.float32)
            rows = _in_range((rows - mean) * factor + mean)
        if self.rand_augment is not None:
            rows = self.rand_augment(rows, training=True)
        return rows


def make_augmentation(settings: AugmentationSettings | None) -> Augmentation | None:
    """``None`` where nothing is asked for."""
    if settings is None:
        return None
    mixing = {"mixup", "cutmix"}
    return Augmentation(settings) if any(settings.model_dump(exclude=mixing).values()) else None


def affine_maps(
    table: tf.Tensor, settings: AugmentationSettings, height: int, width: int
) -> tf.Tensor:
    """Where each pixel of the varied photo comes from, as ``ImageProjectiveTransformV3`` takes it.

    Args:
        table: uniform numbers, float64 (n, 7).

    Returns:
        float64 (n, 8): x' = m0 x + m1 y + m2, y' = m3 x + m4 y + m5, in pixels.
    """
    angle = 2 * math.pi * settings.rotation * _signed(table[:, ANGLE])
    zoom = 1 + settings.zoom * _signed(table[:, ZOOM])
    shift_x = width * settings.translation * _signed(table[:, SHIFT_X])
    shift_y = height * settings.translation * _signed(table[:, SHIFT_Y])
    mirrored = settings.horizontal_flip & (table[:, FLIP] < 0.5)
    side = tf.where(mirrored, tf.constant(-1.0, tf.float64), tf.constant(1.0, tf.float64))
    cos, sin = tf.cos(angle) * zoom, tf.sin(angle) * zoom
    # About the centre: first the shift is undone, then the zoom, the rotation and the mirror.
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    x, y = middle_x + shift_x, middle_y + shift_y
    none = tf.zeros_like(cos)
    maps = [
        side * cos,
        -side * sin,
        middle_x - side * (cos * x - sin * y),
        sin,
        cos,
        middle_y - (sin * x + cos * y),
        none,
        none,
    ]
    return tf.stack(maps, axis=1)


def _warped(rows: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=rows,
        transforms=tf.cast(maps, tf.float32),
        output_shape=tf.constant(rows.shape[1:3].as_list(), tf.int32),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(warped, rows.shape)


def _signed(uniform: tf.Tensor) -> tf.Tensor:
    """From [0, 1) to [-1, 1)."""
    return 2 * uniform - 1


def _for_pixels(values: tf.Tensor) -> tf.Tensor:
    """(k,) float64 → (k, 1, 1, 1) float32."""
    return tf.cast(values, tf.float32)[:, None, None, None]


def _in_range(rows: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(rows, 0.0, 255.0)


class Mixing:
    """Photos mixed with a partner from the same global batch, and their labels alike.

    MixUp (Zhang et al., 2018) blends two photos, CutMix (Yun et al., 2019) puts a rectangle of one
    into the other; where both are asked for, each batch gets one of them at random.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        self.mixup, self.cutmix = settings.mixup, settings.cutmix

    def __call__(self, rows: Any, labels: Any, draws: Draws) -> tuple[tf.Tensor, tf.Tensor]:
        """Mix each row with its partner.

        Args:
            rows: (2 k, height, width, 3), the rank's rows and then their partners in this order.
            labels: (2 k,), alike.
            draws: of the k rows.

        Returns:
            (rows (k, height, width, 3), labels (k,)), float32; labels in 0…1.
        """
        count = tf.size(draws.positions)
        rows, labels = tf.cast(rows, tf.float32), tf.cast(labels, tf.float32)
        ways = []
        if self.mixup:
            ways.append(draws.own(_blends(draws, self.mixup, *rows.shape[1:3])))
        if self.cutmix:
            ways.append(draws.own(_pastes(draws, self.cutmix, *rows.shape[1:3])))
        chosen = ways[0]
        if len(ways) > 1:
            chosen = tf.where(draws.of_step("mixing") < 0.5, ways[0], ways[1])
        weight = _own_weights(chosen, *rows.shape[1:3])
        mixed = weight * rows[:count] + (1 - weight) * rows[count:]
        share = tf.cast(chosen[:, -1], tf.float32)
        return mixed, share * labels[:count] + (1 - share) * labels[count:]


def make_mixing(settings: AugmentationSettings | None) -> Mixing | None:
    """``None`` where nothing is asked for."""
    if settings is None or not (settings.mixup or settings.cutmix):
        return None
    return Mixing(settings)


def _blends(draws: Draws, alpha: float, height: int, width: int) -> tf.Tensor:
    """MixUp as rectangles of the partner, float64 (count, 6); see :func:`_own_weights`."""
    own = draws.beta("mixup", alpha)
    none, whole = tf.zeros_like(own), tf.ones_like(own)
    return tf.stack([none, height * whole, none, width * whole, own, own], axis=1)


def _pastes(draws: Draws, alpha: float, height: int, width: int) -> tf.Tensor:
    """CutMix as rectangles of the partner, float64 (count, 6); see :func:`_own_weights`."""
    side = tf.sqrt(1 - draws.beta("cutmix", alpha))
    centre = draws.table("cutmix centre", 2)

    def bounds(size: int, column: int) -> tuple[tf.Tensor, tf.Tensor]:
        middle, half = tf.floor(size * centre[:, column]), tf.floor(size * side / 2)
        edges = (middle - half, middle + half)
        return tuple(tf.clip_by_value(edge, 0, size) for edge in edges)  # type: ignore[return-value]

    (top, bottom), (left, right) = bounds(height, 0), bounds(width, 1)
    own = 1 - (bottom - top) * (right - left) / (height * width)
    return tf.stack([top, bottom, left, right, tf.zeros_like(own), own], axis=1)


def _own_weights(rectangles: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """How much of each pixel is the row's own, float32 (k, height, width, 1).

    Args:
        rectangles: float64 (k, 6): top, bottom, left, right (end excluded), the weight of the
            row's own pixels within, and in the whole picture.
    """
    top, bottom, left, right, within, _ = (
        column[:, None] for column in tf.unstack(rectangles, axis=1)
    )
    y, x = tf.range(height, dtype=tf.float64), tf.range(width, dtype=tf.float64)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    inside = rows[:, :, None] & columns[:, None, :]
    weight = tf.where(inside, within[:, :, None], tf.ones((), tf.float64))
    return tf.cast(weight, tf.float32)[..., None]
