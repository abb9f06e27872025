"""All settings of a run as one frozen tree of pydantic models.

Unknown keys are errors, presets are functions, and the whole tree is written into the run
directory as ``config.yaml``, which ``--config`` takes back. :attr:`Config.identity` names what
makes two runs the same run: everything that changes the result except how long to train and where
it runs.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from catdog.config import architectures
from catdog.config.architectures import BACKBONES, MODELS
from catdog.config.groups import (
    AugmentationSettings,
    ComputeSettings,
    DataSettings,
    FineTuneSettings,
    ModelName,
    ScratchSettings,
    Settings,
    WeightsSettings,
)
from catdog.config.spelling import full_path, nearest_settings, setting_paths
from catdog.config.sweep import SweepSettings
from catdog.config.tracking import TrackingSettings
from catdog.errors import UserError, did_you_mean, nearest
from catdog.redact import without_secrets

PresetName = Literal["sample", "laptop", "cluster"]
MODEL_NAMES = architectures.MODEL_NAMES

#: Of a folder's name, with room for what is added to it.
LONGEST_NAME = 200
#: Folders of a storage that belong to no run.
SHARED_FOLDERS = ("datasets", "drawings", "features", "weights")


class Config(Settings):
    """Everything a run is made from."""

    preset: PresetName = Field(
        "sample", description="where the defaults come from; laptop if photos are given"
    )
    name: str | None = Field(
        None, description="the run's name; null: the preset and a hash of the settings"
    )
    storage: str = Field(
        "runs",
        description="folder or URI for prepared photos and runs; default: runs in the project's "
        "folder, in a Ray job ~/catdog-runs",
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="seed of the trainings, the sweep and the drawings"
    )
    seeds: int = Field(
        1, ge=1, le=100, description="train each model this often, with consecutive seeds"
    )
    data: DataSettings = DataSettings()
    models: tuple[ModelName, ...] = Field(MODEL_NAMES, description="the models to train")
    batch_size: int = Field(32, ge=1, description="photos in a step, over all workers")
    weights: dict[ModelName, WeightsSettings] = Field(
        {name: WeightsSettings.of(name) for name in BACKBONES}
    )
    model_image_size: dict[ModelName, int] = Field(
        {},
        description="side in pixels that a model sees, if smaller than data.image_size; the model "
        "resizes the photos itself",
    )
    head_only: tuple[ModelName, ...] = Field(
        (), description="pretrained backbones that get a head and no fine-tuning"
    )
    augmentation: AugmentationSettings = AugmentationSettings()
    scratch: ScratchSettings = ScratchSettings()
    fine_tune: FineTuneSettings = FineTuneSettings()
    sweep: SweepSettings = SweepSettings()
    compute: ComputeSettings = ComputeSettings()
    tracking: TrackingSettings = TrackingSettings()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder_of_its_own(cls, name: str | None) -> str | None:
        parts = (name or "run").split("/")
        if any(part.strip() in ("", ".", "..") for part in parts):
            raise ValueError("a run's name is that of a folder in the storage, without '.' or '..'")
        if not (name or "run").isprintable():
            raise ValueError("a run's name has no line break or other control character")
        if max(len(os.fsencode(part)) for part in parts) > LONGEST_NAME:
            raise ValueError(f"a run's name has {LONGEST_NAME} bytes at most")
        if parts[0] in SHARED_FOLDERS:
            raise ValueError(f"{parts[0]} is a folder that all runs of a storage share")
        return name or None

    @model_validator(mode="after")
    def _models_fit(self) -> Config:
        if not self.models:
            raise ValueError("models: name at least one of " + ", ".join(MODEL_NAMES))
        if len(set(self.models)) != len(self.models):
            raise ValueError("models: a model is named twice")
        for model in self.models:
            size, smallest = self.image_size_of(model), MODELS[model].smallest_image
            if size < smallest:
                raise ValueError(
                    f"image size {size} is too small for {model}, which needs at least {smallest}"
                )
            if size > self.data.image_size:
                raise ValueError(
                    f"model_image_size.{model} is {size}, more than the prepared "
                    f"{self.data.image_size}"
                )
        if self.sweep.model is not None and self.sweep.model not in self.models:
            raise ValueError(f"sweep.model {self.sweep.model} is not among the models of this run")
        return self

    def image_size_of(self, model: ModelName) -> int:
        return self.model_image_size.get(model, self.data.image_size)

    def weights_of(self, model: ModelName) -> WeightsSettings:
        own = WeightsSettings.of(model)
        return self.weights.get(model, own) if model in BACKBONES else own

    def ends_with_probe(self, model: ModelName) -> bool:
        """Whether nothing of ``model`` is fine-tuned, given that it has weights.

        A model that is to be swept is to be fine-tuned, but for a sweep of the head.
        """
        if self.sweep.trials and self.sweep.stage == "head":
            return True
        asked = model in self.head_only and model != self.sweep.model
        return asked or not self.fine_tune.epochs

    @property
    def identity(self) -> str:
        """Hash (12 hex digits) of what makes this the same run.

        Left out: where it runs, is stored and tracked, and how many epochs, trials and seeds it
        may take, so that the same command with more of them goes on with the same run.
        """
        tree = self.model_dump(
            mode="json", exclude={"name", "storage", "compute", "preset", "seeds", "tracking"}
        )
        tree["precision"] = self.compute.precision
        for section in ("scratch", "fine_tune"):
            tree[section].pop("epochs")
        tree["scratch"].pop("backbone_epochs")
        tree["sweep"].pop("trials")
        tree["models"] = sorted(tree["models"])
        return digest(without_secrets(tree))

    @property
    def run_name(self) -> str:
        return self.name or f"{self.preset}-{self.identity[:8]}"

    def to_yaml(self) -> str:
        """All settings as a file that ``--config`` takes, without the keys that URIs may carry."""
        tree = without_secrets(self.model_dump(mode="json"))
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any], origin: str) -> Config:
        """Validate a tree of settings.

        Raises:
            UserError: a key is unknown or a value does not fit; the line names ``origin``.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            line = _explained(error)
            raise UserError(f"{origin}: {line}" if origin else line) from error


def _explained(error: ValidationError) -> str:
    """The first thing wrong with a tree of settings, in one line with the nearest name."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        path = full_path(first["loc"], first["input"])
        near = nearest_settings(path, list(setting_paths(Config)))
        return f"{path}: there is no such setting{did_you_mean(near)}"
    message = first["msg"].removeprefix("Value error, ")
    if not where:
        return message
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']*)'", first["ctx"]["expected"])
        message += did_you_mean(nearest(str(first["input"]), known)).removesuffix("?")
    return f"{where.removesuffix('.[key]')}: {message} (given: {first['input']!r})"


def digest(tree: Any) -> str:
    """Hash of a JSON-able value, 12 hex digits, the same for equal values."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``changes`` replaced, group by group.

    ``model_image_size`` is one value: a config file that names no model in it means none.
    """
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        whole = key == "model_image_size"
        if isinstance(value, Mapping) and isinstance(below, Mapping) and not whole:
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result
