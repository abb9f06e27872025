"""Check before a training whether this machine computes the same bits for any division of a batch.

Each worker takes a fixed batch through its own network, whole and in parts; then the workers
compare what they found. The network computes as in training but for what crosses rows on purpose:
batch normalisation is in inference mode, and nothing is dropped out.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from catdog.training.exact_layers import ports_of
from catdog.training.progress import Rank
from catdog.training.step import logits_of

#: Rows of the batch, and where it is cut: parts of 2, 3, 4, 7 and 8 rows.
ROWS = 12
CUTS = ((2, 5), (4,))

Results = list[NDArray[Any]]


def what_differs(network: keras.Model, rank: Rank, row_dtype: Any) -> str | None:
    """Why the result would depend on the number of workers; ``None`` where it does not.

    Collective, and the same answer on every rank.

    Args:
        network: as :func:`catdog.training.reproducible.reproducible` makes it.
        row_dtype: of the rows that it is fed with.
    """
    compute = _computing(network, row_dtype)
    rows, signs = _batch(network, row_dtype)
    whole = _in_float32(compute(rows, signs))
    divides = all(_same(whole, _in_parts(compute, rows, signs, cuts)) for cuts in CUTS)
    found = _from_all_ranks(rank, [float(divides), *_digest(whole)])
    if not found[:, 0].any():
        return "this CPU's kernels compute a row otherwise in a batch of another size"
    if (found != found[0]).any():
        return "the workers compute the same rows with different kernels"
    return None


def _computing(network: keras.Model, row_dtype: Any) -> Any:
    """Traced: (rows (k, …), signs (k,)) → logits, and the gradient of their signed sum."""

    def compute(rows: tf.Tensor, signs: tf.Tensor) -> list[tf.Tensor]:
        with ports_of(network.trainable_variables) as ports, tf.GradientTape() as tape:
            tape.watch(ports)
            logits = logits_of(network, rows, training=False)
            objective = tf.reduce_sum(logits * signs)
        zero = tf.UnconnectedGradients.ZERO
        return [logits, *tape.gradient(objective, ports, unconnected_gradients=zero)]

    shape = (None, *network.input_shape[1:])
    signature = [tf.TensorSpec(shape, tf.as_dtype(row_dtype)), tf.TensorSpec((None,), tf.float64)]
    return tf.function(compute, input_signature=signature, autograph=False)


def _batch(network: keras.Model, row_dtype: Any) -> tuple[NDArray[Any], NDArray[np.float64]]:
    generator = np.random.default_rng(0)
    shape, dtype = (ROWS, *network.input_shape[1:]), np.dtype(row_dtype)
    if dtype.kind == "u":
        rows = generator.integers(0, 256, shape).astype(dtype)
    else:
        rows = generator.normal(size=shape).astype(dtype)
    return rows, np.resize([1.0, -1.0], ROWS)


def _in_parts(
    compute: Any, rows: NDArray[Any], signs: NDArray[np.float64], cuts: Sequence[int]
) -> Results:
    """As of the whole batch, from its parts; gradients are added last part first."""
    edges = itertools.pairwise([0, *cuts, len(rows)])
    parts = [compute(rows[start:stop], signs[start:stop]) for start, stop in edges]
    logits, *gradients = zip(*parts, strict=True)
    return _in_float32([np.concatenate(logits), *(sum(reversed(each)) for each in gradients)])


def _in_float32(results: Sequence[Any]) -> Results:
    """As the optimizer sees them: sums are exact enough in float64 that their order is lost."""
    return [np.asarray(result, np.float32) for result in results]


def _same(ours: Results, theirs: Results) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def _digest(results: Results) -> list[float]:
    """Two numbers of 32 bits."""
    made = hashlib.sha256()
    for result in results:
        made.update(result.tobytes())
    return np.frombuffer(made.digest()[:8], "<u4").astype(np.float64).tolist()


def _from_all_ranks(rank: Rank, values: Sequence[float]) -> NDArray[np.float64]:
    """(ranks, values): a sum in which every rank has filled its own line."""
    table = np.zeros((rank.world_size, len(values)))
    table[rank.rank] = values
    if rank.strategy.num_replicas_in_sync == 1:
        return table[rank.rank : rank.rank + 1]

    def everywhere(table: tf.Tensor) -> tf.Tensor:
        # Placed on the worker's device by name, without which there is nowhere to send it.
        own = tf.identity(table)
        return tf.distribute.get_replica_context().all_reduce("SUM", own)

    signature = [tf.TensorSpec(table.shape, tf.float64)]
    summed = tf.function(
        lambda table: rank.strategy.run(everywhere, args=(table,)),
        input_signature=signature,
        autograph=False,
    )
    return np.asarray(summed(table))
