"""All settings of a run as one frozen tree.

Unknown keys are errors, presets are functions, and the whole tree is written into the run
directory as ``config.yaml``, which ``--config`` takes back. :attr:`Config.identity` names what
makes two runs the same run: everything that changes the result except how long to train and where
it runs.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
    source: str | None = Field(None, description="photos; none: the built-in drawings")
    image_size: int = Field(224, ge=32, le=1024, description="side of the prepared squares, pixels")
    val_fraction: float = Field(0.1, gt=0, lt=0.5)
    test_fraction: float = Field(0.1, gt=0, lt=0.5)
    max_rejected: float = Field(0.2, ge=0, le=1, description="stop above this share of bad files")
    min_per_class: int = Field(10, ge=1)
    drawings: int = Field(480, ge=40, description="how many pictures to draw without a source")


class WeightsSettings(Settings):
    """Where a backbone's weights come from and the input scale that belongs to them."""

    source: str = Field("imagenet", description="imagenet, none, or a file or URI")
    scale: InputScale = "-1..1"

    @property
    def pretrained(self) -> bool:
        return self.source != "none"

    @classmethod
    def of(cls, model: ModelName) -> WeightsSettings:
        """ImageNet weights where there are any of ``model``, with their scale."""
        info = MODELS[model]
        return cls(source="imagenet" if info.imagenet else "none", scale=info.scale)


class AugmentationSettings(Settings):
    """Applied to training pictures only, on the device; 0 turns a part off."""

    horizontal_flip: bool = True
    rotation: float = Field(0.2, ge=0, le=1, description="largest angle as a share of a full turn")
    zoom: float = Field(0.2, ge=0, lt=1)
    translation: float = Field(0.0, ge=0, lt=1)
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    rand_augment: float = Field(0.0, ge=0, le=1, description="strength of RandAugment")
    mixup: float = Field(0.0, ge=0, le=1, description="alpha of MixUp: blends photos and labels")
    cutmix: float = Field(0.0, ge=0, le=1, description="alpha of CutMix: pastes parts of photos")

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

    epochs: int = Field(6, ge=1)
    backbone_epochs: int | None = Field(
        None, ge=1, description="epochs of a backbone without weights; none: the same"
    )
    learning_rate: float = Field(1e-3, gt=0)
    warmup_epochs: float = Field(1.0, ge=0)
    weight_decay: float = Field(1e-2, ge=0)
    label_smoothing: float = Field(0.05, ge=0, lt=0.5)
    dropout: float = Field(0.2, ge=0, lt=1)
    clip_norm: float | None = Field(1.0, gt=0, description="norm of the whole gradient")
    ema_momentum: float | None = Field(
        None, gt=0, lt=1, description="average the weights over steps; the average is what is kept"
    )
    accumulation_steps: int = Field(1, ge=1)
    patience: int | None = Field(None, ge=1, description="stop after so many epochs without gain")
    class_weights: bool | None = Field(
        None, description="let classes count alike; none: where one is over 1.5 times the other"
    )


class FineTuneSettings(Settings):
    """The upper blocks of a pretrained backbone, from a head fitted on frozen features."""

    epochs: int = Field(3, ge=0, description="0: the probe is the model")
    head: Literal["probe", "zero"] = Field("probe", description="what the head starts from")
    learning_rate: float = Field(2e-4, gt=0)
    unfrozen_blocks: Annotated[int, Field(ge=0)] | Literal["all"] = Field(
        2, description="blocks of the backbone, from top"
    )
    layer_decay: float = Field(1.0, gt=0, le=1, description="rate factor from a block to the lower")
    warmup_epochs: float = Field(0.5, ge=0)
    weight_decay: float = Field(1e-2, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    dropout: float = Field(0.2, ge=0, lt=1)
    clip_norm: float | None = Field(1.0, gt=0)
    ema_momentum: float | None = Field(None, gt=0, lt=1)
    accumulation_steps: int = Field(1, ge=1)
    patience: int | None = Field(None, ge=1)
    class_weights: bool | None = None
    augmentation: AugmentationSettings = AugmentationSettings(
        rotation=0.03, zoom=0.1, translation=0.1
    )
    views: int = Field(
        0,
        ge=0,
        description="fixed views kept per photo, the first as it is, the others augmented; 0: "
        "augment the pixels each epoch. Without augmentation there is always one",
    )

    @property
    def kept_views(self) -> int:
        """Rows of a photo below the unfrozen blocks, computed once; 0: new ones each epoch."""
        return 1 if self.augmentation.is_off else self.views


class ComputeSettings(Settings):
    workers: int = Field(2, ge=0, description="training workers; 0: all GPUs, else all nodes")
    min_workers: int | None = Field(
        None, ge=1, description="train with as few while nodes are missing; none: with all or not"
    )
    resize_every_s: int = Field(
        60, ge=1, description="with min_workers: how often to look for nodes that have joined"
    )
    use_gpu: bool | None = Field(None, description="none: GPUs where there are any")
    cpus_per_worker: int | None = Field(
        None, ge=1, description="none: what the cluster has, shared"
    )
    precision: Precision = "auto"
    reproducible: bool | None = Field(
        None,
        description="the same bits on any number of workers, proved before each training; none: on "
        "CPUs, for networks small enough that it costs little (the base CNN, heads)",
    )
    xla: bool = Field(False, description="compile with XLA; not on several CPU workers")
    max_restarts: int = Field(3, ge=0)
    stall_limit_s: int = Field(600, ge=10, description="a step that takes longer is a hang")

    @model_validator(mode="after")
    def _range_is_one(self) -> ComputeSettings:
        if self.workers and self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        return self


class Config(Settings):
    """Everything a run is made from."""

    preset: PresetName = "sample"
    name: str | None = None
    storage: str = "runs"
    seed: int = Field(0, ge=0, lt=2**31)
    seeds: int = Field(1, ge=1, le=100, description="final trainings of each model, one seed each")
    data: DataSettings = DataSettings()
    models: tuple[ModelName, ...] = MODEL_NAMES
    batch_size: int = Field(32, ge=1, description="global: over all workers")
    weights: dict[ModelName, WeightsSettings] = {
        name: WeightsSettings.of(name) for name in BACKBONES
    }
    model_image_size: dict[ModelName, int] = Field(
        {}, description="side at which a model looks; it shrinks the prepared squares itself"
    )
    head_only: tuple[ModelName, ...] = Field(
        (), description="backbones with weights that end with their probe, nothing fine-tuned"
    )
    augmentation: AugmentationSettings = AugmentationSettings()
    scratch: ScratchSettings = ScratchSettings()
    fine_tune: FineTuneSettings = FineTuneSettings()
    sweep: SweepSettings = SweepSettings()
    compute: ComputeSettings = ComputeSettings()
    tracking: TrackingSettings = TrackingSettings()

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
