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
float32 variable cannot; they leave through *ports*: see :func:`ports_of`.

One exception is known: TensorFlow computes a batch of one row otherwise where a 1 x 1 convolution
has many channels (seen from 512 on), so backbones need shares of two rows or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from catdog.training.job import TrainingJob
    from catdog.training.progress import Rank

#: Units of a global batch below float32: as many workers at most can share one.
UNITS = 8

#: Up to so many, reproducible sums cost next to nothing.
SMALL_PARAMETERS = 5_000_000

_ports: ContextVar[dict[int, tf.Tensor] | None] = ContextVar("ports", default=None)


def is_reproducible(job: TrainingJob, rank: Rank, network: keras.Model) -> bool:
    """Whether every bit is to be the same on any number of workers: as asked, or where it is cheap.

    On a GPU the many small kernels are not. On a CPU a backbone's last block takes 4 (ResNet50V2)
    to 7 times as long (InceptionV3, 96 pixels, float32), so it is summed this way only where
    workers draw nothing of their own, without which no two numbers of workers agree anyway.
    A backbone from scratch cannot be: its batch normalisation sees each worker's own photos.
    """
    differs = "it is not the same on any number of workers"
    if job.phase == "scratch" and job.name != "base_cnn":
        if job.reproducible:
            rank.say(f"{job.name}: from random weights {differs}")
        return False
    small = network.count_params() <= SMALL_PARAMETERS
    exact = keras.config.dtype_policy().compute_dtype == "float32"
    cheap = (small or (exact and not job.draws)) and not tf.config.list_logical_devices("GPU")
    chosen = cheap if job.reproducible is None else job.reproducible
    if chosen and job.phase == "finetune" and job.batch_size < 2 * rank.world_size:
        rank.say(f"{job.name}: with fewer than two photos of a batch for each worker {differs}")
    return chosen


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
    any number of workers shares; shares of a batch must be multiples of ``unit`` rows.
    """

    def swapped(layer: keras.layers.Layer) -> keras.layers.Layer:
        kind = _REPRODUCIBLE.get(type(layer), type(layer))
        if isinstance(layer, keras.layers.BatchNormalization) and not layer.synchronized:
            kind = type(layer)
        copy = kind.from_config(layer.get_config())
        if isinstance(copy, _InUnits):
            copy.unit = unit
        return copy

    copy = keras.models.clone_model(network, clone_function=swapped)
    for variable, value in zip(copy.variables, network.variables, strict=True):
        variable.assign(value.numpy())
    return copy


@contextmanager
def ports_of(variables: Sequence[keras.Variable]) -> Iterator[list[tf.Tensor]]:
    """Within the block each of ``variables`` has a port: a float64 scalar to differentiate by.

    The gradient with respect to a port is the variable's gradient, float64 and of the variable's
    shape, summed over this worker's rows.
    """
    opened = [tf.zeros((), tf.float64) for _ in variables]
    token = _ports.set(dict(zip(map(id, variables), opened, strict=True)))
    try:
        yield opened
    finally:
        _ports.reset(token)


def _port(variable: keras.Variable | None) -> tf.Tensor:
    """The variable's port; one that leads nowhere where the variable is absent or frozen."""
    found = (_ports.get() or {}).get(id(variable))
    return tf.zeros((), tf.float64) if found is None else found


def _sum_of_rows(values: tf.Tensor) -> tf.Tensor:
    """Sum over all axes but the last, float64, of ``values`` (rows, ..., channels)."""
    values = tf.cast(values, tf.float32)
    within = list(range(1, len(values.shape) - 1))
    each = tf.reduce_sum(values, within) if within else values
    return tf.reduce_sum(tf.cast(each, tf.float64), 0)


