"""From settings to trainings: which model is trained how, from which rows, from which weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from catdog.config import Config, FineTuneSettings, ModelName, ScratchSettings
from catdog.data.prepare import PreparedSet
from catdog.models.registry import Architecture, boundary
from catdog.models.weights import Weights
from catdog.runs import RunDirectory
from catdog.storage import Location
from catdog.training.job import TrainingJob
from catdog.transfer.features import FeatureRequest, FeatureSet
from catdog.transfer.sweep import Trial, draw_points

#: What a sweep may change; ``unfrozen_blocks`` only where there is something frozen.
SWEPT = ("learning_rate", "unfrozen_blocks", "dropout", "weight_decay")


@dataclass(frozen=True)
class Plan:
    """The settings of a run together with what its stages have found.

    Attributes:
        weights: pretrained weights by backbone; a model without any is trained from scratch.
        best: hyperparameters that the sweep chose, for every model trained the same way.
    """

    config: Config
    run: RunDirectory
    dataset: PreparedSet
    precision: str
    weights: Mapping[ModelName, Weights]
    best: Mapping[str, Any] | None = None
    swept: ModelName | None = None

    def architecture(self, name: ModelName, dropout: float | None = None) -> Architecture:
        return Architecture(
            name=name,
            image_size=self.config.data.image_size,
            look_size=self.config.image_size_of(name),
            scale=self.config.weights_of(name).scale,
            dropout=self.settings(name).dropout if dropout is None else dropout,
        )

    def settings(self, name: ModelName) -> ScratchSettings | FineTuneSettings:
        """How ``name`` is trained in the end, the sweep's choice included."""
        changes = dict(self.best or {}) if self._takes_choice(name) else {}
        if name in self.weights:
            return self.config.fine_tune.model_copy(update=changes)
        scratch = self.config.scratch
        if name != "base_cnn" and scratch.backbone_epochs is not None:
            changes["epochs"] = scratch.backbone_epochs
        return scratch.model_copy(update=changes)

    def _takes_choice(self, name: ModelName) -> bool:
        """A choice for fine-tuning says nothing about training from scratch, and the reverse."""
        if self.best is None or self.swept is None or name == "base_cnn":
            return False
        return (name in self.weights) == (self.swept in self.weights)

    def feature_request(self, name: ModelName) -> FeatureRequest:
        fine_tune, weights = self.config.fine_tune, self.weights[name]
        return FeatureRequest(
            architecture=self.architecture(name),
            backbone=weights.uri,
            weights_hash=weights.hash,
            precision=self.precision,
            views=max(1, fine_tune.views),
            augmentation=fine_tune.augmentation if fine_tune.views > 1 else None,
            seed=self.config.seed,
        )

    def job(self, name: ModelName, features: Mapping[str, FeatureSet]) -> TrainingJob:
        """The training of ``name`` for the comparison; ``features`` by boundary, where kept."""
        return self._job(name, self.settings(name), self.run.model(name), features)

    def boundary_of(self, name: ModelName, settings: ScratchSettings | FineTuneSettings) -> str:
        if isinstance(settings, ScratchSettings):
            return "pixels"
        return boundary(name, settings.unfrozen_blocks)

    def _job(
        self,
        name: ModelName,
        settings: ScratchSettings | FineTuneSettings,
        output: Location,
        features: Mapping[str, FeatureSet],
    ) -> TrainingJob:
        config = self.config
        cut = self.boundary_of(name, settings)
        kept = (
            features.get(cut) if isinstance(settings, FineTuneSettings) and settings.views else None
        )
        fine_tuned = isinstance(settings, FineTuneSettings)
        return TrainingJob(
            output=output.uri,
            architecture=self.architecture(name, settings.dropout),
            phase="finetune" if fine_tuned else "scratch",
            settings=settings,
            batch_size=config.batch_size,
            seed=config.seed,
            dataset=self.dataset.root.uri,
            features=kept.root.uri if kept else None,
            boundary=cut if kept else "pixels",
            freeze_below=cut,
            views=settings.views if kept and isinstance(settings, FineTuneSettings) else 1,
            backbone=self.weights[name].uri if name in self.weights else None,
            head=(self.run.model(name) / "probe.npz").uri if fine_tuned else None,
            augmentation=(
                settings.augmentation
                if isinstance(settings, FineTuneSettings)
                else config.augmentation
            ),
            reproducible=config.compute.reproducible,
            xla=config.compute.xla,
        )

    def trials(self, name: ModelName, features: Mapping[str, FeatureSet]) -> list[Trial]:
        """The points of the sweep of ``name``, the run's own settings first."""
        settings = self.settings(name)
        defaults = {
            key: getattr(settings, key) for key in SWEPT if key in type(settings).model_fields
        }
        epochs = {"epochs": self.config.sweep.epochs}
        trials = []
        for index, point in enumerate(draw_points(self.config.sweep, defaults, self.config.seed)):
            key = f"{index:03d}"
            output = self.run.sweep(name) / "trials" / key
            tried = settings.model_copy(update={**point, **epochs})
            trials.append(Trial(key, point, self._job(name, tried, output, features)))
        return trials
