"""Save and load Keras models."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog.storage import Location

if TYPE_CHECKING:
    import keras


def save_keras(model: keras.Model, target: Location) -> int:
    """Write ``model`` in Keras' own format (loads in safe mode); returns its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        content = path.read_bytes()
    target.write_bytes(content)
    return len(content)


def load_keras(source: Location) -> keras.Model:
    """The model written by :func:`save_keras`."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(source.read_bytes())
        return keras.models.load_model(path, safe_mode=True)


def logits_of(model: Any) -> Any:
    """A traced function from raw pixels ``(n, side, side, 3)`` uint8 to logits ``(n,)`` float32."""
    import keras
    import tensorflow as tf

    network = keras.Model(model.input, model.get_layer("logit").output)
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
    # Nothing in it needs autograph, which leaves a file in /tmp where a worker is ended by Ray.
    return tf.function(
        lambda pixels: tf.squeeze(network(pixels, training=False), -1),
        input_signature=signature,
        autograph=False,
    )