class _InUnits(keras.layers.Layer):
    """A layer whose weights' gradients are summed unit by unit."""

    unit = 1

    def _summed(self, rows: tf.Tensor, of_unit: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
        """float64 sum of ``of_unit(slice)`` over all units of ``rows`` rows."""
        starts = tf.range(0, rows, self.unit)
        first = tf.cast(of_unit(tf.zeros((), tf.int32)), tf.float64)
        return tf.while_loop(
            lambda index, total: index < tf.size(starts),
            lambda index, total: (
                index + 1,
                total + tf.cast(of_unit(starts[index]), tf.float64),
            ),
            (tf.ones((), tf.int32), first),
            parallel_iterations=1,
        )[1]


class ReproducibleConv2D(_InUnits, keras.layers.Conv2D):
    """``keras.layers.Conv2D`` (channels last, no groups) with its kernel's gradient in units."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if _ports.get() is None:
            return super().call(inputs)
        options = {
            "strides": [1, *self.strides, 1],
            "padding": self.padding.upper(),
            "dilations": [1, *self.dilation_rate, 1],
        }
        inputs = tf.cast(inputs, self.compute_dtype)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)
        bias = None
        if self.use_bias:
            bias = tf.cast(tf.convert_to_tensor(self.bias), self.compute_dtype)

        @tf.custom_gradient
        def convolve(x: tf.Tensor, kernel_port: tf.Tensor, bias_port: tf.Tensor) -> Any:
            y = tf.nn.conv2d(x, kernel, **options)
            if bias is not None:
                y = tf.nn.bias_add(y, bias)

            def gradient(dy: tf.Tensor) -> tuple[Any, Any, Any]:
                def of_unit(start: tf.Tensor) -> tf.Tensor:
                    rows = slice(start, start + self.unit)
                    return tf.raw_ops.Conv2DBackpropFilter(
                        input=x[rows],
                        filter_sizes=kernel.shape,
                        out_backprop=dy[rows],
                        **options,
                    )

                dx = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(x), filter=kernel, out_backprop=dy, **options
                )
                return dx, self._summed(tf.shape(x)[0], of_unit), _sum_of_rows(dy)

            return y, gradient

        bias_variable = self.bias if self.use_bias else None
        outputs = convolve(inputs, _port(self.kernel), _port(bias_variable))
        return outputs if self.activation is None else self.activation(outputs)


class ReproducibleDense(keras.layers.Dense):
    """``keras.layers.Dense`` computed in float64 and rounded, which any division of rows shares."""

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if _ports.get() is None:
            return super().call(inputs)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), tf.float64)
        bias = tf.cast(tf.convert_to_tensor(self.bias), tf.float64) if self.use_bias else None

        @tf.custom_gradient
        def multiply(x: tf.Tensor, kernel_port: tf.Tensor, bias_port: tf.Tensor) -> Any:
            exact = tf.cast(x, tf.float64)
            y = tf.matmul(exact, kernel)
            y = y if bias is None else y + bias

            def gradient(dy: tf.Tensor) -> tuple[Any, Any, Any]:
                dy = tf.cast(dy, tf.float64)
                dx = tf.cast(tf.matmul(dy, kernel, transpose_b=True), x.dtype)
                return dx, tf.matmul(exact, dy, transpose_a=True), tf.reduce_sum(dy, 0)

            return tf.cast(y, self.compute_dtype), gradient

        bias_variable = self.bias if self.use_bias else None
        outputs = multiply(inputs, _port(self.kernel), _port(bias_variable))
        return outputs if self.activation is None else self.activation(outputs)


class ReproducibleBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation over the *global* batch (rows, height, width, channels).

    Keras' own synchronised statistics need five collectives a layer and step, and take
    E[x²] - E[x]² in float32. Here it is one collective forward, of each row's mean and variance,
    and one backward.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None, mask: Any = None) -> tf.Tensor:
        if _ports.get() is None or not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        gamma, beta = (
            tf.cast(tf.convert_to_tensor(v), tf.float32) for v in (self.gamma, self.beta)
        )

        @tf.custom_gradient
        def normalise(x: tf.Tensor, gamma_port: tf.Tensor, beta_port: tf.Tensor) -> Any:
            mean, variance, rows = _global_moments(x)
            scale = tf.math.rsqrt(variance + self.epsilon)
            standard = (x - mean) * scale

            def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[Any, Any, Any]:
                own = tf.stack([_sum_of_rows(dy), _sum_of_rows(dy * standard)])
                values = rows * tf.cast(tf.reduce_prod(tf.shape(x)[1:-1]), tf.float64)
                offset, slope = tf.unstack(tf.cast(_over_workers(own) / values, tf.float32))
                return gamma * scale * (dy - offset - standard * slope), own[1], own[0]

            return (standard * gamma + beta, mean, variance), gradient

        outputs, mean, variance = normalise(
            tf.cast(inputs, tf.float32), _port(self.gamma), _port(self.beta)
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)


def _global_moments(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(mean, variance) float32 (channels,) over all workers' rows, and how many rows, float64."""
    means = tf.reduce_mean(x, [1, 2], keepdims=True)
    variances = tf.reduce_mean(tf.math.squared_difference(x, means), [1, 2])
    means = tf.cast(means[:, 0, 0], tf.float64)
    squares = tf.cast(variances, tf.float64) + tf.square(means)
    own = [
        tf.reduce_sum(means, 0),
        tf.reduce_sum(squares, 0),
        tf.cast(tf.shape(x)[:1], tf.float64),
    ]
    channels = x.shape[-1]
    mean, square, rows = tf.split(_over_workers(tf.concat(own, 0)), [channels, channels, 1])
    mean, square = mean / rows, square / rows
    return tf.cast(mean, tf.float32), tf.cast(square - tf.square(mean), tf.float32), rows


def _over_workers(values: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return context.all_reduce("SUM", values)


_REPRODUCIBLE: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Conv2D: ReproducibleConv2D,
    keras.layers.Dense: ReproducibleDense,
    keras.layers.BatchNormalization: ReproducibleBatchNormalization,
}
