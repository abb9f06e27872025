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
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from catdog.config import architectures
from catdog.config.architectures import BACKBONES, MODELS
from catdog.config.spelling import full_path, nearest_settings, setting_paths
from catdog.config.sweep import SweepSettings
from catdog.config.tracking import TrackingSettings
from catdog.errors import UserError, did_you_mean, nearest
from catdog.redact import without_secrets

ModelName = architectures.ModelName
PresetName = Literal["sample", "laptop", "cluster"]
InputScale = architectures.InputScale
Precision = Literal["auto", "float32", "bfloat16"]

MODEL_NAMES = architectures.MODEL_NAMES


class Settings(BaseModel):
    """A frozen group of settings in which an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(Settings):
    """The photos and what is made of them before training."""

    source: str | None = Field(
        None,
        description="folder, archive, table or URI with the photos; null: the built-in drawings",
    )
    image_size: int = Field(224, ge=32, le=1024, description="side of the prepared photos, pixels")
    val_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of each class in the validation split"
    )
    test_fraction: float = Field(
        0.1, gt=0, lt=0.5, description="share of each class in the test split"
    )
    max_rejected: float = Field(
        0.2, ge=0, le=1, description="stop if a larger share of the labelled files is rejected"
    )
    min_per_class: int = Field(
        10, ge=1, description="stop if fewer good photos of a class are left"
    )
    drawings: int = Field(480, ge=40, description="number of drawings if there is no source")


class WeightsSettings(Settings):
    """Where a backbone's weights come from and the input scale that belongs to them."""

    source: str = Field(
        "imagenet", description="imagenet, none (train from scratch), or a file or URI"
    )
    scale: InputScale = Field(
        "-1..1", description="range that pixel values are scaled to, as these weights expect it"
    )

    @property
    def pretrained(self) -> bool:
        return self.source != "none"

    @classmethod
    def of(cls, model: ModelName) -> WeightsSettings:
        """ImageNet weights where there are any of ``model``, with their scale."""
        info = MODELS[model]
        return cls(source="imagenet" if info.imagenet else "none", scale=info.scale)


class AugmentationSettings(Settings):
    """Random changes to training photos, on the device; 0 turns a part off, ``none`` all of it."""

    horizontal_flip: bool = Field(True, description="mirror half of the photos")
    rotation: float = Field(0.2, ge=0, le=1, description="largest angle as a share of a full turn")
    zoom: float = Field(
        0.2, ge=0, lt=1, description="largest change of scale, as a share of the photo's size"
    )
    translation: float = Field(
        0.0, ge=0, lt=1, description="largest shift, as a share of width and height"
    )
    brightness: float = Field(
        0.0, ge=0, le=1, description="largest change of brightness, as a share of the value range"
    )
    contrast: float = Field(0.0, ge=0, le=1, description="largest change of contrast, as a share")
    rand_augment: float = Field(0.0, ge=0, le=1, description="strength of RandAugment")
    mixup: float = Field(
        0.0, ge=0, le=1, description="alpha of MixUp, which blends photos and their labels"
    )
    cutmix: float = Field(
        0.0, ge=0, le=1, description="alpha of CutMix, which pastes parts of other photos"
    )

    @model_validator(mode="before")
    @classmethod
    def _none_is_all_off(cls, given: Any) -> Any:
        return cls.all_off() if given in (None, "none") else given

    @classmethod
    def all_off(cls) -> dict[str, Any]:
        """What ``none`` stands for: ``--set augmentation=none``."""
        return dict.fromkeys(cls.model_fields, 0) | {"horizontal_flip": False}

    @property
    def is_off(self) -> bool:
        """Whether every epoch sees the same pixels."""
        return not any(self.model_dump().values())

    def scaled(self, strength: float) -> AugmentationSettings:
        """Every amount times ``strength``, kept below 1; at 0 nothing is left, flips included."""
        amounts = self.model_dump(exclude={"horizontal_flip"})
        changed = {key: min(0.99, amount * strength) for key, amount in amounts.items()}
        flip = self.horizontal_flip and strength > 0
        return AugmentationSettings(horizontal_flip=flip, **changed)


