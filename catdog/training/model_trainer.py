"""Training state of one rank: model, optimizer, averaged weights, position.

Rules that keep the ranks together: all ranks have the same variables in the same order; every
decision follows from reduced sums, which are equal everywhere; rank 0 alone writes.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from catdog.data.feed import Batch, batches
from catdog.data.shards import Rows
from catdog.models import registry
from catdog.models.saving import save_keras
from catdog.runs.messages import FirstStep, Resumed, Step
from catdog.runs.records import Training, TrainingFacts
from catdog.storage import Location
from catdog.storage.retrying import retried
from catdog.training.building import Knobs, load_start, make_step, weights_of_classes
from catdog.training.checkpoints import Checkpoint, CheckpointFolder
from catdog.training.draws import with_stateless_dropout
from catdog.training.inputs import epoch_batches
from catdog.training.job import TrainingJob
from catdog.training.optimization import RateSchedule
from catdog.training.progress import Part, Progress, Rank, TrainingDiverged
from catdog.training.proof import what_differs
from catdog.training.reproducible import FEWEST_ROWS, is_reproducible, reproducible, unit_rows
from catdog.training.statistics import PHOTOS, Recalibration, learning_normalisation
from catdog.training.step import GlobalStep, Sums

#: How often a worker tells how far it is within an epoch.
TELL_EVERY_S = 0.5
#: So often the loss is looked at, which an accelerator has to be waited for.
LOOK_STEPS = 20

NOTHING_DONE = Part()


@dataclass
class ModelTrainer:
    """The model in training with everything that changes with it.

    ``model`` maps pixels to probabilities and is what is saved; ``network`` maps rows to logits and
    is what is trained: the model's upper layers, or their reproducible copy.

    ``unit`` is none where the result may depend on the number of workers; ``varies`` says why it
    does although it was not to.
    """

    job: TrainingJob
    rank: Rank
    model: keras.Model
    network: keras.Model
    optimizer: keras.Optimizer
    step: GlobalStep
    recalibration: Recalibration
    knobs: Knobs
    unit: int | None
    varies: str | None
    steps_per_epoch: int
    schedule: RateSchedule
    has_stepped: bool = False

    @classmethod
    def build(cls, job: TrainingJob, rank: Rank, rows: Rows) -> ModelTrainer:
        """Create all variables, equal on all ranks; collective."""
        keras.utils.set_random_seed(job.seed)
        model = registry.build(job.architecture)
        load_start(model, job)
        if job.phase == "finetune":
            registry.freeze_below(model, job.freeze_below)
        _, network = registry.split_at(model, job.boundary)
        weights = weights_of_classes(job, rank, rows)
        model_trainer, varies = None, None
        if is_reproducible(job, rank, network):
            unit = unit_rows(job.batch_size, network.compute_dtype)
            model_trainer = cls._around(
                reproducible(network, unit), model, job, rank, rows, weights, unit
            )
            varies = what_differs(model_trainer.network, rank, rows.dtype)
        if model_trainer is None or varies is not None:
            model_trainer = cls._around(
                with_stateless_dropout(network), model, job, rank, rows, weights, None, varies
            )
        if varies is not None:
            rank.say(f"{job.name}: {varies}; its result depends on the number of workers")
        return model_trainer

    @classmethod
    def _around(
        cls,
        network: keras.Model,
        model: keras.Model,
        job: TrainingJob,
        rank: Rank,
        rows: Rows,
        weights: tuple[float, float] | None,
        unit: int | None,
        varies: str | None = None,
    ) -> ModelTrainer:
        """Of ``network`` with the first rank's weights; collective."""
        # Fewer photos than a batch make one step of all of them.
        steps = max(1, len(rows) // job.batch_size)
        knobs = Knobs.of(job)
        step = make_step(job, rank, network, rows.dtype, weights, knobs, exact=unit is not None)
        schedule = RateSchedule.of(job.settings, steps)
        exact = unit is not None
        recalibration = Recalibration(rank.strategy, network, rows.dtype, exact=exact)
        made = (job, rank, model, network, step.optimizer, step, recalibration, knobs)
        model_trainer = cls(*made, unit, varies, steps, schedule)
        step.spread_first(rank.is_chief)
        model_trainer._spread_random_states()
        return model_trainer

    @property
    def _fewest(self) -> int:
        """Rows of a share, those that pad it included."""
        return 1 if self.unit is None else FEWEST_ROWS

    def train_epoch(
        self,
        rows: Rows,
        epoch: int,
        done: Part = NOTHING_DONE,
        on_warning: Callable[[Part, str], None] = lambda part, line: None,
    ) -> Sums:
        """Every step of one epoch; the last incomplete batch is dropped, another one each epoch.

        Args:
            done: the steps that a checkpoint within this epoch has seen.
            on_warning: called on every rank where the group will lose a node, after a step.
        """
        rank = self.rank
        started, told = time.monotonic(), 0.0
        first = (epoch - 1) * self.steps_per_epoch
        size, feed = epoch_batches(
            self.job,
            rank,
            rows,
            epoch,
            skipped=done.step,
            unit=self.unit or 1,
            fewest=self._fewest,
        )
        total = tf.constant(done.sums, tf.float64)
        for index, batch in enumerate(feed, start=done.step + 1):
            step = first + index - 1
            self.optimizer.learning_rate.assign(self.schedule.at(step))
            total = total + self.step.train(
                batch.rows, batch.labels, batch.weights, size, batch.positions, step
            )
            rank.watchdog.feed()
            if not self.has_stepped:
                self._tell_first(total)
            seconds = time.monotonic() - started
            if rank.is_chief and seconds - told > TELL_EVERY_S:
                told = seconds
                rank.tell(self._step_message(epoch, index, (index - done.step) / seconds, size))
            if index % LOOK_STEPS == 0:
                self._check_finite(total, epoch, first + index)
            if (line := rank.warned()) and index < self.steps_per_epoch:
                on_warning(Part(index, total.numpy().tolist(), done.seconds + seconds), line)
        self._check_finite(total, epoch, first + self.steps_per_epoch)
        return Sums(*(float(value) for value in total.numpy()))

    def _check_finite(self, total: tf.Tensor, epoch: int, step: int) -> None:
        """Sums are equal on all ranks, so all of them stop here or none."""
        loss = float(total.numpy()[0])
        if not math.isfinite(loss):
            raise TrainingDiverged(self.job.name, loss, epoch, step, self.schedule.at(step - 1))

    def _tell_first(self, total: tf.Tensor) -> None:
        """Of the first step of this process, which is slow: TensorFlow traces it."""
        total.numpy()  # an accelerator is behind; waited for once
        self.has_stepped = True
        if self.rank.is_chief:
            self.rank.tell(FirstStep(self.job.title))

    def _step_message(self, epoch: int, step: int, pace: float, size: int) -> Step:
        """How far it is; ``pace`` in steps a second, of ``size`` rows each."""
        epochs = self.job.settings.epochs
        left = (epochs - epoch) * self.steps_per_epoch + self.steps_per_epoch - step
        about = (self.job.title, epoch, epochs, step, self.steps_per_epoch)
        return Step(*about, images_per_second=pace * size, left_s=left / pace)

    def recalibrate(self, rows: Rows) -> None:
        """Statistics of batch normalisation for the weights as they are; collective."""
        if not learning_normalisation(self.network):
            return
        # Photos as they are, the same in every epoch.
        plain = replace(self.job, augmentation=None)
        size, feed = epoch_batches(
            plain, self.rank, rows, 0, skipped=0, unit=self.unit or 1, fewest=self._fewest
        )
        self.recalibration.over(itertools.islice(feed, max(1, PHOTOS // size)))
        self.step.average_statistics()
        self.rank.watchdog.feed()

    def evaluate(self, rows: Rows) -> Sums:
        """Loss and accuracy over ``rows``, every row exactly once."""
        feed = batches(
            rows,
            np.arange(len(rows)),
            batch_size=2 * self.job.batch_size,
            rank=self.rank.rank,
            world_size=self.rank.world_size,
            drop_last=False,
            fewest=self._fewest,
        )
        return sum((self._evaluated(batch) for batch in feed), Sums(0.0, 0.0, 0.0))

    def _evaluated(self, batch: Batch) -> Sums:
        sums = self.step.evaluate(batch.rows, batch.labels, batch.weights)
        self.rank.watchdog.feed()
        return Sums(*(float(value) for value in sums.numpy()))

    @property
    def variables(self) -> list[keras.Variable]:
        return [*self.network.weights, *self.optimizer.variables, *self._random_states]

    @property
    def _random_states(self) -> list[keras.Variable]:
        """Of RandAugment alone: all else is drawn by step and position."""
        augmentation = self.step.augmentation
        return [] if augmentation is None else augmentation.variables

    def network_arrays(self) -> list[NDArray[Any]]:
        return [np.asarray(variable.numpy()) for variable in self.network.weights]

    def checkpoint(self, progress: Progress, identity: str) -> Checkpoint:
        arrays = [np.asarray(variable.numpy()) for variable in self.variables]
        return Checkpoint(arrays, {"identity": identity, **progress.as_meta()})

    def restore(self, checkpoint: Checkpoint | None) -> Progress:
        """Take over a checkpoint, on every rank."""
        if checkpoint is None:
            return Progress(exact=self.unit is not None, varies=self.varies)
        for variable, value in zip(self.variables, checkpoint.arrays, strict=True):
            variable.assign(value)
        self._spread_random_states()
        progress = Progress.of(checkpoint.meta)
        progress.restarts += 1
        progress.exact = progress.exact and self.unit is not None
        progress.varies = progress.varies or self.varies
        if self.rank.is_chief:
            about = (self.job.title, progress.epoch, self.job.settings.epochs, progress.part.step)
            self.rank.tell(Resumed(*about, self.rank.world_size, progress.history))
        return progress

    def _spread_random_states(self) -> None:
        """Give every rank its own RandAugment: the seed's first word tells the rank.

        The second word counts draws, so a restored state goes on where it was.
        """
        for index, state in enumerate(self._random_states):
            count = int(state.numpy()[1])
            seed = [self.job.seed, index, self.rank.rank]
            word = int(np.random.SeedSequence(seed).generate_state(1)[0])
            state.assign(np.array([word, count], dtype=np.uint32))

    def result(self, progress: Progress) -> Training:
        paces = [row.images_per_second or math.nan for row in progress.history]
        return Training(
            name=self.job.name,
            parameters=int(self.model.count_params()),
            precision=keras.config.dtype_policy().compute_dtype,
            # None where it was not asked for, or cannot be.
            reproducible=False if progress.varies else (progress.exact or None),
            varies=progress.varies,
            best=progress.history[progress.best_epoch - 1],
            history=progress.history,
            train=TrainingFacts(
                epochs=progress.epoch,
                seconds=progress.seconds,
                images_per_second=float(np.nanmedian(paces)),
                workers=self.rank.world_size,
                restarts=progress.restarts,
            ),
            identity=self.job.identity,
            epochs_asked=self.job.settings.epochs,
        )

    def write_result(self, folder: CheckpointFolder, best_epoch: int) -> int:
        """The best epoch's model as ``model.keras``; rank 0 alone. Returns its bytes."""
        _, upper = registry.split_at(self.model, self.job.boundary)
        for variable, value in zip(upper.weights, folder.load_best(best_epoch).arrays, strict=True):
            variable.assign(value)
        target = Location.of(self.job.output) / "model.keras"
        return retried(
            lambda: save_keras(self.model, target), target, "writing the model", self.rank.say
        )
