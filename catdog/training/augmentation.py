"""Pictures varied at random, on the device, by Keras' own layers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from catdog.config import AugmentationSettings


def make_augmentation(settings: AugmentationSettings | None) -> keras.Sequential | None:
    """Keras' own layers, on the device; ``None`` where nothing is asked for."""
    if settings is None:
        return None
    layers: list[keras.layers.Layer] = []
    if settings.horizontal_flip:
        layers.append(keras.layers.RandomFlip("horizontal"))
    if settings.rotation:
        layers.append(keras.layers.RandomRotation(settings.rotation, fill_mode="reflect"))
    if settings.zoom:
        layers.append(keras.layers.RandomZoom((-settings.zoom, settings.zoom)))
    if settings.translation:
        layers.append(keras.layers.RandomTranslation(settings.translation, settings.translation))
    if settings.brightness:
        layers.append(keras.layers.RandomBrightness(settings.brightness))
    if settings.contrast:
        layers.append(keras.layers.RandomContrast(settings.contrast))
    if settings.rand_augment:
        # In float32: 8 bits of a bfloat16 are too few for 256 grey levels.
        layers.append(keras.layers.RandAugment(factor=settings.rand_augment, dtype="float32"))
    if not layers:
        return None
    return keras.Sequential(layers, name="augmentation")


class Mixing(keras.layers.Layer):
    """Photos of a worker's part of a batch mixed with one another, and their labels alike.

    MixUp (Zhang et al., 2018) blends two photos, CutMix (Yun et al., 2019) puts a rectangle of one
    into the other; where both are asked for, each batch gets one of them at random.
    """

    def __init__(self, settings: AugmentationSettings) -> None:
        super().__init__(name="mixing", dtype="float32")
        self.ways: list[keras.layers.Layer] = []
        if settings.mixup:
            self.ways.append(keras.layers.MixUp(settings.mixup, dtype="float32"))
        if settings.cutmix:
            self.ways.append(keras.layers.CutMix(settings.cutmix, dtype="float32"))
        self.chance = keras.random.SeedGenerator()

    def call(self, rows: Any, labels: Any) -> tuple[Any, Any]:
        """(rows (k, height, width, 3), labels (k,)) → the same shapes, float32; labels in 0…1."""
        rows = tf.cast(rows, tf.float32)
        mixed = [
            way({"images": rows, "labels": labels[:, None]}, training=True) for way in self.ways
        ]
        chosen = mixed[0]
        if len(mixed) > 1:
            first = keras.random.uniform((), seed=self.chance) < 0.5
            chosen = {key: tf.where(first, mixed[0][key], mixed[1][key]) for key in mixed[0]}
        return chosen["images"], chosen["labels"][:, 0]


def make_mixing(settings: AugmentationSettings | None) -> Mixing | None:
    """``None`` where nothing is asked for."""
    if settings is None or not (settings.mixup or settings.cutmix):
        return None
    return Mixing(settings)
