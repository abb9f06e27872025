"""Arithmetic that does not depend on how a global batch is divided among workers.

Sums of float32 in another order differ in the last digit, and training makes much of that: a
difference of 1e-7 in one gradient grew to 0.1 in the loss of the base CNN's fifteenth step (a
max-pooling that takes the other pixel; Adam, which makes whole steps of tiny gradients). So the
same loss on any number of workers means the same bits, and these layers give them. What happens
within a row is the same wherever the row is. What is summed over rows is

- summed within one row first, or within one *unit* of neighbouring rows, in float32: the same
  numbers on any number of workers, because shares of a batch are whole units;
- then over units and workers in float64, where a sum of some hundred float32 numbers is exact
  unless they differ by more than 2**26, so that its order does not matter.

Gradients of weights therefore leave the layers in float64, which a gradient with respect to a
float32 variable cannot; they leave through *ports* (:mod:`catdog.training.exact_layers`).

That a row's own numbers do not depend on the rows beside it is a property of the kernels, which
:mod:`catdog.training.proof` checks before a training. TensorFlow's own on CPUs do not have it, and
oneDNN's have it from two rows on: a lone one is computed otherwise. So oneDNN is on
(:mod:`catdog.cluster.numerics`), and a rank gets at least two rows; fill-in rows have weight 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import tensorflow as tf

from catdog.training.draws import StatelessDropout
from catdog.training.exact_layers import DEPTHWISE, REPRODUCIBLE, InUnits

if TYPE_CHECKING:
    from catdog.training.job import TrainingJob
    from catdog.training.progress import Rank

#: Units of a global batch below float32: as many workers at most can share one.
UNITS = 8

#: Rows of a share, those of weight 0 included: oneDNN computes a lone row otherwise.
FEWEST_ROWS = 2

#: Up to so many, reproducible sums cost next to nothing.
SMALL_PARAMETERS = 5_000_000
#: The same where depthwise convolutions are trained, whose gradients are slow row by row.
SMALL_DEPTHWISE = 500_000


def is_reproducible(job: TrainingJob, rank: Rank, network: keras.Model) -> bool:
    """Whether every bit is to be the same on any number of workers: as asked, or where it is cheap.

    On a GPU the many small kernels are not. On a CPU a backbone's last block takes 4 (ResNet50V2)
    to 7 times as long (InceptionV3, 96 pixels, float32), so it is summed this way where that is
    asked for. What cannot be is not tried: RandAugment, which each worker draws for itself, and a
    trained layer that has no such form, as the batch normalisation of a backbone from scratch,
    which sees each worker's own photos.
    """
    if job.reproducible is False:
        return False
    if obstacle := _obstacle(job, network):
        if job.reproducible:
            rank.say(f"{job.name}: {obstacle}: it depends on the number of workers")
        return False
    if job.reproducible is None:
        return _is_cheap(network) and not tf.config.list_logical_devices("GPU")
    return True


def _obstacle(job: TrainingJob, network: keras.Model) -> str | None:
    augmentation = job.applied_augmentation
    if augmentation is not None and augmentation.rand_augment:
        return "RandAugment is drawn by each worker"
    for layer in network.layers:
        if layer.trainable_variables and not _has_form(layer):
            return f"{layer.name} ({type(layer).__name__}) is trained and has no reproducible form"
    return None


def _has_form(layer: keras.layers.Layer) -> bool:
    """Whether ``layer`` can be trained reproducibly."""
    if type(layer) not in REPRODUCIBLE:
        return False
    if isinstance(layer, keras.layers.BatchNormalization):
        return bool(layer.synchronized and layer.scale and layer.center)
    if isinstance(layer, keras.layers.Dense):
        return True
    plain = layer.data_format == "channels_last" and getattr(layer, "groups", 1) == 1
    # TensorFlow has no kernel for dilated depthwise convolutions, nor for strides that differ.
    depthwise = isinstance(layer, DEPTHWISE)
    even = set(layer.dilation_rate) == {1} and len(set(layer.strides)) == 1
    return plain and (even or not depthwise)


def _is_cheap(network: keras.Model) -> bool:
    depthwise = any(isinstance(x, DEPTHWISE) and x.trainable for x in network.layers)
    trained = sum(variable.value.shape.num_elements() for variable in network.trainable_variables)
    return network.count_params() <= SMALL_PARAMETERS and not (
        depthwise and trained > SMALL_DEPTHWISE
    )


def unit_rows(batch_size: int, compute_dtype: str) -> int:
    """Rows of a unit, from what is the same on any number of workers.

    One row in float32: oneDNN divides the gradient of several rows among threads, and the sum
    over them depends on how many cores a worker has. In bfloat16 it does so for one row too, and
    small units are slow (dw of 16 rows of the base CNN: 8.5 ms a row in units of 8, 17 of 1).
    """
    return 1 if compute_dtype == "float32" else max(1, batch_size // UNITS)


def reproducible(network: keras.Model, unit: int) -> keras.Model:
    """A copy of ``network`` for training, with variables of its own and equal values.

    Its convolutions, dense layers and synchronised batch normalisation sum over rows in a way that
    any number of workers shares, and its dropout draws by position; shares of a batch must be
    multiples of ``unit`` rows.
    """

    def swapped(layer: keras.layers.Layer) -> keras.layers.Layer:
        if type(layer) is keras.layers.Dropout:
            return StatelessDropout.of(layer)
        kind = REPRODUCIBLE[type(layer)] if _has_form(layer) else type(layer)
        copy = kind.from_config(layer.get_config())
        if isinstance(copy, InUnits):
            copy.unit = unit
        return copy

    copy = keras.models.clone_model(network, clone_function=swapped)
    for variable, value in zip(copy.weights, network.weights, strict=True):
        variable.assign(value.numpy())
    return copy
