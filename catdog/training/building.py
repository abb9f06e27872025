"""Build what a training starts from: the network with its weights, the optimizer, the step.

The numbers of a step are variables that it reads: TensorFlow takes seconds to trace one, and trials
of a sweep that differ in numbers alone share a trace. The learning rate is a variable of the
optimizer anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import keras
import tensorflow as tf

from catdog.data.shards import Rows
from catdog.models import registry
from catdog.models.weights import load_backbone, unpack
from catdog.storage import Location
from catdog.training.augmentation import make_augmentation, make_mixing
from catdog.training.inputs import class_weights
from catdog.training.job import TrainingJob
from catdog.training.optimization import make_optimizer
from catdog.training.progress import Rank
from catdog.training.step import GlobalStep

#: Settings that are read by the step, or by the loop around it.
NUMBERS = {
    "learning_rate": 1.0,
    "warmup_epochs": 0.0,
    "epochs": 1,
    "patience": None,
    "weight_decay": 0.0,
    "label_smoothing": 0.0,
}


@dataclass(frozen=True)
class Knobs:
    """Scalars: weight decay float32; label smoothing and the rate of dropout float64."""

    weight_decay: tf.Variable
    label_smoothing: tf.Variable
    dropout: tf.Variable

    @classmethod
    def of(cls, job: TrainingJob) -> Knobs:
        knobs = cls(*(tf.Variable(0.0, dtype=kind) for kind in (tf.float32, *(tf.float64,) * 2)))
        knobs.turn(job)
        return knobs

    def turn(self, job: TrainingJob) -> None:
        """Take the numbers of ``job``."""
        self.weight_decay.assign(job.settings.weight_decay)
        self.label_smoothing.assign(job.settings.label_smoothing)
        self.dropout.assign(job.architecture.dropout)


def traced_alike(job: TrainingJob) -> TrainingJob:
    """Equal for jobs whose traces are the same. No dropout at all is another trace than some."""
    settings = job.settings.model_copy(update=NUMBERS | {"dropout": 0.0})
    architecture = replace(job.architecture, dropout=float(job.architecture.dropout > 0))
    return replace(
        job,
        settings=settings,
        architecture=architecture,
        output="",
        training=None,
    )


def make_step(
    job: TrainingJob,
    rank: Rank,
    network: keras.Model,
    row_dtype: Any,
    weights: tuple[float, float] | None,
    knobs: Knobs,
    *,
    exact: bool,
) -> GlobalStep:
    """The step of ``network`` with an optimizer of its own, both built."""
    asked = job.applied_augmentation
    decay = getattr(job.settings, "layer_decay", 1.0)
    optimizer = make_optimizer(
        job.settings, registry.rate_factors(job.architecture.name, network, decay)
    )
    optimizer.build(network.trainable_variables)
    optimizer.weight_decay = knobs.weight_decay
    return GlobalStep(
        rank.strategy,
        network,
        optimizer,
        make_augmentation(asked),
        label_smoothing=knobs.label_smoothing,
        row_dtype=row_dtype,
        mixing=make_mixing(asked),
        class_weights=weights,
        reproducible=exact,
        seed=job.seed,
        dropout=knobs.dropout,
    )


def weights_of_classes(job: TrainingJob, rank: Rank, rows: Rows) -> tuple[float, float] | None:
    found = class_weights(rows.labels, job.settings.class_weights)
    if found is not None:
        cat, dog = found
        rank.say(f"{job.name}: in the loss a cat counts {cat:.2f} and a dog {dog:.2f}")
    return found


def load_start(model: keras.Model, job: TrainingJob) -> None:
    """Pretrained backbone and probed head, where the job names them; local assignments."""
    if job.backbone is not None:
        load_backbone(model, job.backbone)
    if job.head is not None:
        kernel, bias = unpack(Location.of(job.head).read_bytes())
        model.get_layer("logit").set_weights([kernel, bias])
