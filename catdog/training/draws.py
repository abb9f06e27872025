"""Stateless random numbers: functions of (seed, step, position of the row in the global batch).

A rank draws for its own rows what one worker alone would draw for them, so a division of the
batch does not show, and resuming at a step needs no state. The generator is Philox (Salmon et al.,
2011), whose n-th block of four numbers can be computed without those before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

#: Numbers of one block of Philox.
BLOCK = 4
PHILOX = 1


@dataclass(frozen=True)
class Draws:
    """The random numbers of one step.

    Attributes:
        step: int64 (), counted over the whole training.
        positions: int64 (k,), of this rank's rows in the global batch; rows that follow each
            other there follow each other here.
        count: int64 (), rows of the global batch.
        first: int64 (), the position that tables begin with.
        dropout: float64 (), the rate of all dropout; none: each layer's own.
    """

    seed: int
    step: tf.Tensor
    positions: tf.Tensor
    count: tf.Tensor
    first: Any = 0
    dropout: Any = None

    def table(self, stream: str, columns: int) -> tf.Tensor:
        """Uniform numbers in [0, 1) for every row of the global batch, float64 (count, columns).

        Computed alike on every rank, so what is computed from them has the same bits everywhere.
        """
        drawn = self._uniform(stream, self.first, self.count, columns)
        return tf.cast(drawn, tf.float64)

    def of_step(self, stream: str) -> tf.Tensor:
        """One uniform number in [0, 1) for all rows, float64 ()."""
        return tf.cast(self._uniform(stream, 0, 1, 1)[0, 0], tf.float64)

    def beta(self, stream: str, alpha: float) -> tf.Tensor:
        """Numbers of Beta(alpha, alpha) for every row of the global batch, float64 (count,)."""
        seed = tf.stack([tf.constant(_key(self.seed, stream).astype(np.int64)), self.step])
        shape = tf.stack([self.count, 2])
        gamma = tf.random.stateless_gamma(shape, seed, alpha, dtype=tf.float64)
        return tf.math.divide_no_nan(gamma[:, 0], tf.reduce_sum(gamma, 1))

    def own(self, table: tf.Tensor) -> tf.Tensor:
        """The lines of ``table`` (count, …) for this rank's rows, (k, …)."""
        return tf.gather(table, self.positions - self.first)

    def uniform(self, stream: str, shape: Sequence[int]) -> tf.Tensor:
        """Uniform numbers in [0, 1) for this rank's rows alone, float32 (k, *shape).

        Those of rows that follow the first in the global batch; of others, as they pad a batch,
        they are any.
        """
        drawn = self._uniform(
            stream, self.positions[0], tf.size(self.positions), int(np.prod(shape))
        )
        return tf.reshape(drawn, [-1, *shape])

    def _uniform(self, stream: str, first: Any, rows: Any, numbers: int) -> tf.Tensor:
        blocks = -(-numbers // BLOCK)
        start = tf.cast(first, tf.int64) * blocks
        drawn = tf.raw_ops.StatelessRandomUniformV2(
            shape=tf.stack([tf.cast(rows, tf.int64), tf.constant(blocks * BLOCK, tf.int64)]),
            key=tf.constant([int(_key(self.seed, stream))], tf.uint64),
            counter=tf.cast(tf.stack([start, tf.cast(self.step, tf.int64)]), tf.uint64),
            alg=PHILOX,
            dtype=tf.float32,
        )
        return drawn[:, :numbers] if numbers % BLOCK else drawn


def _key(seed: int, stream: str) -> np.uint64:
    words = np.random.SeedSequence([seed, zlib.crc32(stream.encode())])
    return np.uint64(words.generate_state(1, np.uint64)[0])


_drawing: ContextVar[Draws | None] = ContextVar("drawing", default=None)


@contextmanager
def drawing(draws: Draws | None) -> Iterator[None]:
    """Within the block :class:`StatelessDropout` draws from ``draws``."""
    token = _drawing.set(draws)
    try:
        yield
    finally:
        _drawing.reset(token)


class StatelessDropout(keras.layers.Layer):
    """Dropout by what :func:`drawing` gives; each layer's stream is named after it."""

    def __init__(self, rate: float, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.built = True

    @classmethod
    def of(cls, layer: keras.layers.Dropout) -> StatelessDropout:
        return cls(layer.rate, name=layer.name, dtype=layer.dtype_policy)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        draws = _drawing.get()
        if not training or not self.rate or isinstance(inputs, keras.KerasTensor):
            return inputs
        if draws is None:
            raise RuntimeError(f"{self.name} has nothing to draw from outside of a training step")
        rate = self.rate if draws.dropout is None else draws.dropout
        kept = draws.uniform(self.name, inputs.shape[1:]) >= tf.cast(rate, tf.float32)
        scale = tf.cast(1.0 / (1.0 - tf.convert_to_tensor(rate, tf.float64)), inputs.dtype)
        return tf.where(kept, inputs * scale, tf.zeros((), inputs.dtype))


def with_stateless_dropout(network: keras.Model) -> keras.Model:
    """``network`` with its dropout replaced; all other layers are the same objects."""
    if not any(type(layer) is keras.layers.Dropout for layer in network.layers):
        return network

    def swapped(layer: keras.layers.Layer) -> keras.layers.Layer:
        return StatelessDropout.of(layer) if type(layer) is keras.layers.Dropout else layer

    return keras.models.clone_model(network, clone_function=swapped)
