"""Groups of settings: data, weights, augmentation, training, compute.

:class:`catdog.config.Config` puts them together.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from catdog.config import architectures
from catdog.config.architectures import MODELS

InputScale = architectures.InputScale
ModelName = architectures.ModelName
Precision = Literal["auto", "float32", "bfloat16"]


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


class TrainingSettings(Settings):
    """What every training has."""

    weight_decay: float = Field(
        1e-2, ge=0, description="AdamW's weight decay; biases and batch norm have none"
    )
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


class ScratchSettings(TrainingSettings):
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
    label_smoothing: float = Field(
        0.05, ge=0, lt=0.5, description="move labels this far from 0 and 1"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout rate")


class FineTuneSettings(TrainingSettings):
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
    label_smoothing: float = Field(
        0.0, ge=0, lt=0.5, description="move labels this far from 0 and 1"
    )
    dropout: float = Field(0.2, ge=0, lt=1, description="dropout rate before the head")
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
