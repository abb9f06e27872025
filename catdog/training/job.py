"""What one training is, as plain values that travel to the workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from catdog.config import (
    AugmentationSettings,
    FineTuneSettings,
    ModelName,
    Precision,
    ScratchSettings,
    digest,
)
from catdog.errors import UserError
from catdog.models.registry import Architecture
from catdog.runs import TrainingId
from catdog.runs.records import Training
from catdog.storage import Location

Phase = Literal["scratch", "probe", "finetune"]

#: Another number for another way to draw at random: no training goes on with other draws.
HOW_IT_DRAWS = 2

#: In a job's folder, once it is trained; and once its model has the head of the probe.
DONE, PROBED = "trained.json", "probed.json"


@dataclass(frozen=True)
class TrainingJob:
    """One model to train in one phase.

    Attributes:
        output: URI of the folder for checkpoints, history and the model.
        boundary: the layer where rows enter the model; ``pixels`` for photos.
        dataset: URI of the prepared set, whose rows are raw pixels.
        photos: the identity of that set, which moving or copying the photos does not change.
        features: URI of kept activations at ``boundary``, the rows instead of pixels.
        freeze_below: layer under which nothing is trained; ``pixels`` trains everything.
        backbone: URI of the backbone's weights (``.npz``), for a pretrained one.
        head: URI of the probe's head, which fine-tuning starts from.
        reproducible: the same bits on any number of workers; none: where it is cheap.
        augmentation: applied to pixel rows; ``None`` for none.
        training: which one of its run it is; none for a trial of a sweep.
        keep_model: write ``model.keras``, which nobody needs of a trial.
    """

    output: str
    architecture: Architecture
    phase: Phase
    settings: ScratchSettings | FineTuneSettings
    batch_size: int
    seed: int
    dataset: str
    photos: str
    features: str | None = None
    boundary: str = "pixels"
    freeze_below: str = "pixels"
    backbone: str | None = None
    head: str | None = None
    augmentation: AugmentationSettings | None = None
    precision: Precision = "auto"
    reproducible: bool | None = None
    xla: bool = False
    training: TrainingId | None = None
    keep_model: bool = True

    @property
    def name(self) -> ModelName:
        return self.architecture.name

    @property
    def done(self) -> Location:
        """The file that says that it is done: fine-tuning follows the probe in the same folder."""
        return Location.of(self.output) / (PROBED if self.phase == "probe" else DONE)

    @property
    def title(self) -> str:
        """For people and events: the model, and the seed of a repeat."""
        return str(self.training or self.name)

    @property
    def applied_augmentation(self) -> AugmentationSettings | None:
        """``None`` where rows are kept activations, which nothing augments."""
        return self.augmentation if self.boundary == "pixels" else None

    @property
    def draws(self) -> bool:
        """Whether workers draw at random as they train: dropout, or augmentation of pixels."""
        augmentation = self.applied_augmentation
        augments = augmentation is not None and not augmentation.is_off
        return augments or self.architecture.dropout > 0

    @property
    def identity(self) -> str:
        """Hash of what a checkpoint must agree with; more epochs may follow a checkpoint."""
        settings = self.settings.model_dump(mode="json", exclude={"epochs", "backbone_epochs"})
        augmentation = self.augmentation.model_dump(mode="json") if self.augmentation else None
        # Kept activations are named by the photos' contents and what was computed from them.
        rows = (self.features or self.photos).partition("?")[0].rpartition("/")[2]
        facts: list[Any] = [
            vars(self.architecture),
            self.phase,
            settings,
            self.batch_size,
            self.seed,
            rows,
        ]
        # The file of weights is named by their hash.
        weights = (self.backbone or "").partition("?")[0].rpartition("/")[2]
        facts += [weights, self.boundary, self.freeze_below, augmentation]
        return digest([*facts, HOW_IT_DRAWS] if self.draws else facts)


def is_done(job: TrainingJob) -> bool:
    """Whether ``job`` was trained already, to as many epochs as are asked for now.

    Raises:
        UserError: its folder holds a training with other settings.
    """
    done = read_done(job)
    if done is None:
        return False
    if done.identity != job.identity:
        raise UserError(
            f"{job.output} holds {job.name} trained with other settings; give another --name"
        )
    return done.epochs_asked >= job.settings.epochs


def read_done(job: TrainingJob) -> Training | None:
    try:
        return Training.fitted(job.done.read_json())[0]
    except FileNotFoundError:
        return None
