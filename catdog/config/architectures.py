"""The models by name: all that is known of each without building it.

One table, which settings, flags, estimates, Grad-CAM and the report read. It imports neither
TensorFlow nor anything of this package; :mod:`catdog.models.registry` builds the models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ModelName = Literal["base_cnn", "resnet50v2", "inception_v3", "efficientnet_lite0"]
Backbone = Literal["resnet50v2", "inception_v3", "efficientnet_lite0"]

#: The range that pixels 0..255 are scaled to: it belongs to the weights.
InputScale = Literal["0..255", "0..1", "-1..1", "-127/128..1"]


@dataclass(frozen=True)
class ModelInfo:
    """One model.

    Attributes:
        title: its name in the report.
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
    smallest_image: int
    gradcam_layer: str
    training_ms: float
    blocks: tuple[str, ...] = ()
    imagenet: Literal["keras", "package"] | None = None
    scale: InputScale = "-1..1"
    early_layer: str = ""
    cpu_precision: Literal["float32", "bfloat16"] = "bfloat16"


#: In the order of tables and reports. Costs: in bfloat16 on an AMD EPYC (2026-11-22);
#: EfficientNet-Lite0 in float32 on a CPU with AMX, from an epoch of 2,400 photos of 224 pixels
#: (142 s on two cores).
MODELS: dict[ModelName, ModelInfo] = {
    "base_cnn": ModelInfo(
        title="Base CNN", smallest_image=96, gradcam_layer="relu5", training_ms=29.0
    ),
    "resnet50v2": ModelInfo(
        title="ResNet50V2",
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
        smallest_image=75,
        gradcam_layer="mixed10",
        training_ms=62.0,
        blocks=("stem_pool", *(f"mixed{index}" for index in range(11))),
        imagenet="keras",
        early_layer="mixed0",
    ),
    "efficientnet_lite0": ModelInfo(
        title="EfficientNet-Lite0",
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

MODEL_NAMES: tuple[ModelName, ...] = tuple(MODELS)
#: Those that can start from pretrained weights.
BACKBONES: tuple[ModelName, ...] = tuple(name for name in MODELS if MODELS[name].imagenet)
