"""A trained model as one that other programs can run: float32, only common operations.

Its answer is the calibrated probability of *dog*. Shrinking is written as two matrix products,
for ONNX knows no resizing that averages what it skips as Keras' does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

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
