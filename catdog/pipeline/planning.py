"""Plan the trainings of a run: which model, from which rows and weights, with which settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from catdog.config import Config, FineTuneSettings, ModelName, ScratchSettings
from catdog.config.architectures import MODELS
from catdog.data.prepare import PreparedSet
from catdog.models.registry import Architecture, boundary
from catdog.models.weights import Weights
from catdog.runs import RunDirectory, TrainingId
from catdog.runs.records import Point
from catdog.storage import Location
from catdog.training.job import TrainingJob
from catdog.transfer.features import FeatureRequest, FeatureSet
from catdog.transfer.search import Search, with_point

#: The head alone, as the probe has fitted it.
NO_FINE_TUNING: dict[str, Any] = {"epochs": 0, "head": "probe", "unfrozen_blocks": 0}


@dataclass(frozen=True)
class Plan:
    """The settings of a run together with what its stages have found.

    Attributes:
        weights: pretrained weights by backbone; a model without any is trained from scratch.
        probed: validation accuracy of each probe.
        best: hyperparameters that the sweep chose, for every model trained the same way.
    """

    config: Config
    run: RunDirectory
    dataset: PreparedSet
    precision: str
    weights: dict[ModelName, Weights]
    best: Point | None = None
    swept: ModelName | None = None
    probed: dict[ModelName, float] = field(default_factory=dict)

    def architecture(self, name: ModelName, dropout: float | None = None) -> Architecture:
        return Architecture(
            name=name,
            image_size=self.config.data.image_size,
            model_image_size=self.config.image_size_of(name),
            scale=self.config.weights_of(name).scale,
            dropout=self.settings(name).dropout if dropout is None else dropout,
            early=name in self.weights and self.weights[name].is_random,
        )

    def settings(self, name: ModelName) -> ScratchSettings | FineTuneSettings:
        """How ``name`` is trained in the end, the sweep's choice included."""
        if self.is_head_alone(name):
            return self.config.fine_tune.model_copy(update=NO_FINE_TUNING)
        best = self.best if self._takes_choice(name) else None
        if name in self.weights:
            return self.config.fine_tune if best is None else self.tried(name, best)
        scratch = self.config.scratch
        if MODELS[name].is_backbone and scratch.backbone_epochs is not None:
            scratch = scratch.model_copy(update={"epochs": scratch.backbone_epochs})
        return with_point(scratch, best or {})

    def in_order_of_cost(self) -> list[ModelName]:
        """The models of the run; what takes seconds comes before what takes minutes."""
        return sorted(self.config.models, key=self._training_cost)

    def probes_in_order(self) -> list[ModelName]:
        """The backbones that get a probe: those with trained weights first, the cheapest of all."""
        return sorted(self.weights, key=lambda n: (self.weights[n].is_random, self._photo_cost(n)))

    def _training_cost(self, name: ModelName) -> float:
        return self.settings(name).epochs * self._photo_cost(name)

    def _photo_cost(self, name: ModelName) -> float:
        return float(MODELS[name].training_ms * self.config.image_size_of(name) ** 2)

    def swept_by_default(self) -> ModelName | None:
        """The backbone with the best probe of those that are fine-tuned; else one from scratch."""
        tuned = [name for name in self.probed if not self.is_head_alone(name)]
        if self.config.sweep.stage == "head":
            tuned = list(self.probed)
        scratch = [n for n in self.config.models if MODELS[n].is_backbone and n not in self.weights]
        ranked = sorted(tuned, key=lambda name: self.probed[name], reverse=True)
        return next(iter([*ranked, *scratch]), None)

    def is_head_alone(self, name: ModelName) -> bool:
        """Whether ``name`` ends with its probe: as asked, or as its features are random anyway."""
        weights = self.weights.get(name)
        return weights is not None and (weights.is_random or self.config.ends_with_probe(name))

    def tried(self, name: ModelName, point: Point) -> ScratchSettings | FineTuneSettings:
        """The settings of ``name`` at a point of the sweep, as many epochs as in the end."""
        if name not in self.weights:
            return with_point(self.config.scratch, point)
        if self.config.sweep.stage == "head":  # the probe is the best of what it tries
            return self.config.fine_tune.model_copy(update=NO_FINE_TUNING)
        return with_point(self.config.fine_tune, point)

    def _takes_choice(self, name: ModelName) -> bool:
        """A choice for fine-tuning says nothing about training from scratch, and the reverse."""
        if self.best is None or self.swept is None or not MODELS[name].is_backbone:
            return False
        if self.is_head_alone(name):
            return False
        return (name in self.weights) == (self.swept in self.weights)

    def feature_request(self, name: ModelName) -> FeatureRequest:
        weights = self.weights[name]
        return FeatureRequest(
            architecture=self.architecture(name),
            backbone=weights.uri,
            weights_hash=weights.hash,
            precision=self.precision,
        )

    def job(self, name: ModelName, features: Mapping[str, FeatureSet]) -> TrainingJob:
        """The training of ``name`` for the comparison; ``features`` by boundary, where kept."""
        job = self._job(name, self.settings(name), self.run.model(name), features)
        return replace(job, training=TrainingId(name))

    def probe_job(self, name: ModelName) -> TrainingJob:
        """The model of ``name`` with its probe for a head, nothing trained."""
        settings = self.config.fine_tune.model_copy(update=NO_FINE_TUNING)
        job = self._job(name, settings, self.run.model(name), {})
        return replace(job, training=TrainingId(name))

    def repeats(self, job: TrainingJob) -> list[TrainingJob]:
        """The same training with the other seeds that are asked for."""
        first = self.config.seed
        repeats = []
        for seed in range(first + 1, first + self.config.seeds):
            training = TrainingId(job.name, seed)
            output = self.run.training(training).uri
            repeats.append(replace(job, seed=seed, output=output, training=training))
        return repeats

    def boundary_of(self, name: ModelName, settings: ScratchSettings | FineTuneSettings) -> str:
        if isinstance(settings, ScratchSettings):
            return "pixels"
        return boundary(name, settings.unfrozen_blocks)

    def kept_cuts(
        self, name: ModelName, trainings: Iterable[ScratchSettings | FineTuneSettings]
    ) -> set[str]:
        """Boundaries whose activations ``trainings`` start from, computed once and kept."""
        cuts = {
            self.boundary_of(name, settings)
            for settings in trainings
            if isinstance(settings, FineTuneSettings) and settings.epochs
            if settings.keeps_activations
        }
        return cuts - {"pixels"}

    def _job(
        self,
        name: ModelName,
        settings: ScratchSettings | FineTuneSettings,
        output: Location,
        features: Mapping[str, FeatureSet],
    ) -> TrainingJob:
        config = self.config
        cut = self.boundary_of(name, settings)
        fine_tuned = isinstance(settings, FineTuneSettings)
        kept = features.get(cut) if self.kept_cuts(name, [settings]) else None
        return TrainingJob(
            output=output.uri,
            architecture=self.architecture(name, settings.dropout),
            phase=("finetune" if settings.epochs else "probe") if fine_tuned else "scratch",
            settings=settings,
            batch_size=config.batch_size,
            seed=config.seed,
            dataset=self.dataset.root.uri,
            photos=self.dataset.identity,
            features=kept.root.uri if kept else None,
            boundary=cut if kept else "pixels",
            freeze_below=cut,
            backbone=self.weights[name].uri if name in self.weights else None,
            head=self._head(name, settings),
            augmentation=(
                settings.augmentation
                if isinstance(settings, FineTuneSettings)
                else config.augmentation
            ),
            reproducible=config.compute.reproducible,
            xla=config.compute.xla,
        )

    def _head(self, name: ModelName, settings: ScratchSettings | FineTuneSettings) -> str | None:
        """URI of the head to start from: the probe's, or zeros."""
        if not isinstance(settings, FineTuneSettings):
            return None
        file = {"probe": "probe.npz", "zero": "zero.npz"}[settings.head]
        return (self.run.model(name) / file).uri

    def search(self, name: ModelName) -> Search:
        """How the sweep of ``name`` chooses points; the run's own settings are the first."""
        config, settings = self.config, self.tried(name, {})
        first: Point = {"learning_rate": settings.learning_rate}
        if isinstance(settings, FineTuneSettings):
            first["unfrozen_blocks"] = settings.unfrozen_blocks
        for key in ("dropout", "weight_decay", "label_smoothing"):
            first[key] = getattr(settings, key)
        # Kept rows are what they are: a strength would need an extraction of its own.
        if isinstance(settings, FineTuneSettings) and not settings.keeps_activations:
            first["augmentation_strength"] = 1.0
        return Search.of(config.sweep, first, config.seed)

    def trial(
        self, name: ModelName, features: Mapping[str, FeatureSet], point: Point, output: Location
    ) -> TrainingJob:
        """The training that tries ``point``, its files below ``output``."""
        epochs = {"epochs": self.config.sweep.epochs}
        settings = self.tried(name, point).model_copy(update=epochs)
        return replace(self._job(name, settings, output, features), keep_model=False)
