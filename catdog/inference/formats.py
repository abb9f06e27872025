"""What is exported: a network in plain operations, a SavedModel that takes JPEG bytes, ONNX."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catdog.data.labels import CLASSES
from catdog.errors import UserError, install_command

if TYPE_CHECKING:
    import keras

#: What a model can be had as; ``keras`` is the run's own file.
FORMATS = ("keras", "saved_model", "onnx")
INPUT = "pixels"
OUTPUT = "probability_dog"


def portable(model: keras.Model, temperature: float) -> keras.Model:
    """The same weights from ``pixels`` (n, side, side, 3) uint8 to :data:`OUTPUT` (n, 1) float32.

    A model trained in bfloat16 computes in float32 here: its probabilities move by what that
    precision is worth, some thousandths.
    """
    import keras

    def converted(part: Any) -> Any:
        if not isinstance(part, keras.layers.Layer):
            return _shrinking(part, model.input_shape[1])
        config = part.get_config()
        if not isinstance(part, keras.layers.InputLayer):
            config["dtype"] = "float32"
        return part.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=converted)
    copy.set_weights(model.get_weights())
    logit = copy.get_layer("logit").output
    scaled = keras.layers.Rescaling(1 / temperature, dtype="float32", name="temperature")(logit)
    answer = keras.layers.Activation("sigmoid", dtype="float32", name=OUTPUT)(scaled)
    return keras.Model(copy.input, answer, name=model.name)


def _shrinking(operation: Any, side: int) -> Any:
    """A layer that does what ``keras.ops.image.resize`` does in these models."""
    import keras

    class Shrinking(keras.layers.Layer):
        def __init__(self, matrix: Any) -> None:
            super().__init__(dtype="float32", name="shrinking")
            self.matrix = matrix

        def call(self, x: Any) -> Any:
            x = keras.ops.einsum("oh,nhwc->nowc", self.matrix, x)
            return keras.ops.einsum("ow,nhwc->nhoc", self.matrix, x)

    kind = (type(operation).__name__, operation.interpolation, operation.antialias)
    if kind != ("Resize", "bilinear", True):
        raise NotImplementedError(f"no portable form of {kind}")
    # Resizing is linear and the axes are independent: what becomes of each unit vector says all.
    look = operation.size[0]
    units = np.eye(side, dtype=np.float32).reshape(1, side, side, 1)
    columns = keras.ops.image.resize(units, (look, side), antialias=True)
    return Shrinking(np.asarray(columns)[0, :, :, 0])


def check_onnx() -> None:
    """Raises UserError where the packages are missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"--formats onnx needs the package {error.name}: {install_command('export')} "
            "(or leave onnx out)"
        ) from error


def write_onnx(network: keras.Model, file: Path, temperature: float) -> None:
    """Write ``network`` (of :func:`catdog.inference.formats.portable`) to ``file``.

    Input ``pixels``: uint8 (batch, side, side, 3). Output ``probability_dog``: float32 (batch, 1).
    The file's metadata name the classes and the temperature.
    """
    import onnx

    with warnings.catch_warnings():
        # Keras' copy of tf2onnx asks NumPy for names that went away, and silences nothing.
        warnings.simplefilter("ignore")
        network.export(file, format="onnx", verbose=False)
    model = onnx.load(file)
    _rename_output(model.graph)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    facts = {"classes": ",".join(CLASSES), "temperature": repr(temperature)}
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)


def _rename_output(graph: Any) -> None:
    (output,) = graph.output
    for node in graph.node:
        node.output[:] = [OUTPUT if name == output.name else name for name in node.output]
        node.input[:] = [OUTPUT if name == output.name else name for name in node.input]
    output.name = OUTPUT


def load_onnx(file: Path, threads: int = 0) -> Any:
    """A function from pixels to probabilities of dog (n,) on the CPU; ``threads`` 0: all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run([OUTPUT], {INPUT: pixels})[0][:, 0]


#: The signature that takes prepared pixels.
PIXELS = "pixels"


def write_saved_model(network: keras.Model, folder: Path) -> None:
    """Write ``network`` (of :func:`catdog.inference.formats.portable`) to ``folder``.

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