class ScratchSettings(Settings):
    """Training a whole network from random weights. Rates are for the global batch."""

    epochs: int = Field(6, ge=1, description="epochs of training")
    backbone_epochs: int | None = Field(
        None, ge=1, description="epochs of a backbone without weights; null: the same as epochs"
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="peak rate, after warm-up and before the cosine decay to zero"
    )
    warmup_epochs: float = Field(
        1.0, ge=0, description="length of the linear warm-up; at most half of the epochs"
    )
    weight_decay: float = Field(
        1e-2, ge=0, description="AdamW's weight decay; biases and batch norm have none"
    )
    label_smoothing: float = Field(
        0.05, ge=0, lt=0.5, description="move labels this far from 0 and 1"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout rate")
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest norm of the whole gradient; null: no clipping"
    )
    ema_momentum: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="average the weights over steps with this momentum, and evaluate and save the "
        "average; null: no averaging",
    )
    accumulation_steps: int = Field(
        1, ge=1, description="steps whose gradients are averaged for one update"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without improvement; null: never"
    )
    class_weights: bool | None = Field(
        None,
        description="weight the loss so that both classes count the same; null: if one has more "
        "than 1.5 times the photos of the other",
    )


class FineTuneSettings(Settings):
    """Training the upper blocks of a pretrained backbone, after a head on frozen features."""

    epochs: int = Field(
        3, ge=0, description="epochs of fine-tuning; 0: the head on frozen features is the model"
    )
    head: Literal["probe", "zero"] = Field(
        "probe", description="start from the fitted head (probe) or from a head of zeros (zero)"
    )
    learning_rate: float = Field(
        2e-4, gt=0, description="peak rate, after warm-up and before the cosine decay to zero"
    )
    unfrozen_blocks: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        2, description="how many blocks of the backbone are trained, counted from the top"
    )
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate for each block further down"
    )
    warmup_epochs: float = Field(
        0.5, ge=0, description="length of the linear warm-up; at most half of the epochs"
    )
    weight_decay: float = Field(
        1e-2, ge=0, description="AdamW's weight decay; biases and batch norm have none"
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="move labels this far from 0 and 1"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout rate before the head")
    clip_norm: float | None = Field(
        1.0, gt=0, description="largest norm of the whole gradient; null: no clipping"
    )
    ema_momentum: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="average the weights over steps with this momentum, and evaluate and save the "
        "average; null: no averaging",
    )
    accumulation_steps: int = Field(
        1, ge=1, description="steps whose gradients are averaged for one update"
    )
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without improvement; null: never"
    )
    class_weights: bool | None = Field(
        None,
        description="weight the loss so that both classes count the same; null: if one has more "
        "than 1.5 times the photos of the other",
    )
    augmentation: AugmentationSettings = AugmentationSettings(
        rotation=0.03, zoom=0.1, translation=0.1
    )

    @property
    def keeps_activations(self) -> bool:
        """Whether what lies below the unfrozen blocks is computed once: every epoch sees the same
        pixels.
        """
        return self.augmentation.is_off


class ComputeSettings(Settings):
    """Workers, precision and time limits; apart from the precision no part of a run's identity."""

    workers: int = Field(
        2, ge=0, description="number of training workers; 0: one for each GPU, else for each node"
    )
    min_workers: int | None = Field(
        None,
        ge=1,
        description="train with at least this many while there is no room for all; null: only "
        "with all",
    )
    resize_every_s: int = Field(
        60, ge=1, description="with min_workers: seconds between looks for room for more workers"
    )
    use_gpu: bool | None = Field(
        None, description="one GPU for each worker; null: if the cluster has GPUs"
    )
    cpus_per_worker: int | None = Field(
        None, ge=1, description="CPU cores of a worker; null: the cluster's cores, divided evenly"
    )
    precision: Precision = Field(
        "auto",
        description="auto: bfloat16 on GPUs and on CPUs that have instructions for it, else "
        "float32; for efficientnet_lite0 float32 on CPUs",
    )
    reproducible: bool | None = Field(
        None,
        description="the same weights, bit by bit, on any number of workers, proved before each "
        "training; null: on CPUs, for models where it costs little (the base CNN, heads)",
    )
    xla: bool = Field(False, description="compile with XLA; not possible with several CPU workers")
    max_restarts: int = Field(
        3, ge=0, description="how often a training is restarted after a worker failed or was lost"
    )
    stall_limit_s: int = Field(
        600, ge=10, description="seconds without a step after which a worker counts as hung"
    )

    @model_validator(mode="after")
    def _range_is_one(self) -> ComputeSettings:
        if self.workers and self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        return self


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
    weights: dict[ModelName, WeightsSettings] = {
        name: WeightsSettings.of(name) for name in BACKBONES
    }
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
