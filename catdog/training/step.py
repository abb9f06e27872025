"""One training or evaluation step of the global batch under the strategy.

``Model.fit`` of Keras 3 fails under MultiWorkerMirroredStrategy (keras issue 20585), so the step
is ours: the loss is *summed* over a worker's rows and divided by the *global* batch size, gradients
are summed over workers once, and clipping and the update see the sum. Therefore the number of
workers, and uneven shares among them, change nothing but the order of additions; and for a network
from :func:`catdog.training.reproducible.reproducible` not even a bit.

Both functions have a fixed ``input_signature`` with an open batch axis: a retrace on one rank
alone would give collectives other keys than on the others and abort them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from catdog.cluster.private import moving_averages
from catdog.training.augmentation import Augmentation, Mixing
from catdog.training.draws import Draws, drawing
from catdog.training.exact_layers import ports_of


@dataclass(frozen=True)
class Sums:
    """Sums over rows, equal on every rank."""

    loss: float
    correct: float
    rows: float

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.loss + other.loss, self.correct + other.correct, self.rows + other.rows)

    @property
    def mean_loss(self) -> float:
        return self.loss / self.rows

    @property
    def accuracy(self) -> float:
        return self.correct / self.rows


class GlobalStep:
    """Training and evaluation steps that all ranks take together.

    ``network`` maps rows ``(batch, *row_shape)`` to logits ``(batch, 1)``. Loss in :class:`Sums`
    is plain binary cross-entropy in nats, also where the objective smooths labels or weighs
    classes.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        network: keras.Model,
        optimizer: keras.Optimizer,
        augmentation: Augmentation | None,
        *,
        label_smoothing: Any,
        row_dtype: Any,
        mixing: Mixing | None = None,
        class_weights: tuple[float, float] | None = None,
        reproducible: bool = False,
        seed: int = 0,
        dropout: Any = None,
    ) -> None:
        self.strategy = strategy
        self.network = network
        self.optimizer = optimizer
        self.augmentation = augmentation
        self.mixing = mixing
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        self.reproducible = reproducible
        self.seed = seed
        self.dropout = dropout
        signature = [
            tf.TensorSpec((None, *network.input_shape[1:]), tf.as_dtype(row_dtype)),
            tf.TensorSpec((None,), tf.float32),
            tf.TensorSpec((None,), tf.float32),
        ]
        # Nothing in them needs autograph, and without it they are traced faster.
        self._train = tf.function(
            self._train_everywhere,
            input_signature=[
                *signature,
                tf.TensorSpec((), tf.float64),
                tf.TensorSpec((None,), tf.int64),
                tf.TensorSpec((), tf.int64),
            ],
            autograph=False,
        )
        self._evaluate = tf.function(
            self._evaluate_everywhere, input_signature=signature, autograph=False
        )
        self._exchange = tf.function(self._exchange_everywhere, autograph=False)
        self._sent_dtype = _sent_dtype(network, reproducible)
        self._statistics = _unsynchronised_statistics(network)

    def train(
        self,
        rows: Any,
        labels: Any,
        weights: Any,
        global_rows: int,
        positions: Any = None,
        step: int = 0,
    ) -> tf.Tensor:
        """One update; returns sums (loss, correct, rows) over the global batch, float64 (3,).

        Args:
            rows, labels, weights, positions: as in :class:`catdog.data.feed.Batch`, with partners
                where photos are mixed; without positions the rows are the whole batch, in order.
            step: counted over the whole training; what is drawn at random follows from it.

        The tensor is not waited for: reading it every step would stall the device.
        """
        if positions is None:
            positions = np.arange(len(labels))
        positions = np.asarray(positions, np.int64)
        return self._train(
            rows, labels, weights, np.float64(global_rows), positions, np.int64(step)
        )

    def evaluate(self, rows: Any, labels: Any, weights: Any) -> tf.Tensor:
        """Sums over the global batch without an update, float64 (3,)."""
        return self._evaluate(rows, labels, weights)

    def spread_first(self, is_first: bool) -> None:
        """Give every rank the weights of the first.

        One collective for all of them. Created under the strategy's scope each variable, those of
        the optimizer too, would cost one of its own: 4 s for ResNet50V2 on two workers.
        """
        self._sum_into(self.network.variables, 1.0 if is_first else 0.0)

    def average_statistics(self) -> None:
        """Make the moving statistics of unsynchronised batch normalisation equal on all ranks.

        Every rank has seen its own rows only. The mean, once an epoch, makes validation and the
        saved model independent of the rank that computes them.
        """
        self._sum_into(self._statistics, 1.0 / self.strategy.num_replicas_in_sync)

    def _sum_into(self, variables: Sequence[keras.Variable], share: float) -> None:
        """Each of ``variables`` becomes the sum over ranks of ``share`` times its value there."""
        floats = [v.value for v in variables if v.dtype == "float32"]
        if floats and self.strategy.num_replicas_in_sync > 1:
            self._exchange(floats, np.float32(share))

    def _exchange_everywhere(self, variables: Sequence[tf.Variable], share: Any) -> None:
        self.strategy.run(self._exchange_replica, args=(variables, share))

    def _exchange_replica(self, variables: Sequence[tf.Variable], share: Any) -> None:
        own = tf.concat([tf.reshape(variable, [-1]) for variable in variables], axis=0)
        total = tf.distribute.get_replica_context().all_reduce("SUM", own * share)
        sizes = [int(np.prod(variable.shape)) for variable in variables]
        for variable, value in zip(variables, tf.split(total, sizes), strict=True):
            variable.assign(tf.reshape(value, variable.shape))

    def _train_everywhere(self, *inputs: Any) -> Any:
        sums = self.strategy.run(self._train_replica, args=inputs)
        return self.strategy.reduce("SUM", sums, axis=None)

    def _evaluate_everywhere(self, rows: Any, labels: Any, weights: Any) -> Any:
        sums = self.strategy.run(self._evaluate_replica, args=(rows, labels, weights))
        return self.strategy.reduce("SUM", sums, axis=None)

    def _train_replica(
        self, rows: Any, labels: Any, weights: Any, global_rows: Any, positions: Any, step: Any
    ) -> Any:
        count = tf.cast(global_rows, tf.int64)
        draws = Draws(self.seed, step, positions, count, dropout=self.dropout)
        own = replace(draws, positions=positions[: tf.size(weights)])
        if self.augmentation is not None:
            rows = self.augmentation(rows, draws)
        if self.mixing is not None:
            rows, labels = self.mixing(rows, labels, own)
        if self.augmentation is not None or self.mixing is not None:
            # The network's input is uint8, to which Keras would cut them off.
            rows = tf.cast(tf.round(tf.clip_by_value(rows, 0.0, 255.0)), tf.uint8)
        with drawing(own):
            gradients, sums = self._gradients(rows, labels, weights, global_rows)
        gradients = [tf.cast(gradient, self._sent_dtype) for gradient in gradients]
        gradients = tf.distribute.get_replica_context().all_reduce("SUM", gradients)
        gradients = [tf.cast(gradient, tf.float32) for gradient in gradients]
        self.optimizer.apply_gradients(
            zip(gradients, self.network.trainable_variables, strict=True)
        )
        return sums

    def _gradients(self, rows: Any, labels: Any, weights: Any, global_rows: Any) -> Any:
        """Gradients of this worker's rows, float64 where they are reproducible, and its sums."""
        labels, weights = tf.cast(labels, tf.float64), tf.cast(weights, tf.float64)
        smoothed = labels * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        variables = self.network.trainable_variables
        sources: AbstractContextManager[list[Any]] = nullcontext([v.value for v in variables])
        if self.reproducible:
            sources = ports_of(variables, weights)
        with sources as watched:
            with tf.GradientTape() as tape:
                tape.watch(watched)
                logits = logits_of(self.network, rows, training=True)
                losses = tf.nn.sigmoid_cross_entropy_with_logits(smoothed, logits)
                objective = tf.reduce_sum(losses * self._counting(labels, weights)) / global_rows
            gradients = tape.gradient(objective, watched)
        return gradients, self._sums(logits, labels, weights)

    def _counting(self, labels: Any, weights: Any) -> Any:
        """What each row's loss counts in the objective; a mixed label counts as its parts do."""
        if self.class_weights is None:
            return weights
        cat, dog = self.class_weights
        return weights * (cat + (dog - cat) * labels)

    def _evaluate_replica(self, rows: Any, labels: Any, weights: Any) -> Any:
        logits = logits_of(self.network, rows, training=False)
        labels, weights = tf.cast(labels, tf.float64), tf.cast(weights, tf.float64)
        return self._sums(logits, labels, weights)

    @staticmethod
    def _sums(logits: Any, labels: Any, weights: Any) -> Any:
        losses = tf.nn.sigmoid_cross_entropy_with_logits(labels, logits)
        # Of float32 numbers a float64 sum is exact enough that their order is lost.
        losses = tf.cast(tf.cast(losses, tf.float32), tf.float64)
        correct = tf.cast(tf.equal(logits > 0, labels > 0.5), tf.float64)
        return tf.stack(
            [
                tf.reduce_sum(losses * weights),
                tf.reduce_sum(correct * weights),
                tf.reduce_sum(weights),
            ]
        )


