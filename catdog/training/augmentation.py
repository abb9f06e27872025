"""Pictures varied at random, on the device, by Keras' own layers."""

from __future__ import annotations

import keras

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
    if not layers:
        return None
    return keras.Sequential(layers, name="augmentation")
