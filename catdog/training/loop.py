"""One worker's training: what every rank runs, in step with the others."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import keras

from catdog.models import registry
from catdog.models.saving import save_keras
from catdog.storage import Location
from catdog.storage.retrying import retried
from catdog.training.building import load_start
from catdog.training.checkpoints import CheckpointFolder, Position
from catdog.training.inputs import open_inputs
from catdog.training.job import TrainingJob
from catdog.training.model_trainer import ModelTrainer
from catdog.training.progress import Part, Rank
from catdog.training.reuse import model_trainer_for
from catdog.training.step import Sums, averaged_weights
from catdog.training.tensorboard import write_events


def train_model(job: TrainingJob, rank: Rank) -> dict[str, Any] | None:
    """Train ``job`` to its end, from its last checkpoint where there is one.

    Returns:
        The facts that ``model.json`` is made from; ``None`` where the trial was stopped.

    Raises:
        TrainingDiverged: the loss is NaN or infinite.
        UserError: the checkpoints found belong to other settings.
    """
    train_rows, val_rows = open_inputs(job)
    output = Location.of(job.output)
    trainer = model_trainer_for(job, rank, train_rows)
    folder = CheckpointFolder(output / "checkpoints", job.identity, rank.say)
    progress = trainer.restore(folder.latest())

    def save_part(part: Part, line: str) -> None:
        # Mean of means: what the ranks average at the end of the epoch comes to the same.
        trainer.step.average_statistics()
        if rank.is_chief:
            position = Position(progress.epoch, part.step)
            folder.save(position, trainer.checkpoint(replace(progress, part=part), job.identity))
            rank.say(f"{line}; {job.name} has a checkpoint at {position}")

    while progress.epoch < job.settings.epochs and not progress.exhausted(job.settings.patience):
        epoch = progress.epoch + 1
        part, progress.part = progress.part, Part()
        started = time.monotonic() - part.seconds
        trained = trainer.train_epoch(train_rows, epoch, part, save_part)
        trainer.step.average_statistics()
        train_s = time.monotonic() - started
        with averaged_weights(trainer.network, trainer.optimizer):
            trainer.recalibrate(train_rows)
            validated = trainer.evaluate(val_rows)
            row = _row(trainer, epoch, trained, validated, train_s)
            best = progress.is_best(row)
            if best and rank.is_chief:
                folder.save_best(epoch, trainer.network_arrays(), {"row": row})
        bests = {progress.best_epoch, epoch if best else progress.best_epoch}
        progress.epoch = epoch
        progress.best_epoch = epoch if best else progress.best_epoch
        row["seconds"] = time.monotonic() - started
        progress.seconds += row["seconds"]
        progress.history.append(row)
        if rank.is_chief:
            # Before the checkpoint: what is lost between the two is trained, and written, again.
            write_events(output, row, rank.say)
            folder.save(Position(epoch), trainer.checkpoint(progress, job.identity))
            # Of this checkpoint and of the one before, should this turn out to be damaged.
            folder.keep_best(bests)
            rank.tell({"kind": "epoch", "model": job.title, "epochs": job.settings.epochs, **row})
        if not rank.report(row | {"model": job.title}):
            return None

    facts = trainer.facts(progress)
    if rank.is_chief and job.keep_model:
        facts["file_bytes"] = trainer.write_result(folder, progress.best_epoch)
    return facts


def save_probe(job: TrainingJob, rank: Rank) -> dict[str, Any]:
    """Write the model of a frozen backbone with the probe's head; facts as of a training."""
    model = registry.build(job.architecture)
    load_start(model, job)
    target = Location.of(job.output) / "model.keras"
    saved = retried(lambda: save_keras(model, target), target, "writing the model", rank.say)
    return {
        "name": job.name,
        "parameters": int(model.count_params()),
        "precision": keras.config.dtype_policy().compute_dtype,
        "best": {"epoch": 1},
        "history": [],
        "train": {
            "epochs": 0,
            "seconds": 0.0,
            "images_per_second": None,
            "workers": rank.world_size,
            "restarts": 0,
        },
        "file_bytes": saved,
    }


def _row(
    trainer: ModelTrainer, epoch: int, trained: Sums, validated: Sums, train_s: float
) -> dict[str, Any]:
    """An epoch of the history."""
    return {
        "phase": trainer.job.phase,
        "epoch": epoch,
        "loss": trained.mean_loss,
        "accuracy": trained.accuracy,
        "val_loss": validated.mean_loss,
        "val_accuracy": validated.accuracy,
        "images_per_second": trained.rows / train_s,
        "learning_rate": trainer.schedule.at((epoch - 1) * trainer.steps_per_epoch),
    }
