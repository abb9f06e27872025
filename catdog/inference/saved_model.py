"""A TensorFlow SavedModel that takes the bytes of JPEG files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from catdog.data.labels import CLASSES
from catdog.inference.portable import OUTPUT

if TYPE_CHECKING:
    import keras

#: The signature that takes prepared pixels.
PIXELS = "pixels"


def write_saved_model(network: keras.Model, folder: Path) -> None:
    """Write ``network`` (of :func:`catdog.inference.portable.portable`) to ``folder``.

    Signatures: ``serving_default`` takes ``jpeg``, strings (n,); ``pixels`` takes uint8
    (n, side, side, 3). Both return ``probability_dog`` float32 (n,) and ``label``, strings (n,).
    JPEG orientation tags are not read: turn such pictures upright first.
    """
    import tensorflow as tf

    side = int(network.input_shape[1])

    def from_pixels(pixels: Any) -> dict[str, Any]:
        dog = tf.squeeze(network(pixels, training=False), -1)
        return {OUTPUT: dog, "label": tf.gather(tf.constant(CLASSES), tf.cast(dog > 0.5, tf.int32))}

    def from_jpeg(jpeg: Any) -> dict[str, Any]:
        picture = tf.TensorSpec((side, side, 3), tf.uint8)
        return from_pixels(
            tf.map_fn(lambda data: prepared(data, side), jpeg, fn_output_signature=picture)
        )

    # Not keras.export.ExportArchive: in Keras 3.15 its file holds every variable twice.
    module = tf.Module()
    module.weights = [variable.value for variable in network.variables]
    jpegs = tf.TensorSpec((None,), tf.string, name="jpeg")
    prepared_pixels = tf.TensorSpec((None, side, side, 3), tf.uint8, name="pixels")
    module.from_jpeg = tf.function(from_jpeg, input_signature=[jpegs])
    module.from_pixels = tf.function(from_pixels, input_signature=[prepared_pixels])
    signatures = {"serving_default": module.from_jpeg, PIXELS: module.from_pixels}
    tf.saved_model.save(module, str(folder), signatures=signatures)


def prepared(data: Any, side: int) -> Any:
    """Bytes of a JPEG → uint8 (side, side, 3), as :func:`catdog.data.images.shrink` does it.

    In TensorFlow's operations, so that it can be part of a graph: within a grey level or two.
    """
    import tensorflow as tf

    pixels = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
    shape = tf.shape(pixels)[:2]
    longest = tf.cast(tf.reduce_max(shape), tf.float32)
    factor = tf.maximum(tf.cast(longest / side / 1.3, tf.int32), 1)
    # Never enlarged on the way; (1, 1) is the bilinear filter alone.
    times = tf.where(
        factor > 1, tf.maximum(1, tf.minimum(factor, shape // side)), tf.ones_like(shape)
    )
    middle = tf.round(tf.image.resize(pixels, side * times, method="bilinear"))
    blocks = tf.reshape(middle, (side, times[0], side, times[1], 3))
    return tf.saturate_cast(tf.round(tf.reduce_mean(blocks, axis=(1, 3))), tf.uint8)
