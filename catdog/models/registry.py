"""Build the classifiers and cut them into parts.

Each takes raw uint8 RGB squares ``(batch, side, side, 3)`` and ends in one sigmoid unit, the
probability of *dog*. Scaling (and shrinking, where a model looks at fewer pixels than are
prepared) are layers, so a saved model cannot be fed wrongly prepared pixels. The graph is flat:
the backbone's own layers are layers of the model, which is what makes :func:`split_at` possible.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from catdog.config.architectures import MODELS, InputScale, ModelName
from catdog.models.base_cnn import MOMENTUM, POOLED

if TYPE_CHECKING:
    import keras

#: (factor, offset) from 0..255 to the range that a set of weights was trained with.
SCALES: dict[InputScale, tuple[float, float]] = {
    "0..255": (1.0, 0.0),
    "0..1": (1 / 255.0, 0.0),
    "-1..1": (1 / 127.5, -1.0),
    "-127/128..1": (1 / 128.0, -127 / 128.0),
}


@dataclass(frozen=True)
class Architecture:
    """What has to be known to build a model, apart from its weights.

    Attributes:
        image_size: side of the prepared squares in pixels, the model's input.
        model_image_size: side that the network sees; smaller than ``image_size`` shrinks first.
        early: the network ends after its first blocks, as random weights tell nothing further up.
    """

    name: ModelName
    image_size: int
    model_image_size: int
    scale: InputScale
    dropout: float
    early: bool = False


def build(architecture: Architecture) -> keras.Model:
    """A fresh model with random weights; ends in layers ``logit`` and ``probability``."""
    import keras

    size = architecture.image_size
    pixels = keras.Input((size, size, 3), dtype="uint8", name="pixels")
    factor, offset = SCALES[architecture.scale]
    x = keras.layers.Rescaling(factor, offset, name="scaling")(pixels)
    if architecture.model_image_size != size:
        # The operation, not layers.Resizing: that layer's call defaults to training=True, and in
        # Keras 3.15 the default spreads to every layer after it, so that a plain model(x) would
        # run batch normalisation in training mode (seen: its moving statistics changed).
        side = architecture.model_image_size
        x = keras.ops.image.resize(x, (side, side), antialias=True)
    if MODELS[architecture.name].is_backbone:
        x = _backbone(architecture, x)
    else:
        x = _network(architecture.name)(x, architecture.dropout)
    x = keras.layers.Dropout(architecture.dropout, name="head_dropout")(x)
    # float32 from here on: a sigmoid in bfloat16 has too few steps near 0 and 1.
    logit = keras.layers.Dense(1, dtype="float32", name="logit")(x)
    probability = keras.layers.Activation("sigmoid", dtype="float32", name="probability")(logit)
    return keras.Model(pixels, probability, name=architecture.name)


def bare_backbone(
    name: ModelName, weights: str | None, input_tensor: keras.KerasTensor | None = None
) -> keras.Model:
    """The backbone without its top; ``weights``: None, imagenet or a file."""
    make = _network(name)
    return make(weights=weights, include_top=False, input_tensor=input_tensor)


def _network(name: ModelName) -> Callable[..., Any]:
    module, _, function = MODELS[name].network.partition(":")
    return getattr(importlib.import_module(module), function)


def _backbone(architecture: Architecture, x: keras.KerasTensor) -> keras.KerasTensor:
    import keras

    backbone = bare_backbone(architecture.name, None, input_tensor=x)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # Unsynchronised, as keras.applications builds them: hundreds of small collectives a
            # step cost more than the arithmetic. The statistics are averaged once an epoch.
            layer.momentum = MOMENTUM
    if architecture.early:
        early = find_layer(backbone, MODELS[architecture.name].early_layer)
        return keras.layers.GlobalMaxPooling2D(name=POOLED)(early.output)
    return keras.layers.GlobalAveragePooling2D(name=POOLED)(backbone.outputs[0])


def last_activations(model: keras.Model, name: ModelName) -> str:
    """The name of the last layer whose output has a place in the picture."""
    names = {layer.name for layer in model.layers}
    known = (MODELS[name].gradcam_layer, MODELS[name].early_layer)
    return next(layer for layer in known if layer in names)


def backbone_variables(model: keras.Model) -> list[keras.Variable]:
    """Weights of the backbone alone, in the order of ``bare_backbone(...).weights``."""
    head = {"logit"}
    return [v for layer in model.layers if layer.name not in head for v in layer.weights]


def boundary(name: ModelName, unfrozen_blocks: int | Literal["all"]) -> str:
    """The layer whose output feeds the upper blocks; ``pixels`` when all of them are trained.

    0 unfrozen blocks leave the head alone: its input is :data:`POOLED`.
    """
    blocks = MODELS[name].blocks
    if unfrozen_blocks == 0:
        return POOLED
    if unfrozen_blocks == "all" or unfrozen_blocks >= len(blocks):
        return "pixels"
    return blocks[-1 - unfrozen_blocks]


def split_at(model: keras.Model, layer: str) -> tuple[keras.Model, keras.Model]:
    """The model as (trunk, tail) at the output of ``layer``; both share the model's layers.

    ``tail(trunk(pixels))`` is the model's *logit*.
    """
    import keras

    cut = find_layer(model, layer).output
    logit = model.get_layer("logit").output
    return keras.Model(model.input, cut), keras.Model(cut, logit)


def find_layer(model: keras.Model, layer: str) -> keras.layers.Layer:
    """The layer of that name; the stem's last pooling, which Keras leaves unnamed, by place."""
    import keras

    if layer == "stem_pool":
        return [part for part in model.layers if isinstance(part, keras.layers.MaxPooling2D)][1]
    return model.get_layer(layer)


def freeze_below(model: keras.Model, layer: str) -> None:
    """Train only what lies above ``layer``, with batch normalisation in inference mode.

    A pretrained network's moving statistics are better than those of a few small batches; see
    keras.io, *Transfer learning and fine-tuning*.
    """
    import keras

    _, tail = split_at(model, layer) if layer != "pixels" else (None, model)
    above = {id(part) for part in tail.layers}
    for part in model.layers:
        is_norm = isinstance(part, keras.layers.BatchNormalization)
        part.trainable = id(part) in above and not is_norm


def rate_factors(name: ModelName, network: keras.Model, layer_decay: float) -> dict[str, float]:
    """Learning-rate factor by variable path: 1 for the head, times ``layer_decay`` a block down."""
    if layer_decay == 1.0 or not MODELS[name].is_backbone:
        return {}
    ends = {_find_name(network, block): index for index, block in enumerate(MODELS[name].blocks)}
    top = len(MODELS[name].blocks)
    factors, block = {}, 0
    for layer in network.layers:
        depth = 0 if layer.name == "logit" else top - block
        for variable in layer.trainable_variables:
            factors[variable.path] = layer_decay**depth
        if layer.name in ends:
            block = ends[layer.name] + 1
    return factors


def _find_name(network: keras.Model, layer: str) -> str:
    try:
        return find_layer(network, layer).name
    except (ValueError, IndexError):  # below the boundary: not part of this network
        return ""
