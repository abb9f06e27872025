"""Settings that belong together: a laptop's three minutes, its hour, and a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from catdog.config import (
    AugmentationSettings,
    ComputeSettings,
    Config,
    DataSettings,
    FineTuneSettings,
    ScratchSettings,
    merged,
)
from catdog.config.sweep import SweepSettings

OFF = AugmentationSettings.all_off()


def sample() -> Config:
    """The built-in drawings at 96 pixels: every stage of the job in three minutes on a laptop."""
    return Config(
        preset="sample",
        data=DataSettings(image_size=96, drawings=480, val_fraction=0.15, test_fraction=0.2),
        batch_size=16,
        model_image_size={"resnet50v2": 64},
        # What would take minutes to fine-tune ends with a head on features computed once.
        head_only=("resnet50v2", "inception_v3"),
        augmentation=AugmentationSettings(rotation=0.05, zoom=0.1),
        scratch=ScratchSettings(epochs=4, backbone_epochs=2),
        # Without augmentation all that is below the trained blocks is computed once, too.
        fine_tune=FineTuneSettings(
            epochs=2, unfrozen_blocks=1, augmentation=AugmentationSettings(**OFF)
        ),
        # Trials that differ in numbers alone, and all have some dropout, share one traced step.
        sweep=SweepSettings(
            model="efficientnet_lite0",
            trials=3,
            epochs=2,
            unfrozen_blocks=(1,),
            dropout=(0.1, 0.2, 0.4),
        ),
    )


def laptop() -> Config:
    """Some thousand photos on two cores, in less than an hour and a half."""
    return Config(
        preset="laptop",
        data=DataSettings(image_size=224),
        batch_size=32,
        model_image_size={"base_cnn": 128, "resnet50v2": 96, "inception_v3": 160},
        augmentation=AugmentationSettings(rotation=0.04, zoom=0.15, translation=0.1, contrast=0.2),
        scratch=ScratchSettings(
            epochs=45, backbone_epochs=3, weight_decay=0.05, ema_momentum=0.995
        ),
        fine_tune=FineTuneSettings(epochs=6, unfrozen_blocks="all", ema_momentum=0.98),
        sweep=SweepSettings(
            trials=4, epochs=2, learning_rate=(5e-5, 5e-4), unfrozen_blocks=(4, 8, "all")
        ),
    )


def cluster() -> Config:
    """All of a cluster, 224 pixels, to convergence."""
    return Config(
        preset="cluster",
        data=DataSettings(image_size=224),
        batch_size=256,
        augmentation=AugmentationSettings(rotation=0.04, zoom=0.15, translation=0.1, contrast=0.2),
        scratch=ScratchSettings(epochs=90, patience=15, ema_momentum=0.999),
        fine_tune=FineTuneSettings(epochs=20, patience=5),
        sweep=SweepSettings(trials=16, epochs=8),
        compute=ComputeSettings(workers=0),
    )


PRESETS = {"sample": sample, "laptop": laptop, "cluster": cluster}


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``tree`` of settings with ``changes``, before which what a preset says beside them gives way.

    One image size is that of all models; epochs are those of backbones too; who asks for epochs of
    fine-tuning wants no heads alone; and what is said of models that are left out goes.
    """
    result = merged(tree, changes)
    of = {group: changes.get(group) or {} for group in ("data", "scratch", "fine_tune", "sweep")}
    if "image_size" in of["data"] and "model_image_size" not in changes:
        result["model_image_size"] = {}
    if "epochs" in of["scratch"] and "backbone_epochs" not in of["scratch"]:
        result["scratch"] = result["scratch"] | {"backbone_epochs": None}
    if "epochs" in of["fine_tune"] and "head_only" not in changes:
        result["head_only"] = []
    if models := changes.get("models"):
        sizes = result["model_image_size"].items()
        result["model_image_size"] = {name: size for name, size in sizes if name in models}
        if "model" not in of["sweep"] and result["sweep"]["model"] not in models:
            result["sweep"] = result["sweep"] | {"model": None}
    return result
