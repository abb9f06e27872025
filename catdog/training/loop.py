"""One worker's training: what every rank runs, in step with the others."""

from __future__ import annotations

import time
from dataclasses import replace

import keras

from catdog.models import registry
from catdog.models.saving import save_keras
from catdog.runs.messages import EpochEnded
from catdog.runs.records import Epoch, Training, TrainingFacts
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


def train_model(job: TrainingJob, rank: Rank) -> Training | None:
    """Train ``job`` to its end, from its last checkpoint where there is one.

    Returns:
        What ``model.json`` is made from; ``None`` where the trial was stopped.

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
                folder.save_best(epoch, trainer.network_arrays(), {"row": row.as_json()})
        bests = {progress.best_epoch, epoch if best else progress.best_epoch}
        progress.epoch = epoch
        progress.best_epoch = epoch if best else progress.best_epoch
        row.seconds = time.monotonic() - started
        progress.seconds += row.seconds
        progress.history.append(row)
        if rank.is_chief:
            # Before the checkpoint: what is lost between the two is trained, and written, again.
            write_events(output, row, rank.say)
            folder.save(Position(epoch), trainer.checkpoint(progress, job.identity))
            # Of this checkpoint and of the one before, should this turn out to be damaged.
            folder.keep_best(bests)
            rank.tell(EpochEnded(job.title, job.settings.epochs, row))
        if not rank.report(row):
            return None

    result = trainer.result(progress)
    if rank.is_chief and job.keep_model:
        result.file_bytes = trainer.write_result(folder, progress.best_epoch)
    return result


def save_probe(job: TrainingJob, rank: Rank) -> Training:
    """Write the model of a frozen backbone with the probe's head; the result as of a training."""
    model = registry.build(job.architecture)
    load_start(model, job)
    target = Location.of(job.output) / "model.keras"
    saved = retried(lambda: save_keras(model, target), target, "writing the model", rank.say)
    return Training(
        name=job.name,
        parameters=int(model.count_params()),
        precision=keras.config.dtype_policy().compute_dtype,
        best=Epoch(epoch=1),
        history=[],
        train=TrainingFacts(epochs=0, seconds=0.0, workers=rank.world_size, restarts=0),
        file_bytes=saved,
        identity=job.identity,
        epochs_asked=0,
    )


def _row(
    trainer: ModelTrainer, epoch: int, trained: Sums, validated: Sums, train_s: float
) -> Epoch:
    return Epoch(
        phase=trainer.job.phase,
        epoch=epoch,
        loss=trained.mean_loss,
        accuracy=trained.accuracy,
        val_loss=validated.mean_loss,
        val_accuracy=validated.accuracy,
        images_per_second=trained.rows / train_s,
        learning_rate=trainer.schedule.at((epoch - 1) * trainer.steps_per_epoch),
    )
