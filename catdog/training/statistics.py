"""Recompute the moving statistics of batch normalisation over training photos before they are used.

Moving averages lag behind weights that change: after some dozens of steps from scratch a network
with a training accuracy of 0.81 validated at the majority class. Averaged weights (EMA) have no
statistics of their own at all. So before each validation the statistics become the means over some
batches, as *Averaging Weights Leads to Wider Optima* (Izmailov et al., 2018) does at its end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from catdog.data.feed import Batch
from catdog.training.draws import StatelessDropout
from catdog.training.exact_layers import ports_of

#: Photos that the statistics are taken over: enough for two digits, a fraction of an epoch.
PHOTOS = 256


def learning_normalisation(network: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Layers whose statistics training changes; those of a frozen or fine-tuned backbone stay."""
    return [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


class Recalibration:
    """Sets the moving statistics of ``network`` from batches, on all ranks together."""

    def __init__(
        self, strategy: tf.distribute.Strategy, network: keras.Model, row_dtype: Any, *, exact: bool
    ) -> None:
        self.strategy, self.network, self.exact = strategy, network, exact
        layers = learning_normalisation(network)
        self.variables = [v for layer in layers for v in layer.non_trainable_variables]
        signature = [
            tf.TensorSpec((None, *network.input_shape[1:]), tf.as_dtype(row_dtype)),
            tf.TensorSpec((None,), tf.float32),
        ]
        self._observe = tf.function(
            lambda *inputs: self.strategy.run(self._observe_replica, args=inputs),
            input_signature=signature,
            autograph=False,
        )

    def over(self, batches: Iterable[Batch]) -> None:
        """Collective. Unsynchronised layers see this rank's rows; their mean is taken later."""
        totals: list[Any] = []
        count = 0
        for batch in batches:
            self._observe(batch.rows, batch.weights)
            values = [variable.numpy().astype(np.float64) for variable in self.variables]
            totals = [a + b for a, b in zip(totals, values, strict=True)] if totals else values
            count += 1
        for variable, total in zip(self.variables, totals, strict=True):
            variable.assign((total / count).astype(np.float32))

    def _observe_replica(self, rows: tf.Tensor, weights: tf.Tensor) -> None:
        """The moving statistics become those of this batch."""
        # Sums over rows are exact, as in training, where they are to be the same on all workers.
        sums = ports_of(self.network.trainable_variables, weights) if self.exact else nullcontext()
        with sums, _observing(self.network):
            self.network(rows, training=True)


@contextmanager
def _observing(network: keras.Model) -> Iterator[None]:
    """While it is traced: nothing of the past is kept, and nothing is dropped, as in use."""
    norms = [(layer, layer.momentum) for layer in learning_normalisation(network)]
    dropouts = [
        (layer, layer.rate)
        for layer in network.layers
        if isinstance(layer, keras.layers.Dropout | StatelessDropout)
    ]
    for norm, _ in norms:
        norm.momentum = 0.0
    for dropout, _ in dropouts:
        dropout.rate = 0.0
    try:
        yield
    finally:
        for norm, momentum in norms:
            norm.momentum = momentum
        for dropout, rate in dropouts:
            dropout.rate = rate
