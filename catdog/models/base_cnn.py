"""The base CNN: five convolutions, trained from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

#: Of the moving statistics of batch normalisation. Keras' 0.99 needs some hundred steps to forget
#: its start: after 48 steps on small sets training accuracy was 0.99 and validation 0.69.
MOMENTUM = 0.9

#: The layer whose output the head sees: pooled features, one vector a photo.
POOLED = "pooled_features"


def features(x: keras.KerasTensor, dropout: float) -> keras.KerasTensor:
    """Scaled pixels (batch, side, side, 3) → features (batch, 256)."""
    from keras import layers

    blocks = (
        (32, 7, "same"),
        (64, 5, "valid"),
        (128, 3, "valid"),
        (256, 3, "valid"),
        (256, 3, "valid"),
    )
    for index, (filters, kernel, padding) in enumerate(blocks, start=1):
        x = layers.Conv2D(filters, kernel, padding=padding, name=f"conv{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
        x = layers.BatchNormalization(momentum=MOMENTUM, synchronized=True, name=f"bn{index}")(x)
        x = layers.MaxPooling2D(name=f"pool{index}")(x)
        x = layers.Dropout(dropout, name=f"dropout{index}")(x)
    x = layers.GlobalMaxPooling2D(name=POOLED)(x)
    return layers.Dense(256, activation="relu", name="dense")(x)
