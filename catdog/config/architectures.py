"""Table of models: facts about each that are needed without building it.

Settings, flags, estimates, Grad-CAM and the report read it. It imports neither TensorFlow nor
anything of this package; :mod:`catdog.models.registry` builds the models. A new backbone is one
entry here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, WithJsonSchema

#: The range that pixels 0..255 are scaled to: it belongs to the weights.
InputScale = Literal["0..255", "0..1", "-1..1", "-127/128..1"]


@dataclass(frozen=True)
class ModelInfo:
    """One model.

    Attributes:
        title: its name in the report.
        network: the function that builds it, ``module:name``. That of a backbone takes what
            those of :mod:`keras.applications` take; that of a model which is always trained from
            scratch takes a tensor and the dropout rate, and returns features.
        smallest_image: smallest picture side in pixels that leaves every layer something to see.
        gradcam_layer: the last activations with a place in the picture.
        training_ms: milliseconds of one CPU core for one photo of 128 x 128 pixels in training,
            forward and back. They make an estimate and an order, not a promise.
        blocks: the last layer of each block, bottom to top, the stem first; training the upper
            ``k`` blocks starts from the output of the block below them. Empty where the model is
            always trained whole.
        imagenet: where its ImageNet weights come from: ``keras`` downloads them, ``package`` is an
            installed one; ``None`` for a model that is always trained from scratch.
        scale: what its ImageNet weights were trained with.
        early_layer: the features of random weights, where there are no trained ones. What a random
            network tells of a picture is gone further up: on the drawings a head on 200 of them
            reached 0.81 (ResNet50V2) and 0.79 (InceptionV3) from here, 0.55 from the last block.
        cpu_precision: what ``precision: auto`` is on a CPU with bfloat16 instructions.
    """

    title: str
    network: str
    smallest_image: int
    gradcam_layer: str
    training_ms: float
    blocks: tuple[str, ...] = ()
    imagenet: Literal["keras", "package"] | None = None
    scale: InputScale = "-1..1"
    early_layer: str = ""
    cpu_precision: Literal["float32", "bfloat16"] = "bfloat16"

    @property
    def is_backbone(self) -> bool:
        """Whether it can start from pretrained weights."""
        return self.imagenet is not None


#: In the order of tables and reports. Costs: in bfloat16 on an AMD EPYC (2026-11-22);
#: EfficientNet-Lite0 in float32 on a CPU with AMX, from an epoch of 2,400 photos of 224 pixels
#: (142 s on two cores).
MODELS: dict[str, ModelInfo] = {
    "base_cnn": ModelInfo(
        title="Base CNN",
        network="catdog.models.base_cnn:features",
        smallest_image=96,
        gradcam_layer="relu5",
        training_ms=29.0,
    ),
    "resnet50v2": ModelInfo(
        title="ResNet50V2",
        network="keras.applications:ResNet50V2",
        smallest_image=32,
        gradcam_layer="post_relu",
        training_ms=85.0,
        blocks=(
            "pool1_pool",
            "conv2_block3_out",
            "conv3_block4_out",
            "conv4_block6_out",
            "post_relu",
        ),
        imagenet="keras",
        early_layer="pool1_pool",
    ),
    "inception_v3": ModelInfo(
        title="InceptionV3",
        network="keras.applications:InceptionV3",
        smallest_image=75,
        gradcam_layer="mixed10",
        training_ms=62.0,
        blocks=("stem_pool", *(f"mixed{index}" for index in range(11))),
        imagenet="keras",
        early_layer="mixed0",
    ),
    "efficientnet_lite0": ModelInfo(
        title="EfficientNet-Lite0",
        network="catdog.models.efficientnet:backbone",
        smallest_image=32,
        gradcam_layer="top_relu",
        training_ms=39.0,
        blocks=(
            "stem_relu",
            "block1a_project_bn",
            "block2b_add",
            "block3b_add",
            "block4c_add",
            "block5c_add",
            "block6d_add",
            "top_relu",
        ),
        imagenet="package",
        scale="-127/128..1",
        # Its depthwise convolutions have no fast kernel in bfloat16: 77 photos/s of 224 pixels
        # forward in float32 and 29 in bfloat16, on two cores with AMX.
        cpu_precision="float32",
    ),
}


def _known(name: str) -> str:
    return _one_of(name, MODELS)


def _known_backbone(name: str) -> str:
    return _one_of(name, [each for each, info in MODELS.items() if info.is_backbone])


def _one_of(name: str, names: Iterable[str]) -> str:
    known = list(names)
    if name in known:
        return name
    near = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
    raise ValueError(f"there is no such model; {hint}")


#: A key of :data:`MODELS`, and one of a model that can start from pretrained weights.
ModelName = Annotated[
    str, AfterValidator(_known), WithJsonSchema({"type": "string", "enum": list(MODELS)})
]
MODEL_NAMES: tuple[ModelName, ...] = tuple(MODELS)
BACKBONES: tuple[ModelName, ...] = tuple(n for n, info in MODELS.items() if info.is_backbone)
Backbone = Annotated[
    str, AfterValidator(_known_backbone), WithJsonSchema({"type": "string", "enum": [*BACKBONES]})
]