def _sent_dtype(network: keras.Model, reproducible: bool) -> tf.DType:
    """What gradients travel in.

    Between CPU workers the 22 million gradients of a backbone take 375 ms in float32 and 112 ms in
    bfloat16 (gRPC, two processes on two cores, 2026-11-22), and bfloat16 kernels computed them. A
    ring of many GPUs would add a rounding at each hop, and NCCL has no need of it.
    """
    if reproducible:
        return tf.float64
    on_cpus = not tf.config.list_logical_devices("GPU")
    return tf.bfloat16 if on_cpus and network.compute_dtype == "bfloat16" else tf.float32


def logits_of(network: keras.Model, rows: Any, *, training: bool) -> Any:
    """(rows,) float64: in float32 the vectorised sigmoid's last digit depends on their number."""
    return tf.cast(tf.squeeze(network(rows, training=training), -1), tf.float64)


def _unsynchronised_statistics(network: keras.Model) -> list[keras.Variable]:
    """Moving statistics that training changes and no collective keeps equal."""
    return [
        variable
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
        and layer.trainable
        and not layer.synchronized
        for variable in layer.non_trainable_variables
    ]


@contextmanager
def averaged_weights(network: keras.Model, optimizer: keras.Optimizer) -> Iterator[None]:
    """The network with the optimizer's moving average of its weights, where there is one.

    Assignments are local, so every rank enters, in step with the others.
    """
    averages = moving_averages(optimizer)
    if not optimizer.use_ema or averages is None:
        yield
        return
    variables = network.trainable_variables
    raw = [variable.numpy() for variable in variables]
    for variable, average in zip(variables, averages, strict=True):
        variable.assign(average.numpy())
    try:
        yield
    finally:
        for variable, value in zip(variables, raw, strict=True):
            variable.assign(value)
