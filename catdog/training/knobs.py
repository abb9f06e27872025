"""Hyperparameters that a traced step reads instead of containing them.

TensorFlow takes seconds to trace a step. Trials of a sweep that differ in these numbers alone share
one trace; the learning rate is a variable of the optimizer anyway.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import tensorflow as tf

from catdog.training.job import TrainingJob

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
