"""Every model stands the same battery, also one that is added with one entry of the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from catdog.config import Config
from catdog.config.architectures import MODELS, ModelInfo, ModelName
from catdog.presets import sample

from .battery import stand_the_battery

ADDED = ModelInfo(
    title="EfficientNetV2B0",
    network="keras.applications:EfficientNetV2B0",
    smallest_image=32,
    gradcam_layer="top_activation",
    training_ms=40.0,
    blocks=(
        "stem_activation",
        "block1a_project_activation",
        "block2b_add",
        "block3b_add",
        "block4c_add",
        "block5e_add",
        "block6h_add",
        "top_activation",
    ),
    imagenet="keras",
    # Its first layers scale the pixels.
    scale="0..255",
)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_stands_the_battery(name: ModelName, tmp_path: Path) -> None:
    stand_the_battery(name, tmp_path)


def test_a_backbone_is_added_with_one_entry(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = "efficientnetv2b0"
    monkeypatch.setitem(MODELS, name, ADDED)
    tree = sample().model_dump(mode="json")
    tree |= {"models": [name], "sweep": tree["sweep"] | {"model": name}}
    tree["weights"] = {name: {"source": "imagenet", "scale": "0..255"}}
    assert Config.from_tree(tree, "").models == (name,)
    stand_the_battery(name, tmp_path)
