"""Reuse the model and the traced step between trials that differ only in hyperparameter values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import keras
from numpy.typing import NDArray

from catdog.data.shards import Rows
from catdog.training.building import traced_alike
from catdog.training.job import TrainingJob
from catdog.training.model_trainer import ModelTrainer
from catdog.training.optimization import RateSchedule
from catdog.training.progress import Rank


class LastTrial(NamedTuple):
    """The last trial of this process: what it was traced for, and the arrays it began with."""

    alike: Any
    trainer: ModelTrainer
    start: list[NDArray[Any]]


def model_trainer_for(job: TrainingJob, rank: Rank, rows: Rows) -> ModelTrainer:
    """A new one, or the last one of this process where its traces serve; collective."""
    alike = (traced_alike(job), keras.config.dtype_policy().name)
    kept: LastTrial | None = rank.kept.pop("model_trainer", None)
    if kept is not None and kept.alike == alike:
        trainer = _begun_again(kept, job, rank)
    else:
        del kept  # before another takes as much memory
        keras.backend.clear_session()
        keras.config.set_dtype_policy(alike[1])  # it forgets the policy too
        trainer = ModelTrainer.build(job, rank, rows)
        if job.keep_model:  # no trial, which another may follow
            return trainer
        kept = LastTrial(alike, trainer, [variable.numpy() for variable in trainer.variables])
    rank.kept["model_trainer"] = kept
    return trainer


def _begun_again(kept: LastTrial, job: TrainingJob, rank: Rank) -> ModelTrainer:
    """For another ``job`` of the same shape: its variables as they were, its numbers new."""
    before = kept.trainer
    for variable, value in zip(before.variables, kept.start, strict=True):
        variable.assign(value)
    before.knobs.turn(job)
    schedule = RateSchedule.of(job.settings, before.steps_per_epoch)
    return replace(before, job=job, rank=rank, schedule=schedule)
