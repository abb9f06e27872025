"""Keras layers whose sums do not depend on the number of workers; see ``reproducible.py``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

_ports: ContextVar[dict[int, tf.Tensor] | None] = ContextVar("ports", default=None)
_weights: ContextVar[tf.Tensor | None] = ContextVar("weights", default=None)


@contextmanager
def ports_of(
    variables: Sequence[keras.Variable], weights: tf.Tensor | None = None
) -> Iterator[list[tf.Tensor]]:
    """Within the block each of ``variables`` has a port: a float64 scalar to differentiate by.

    The gradient with respect to a port is the variable's gradient, float64 and of the variable's
    shape, summed over this worker's rows.

    Args:
        weights: of this worker's rows, 1 or 0 (k,); none: all are 1. A row of weight 0 enters no
            statistics, and its loss must be multiplied by its weight.
    """
    opened = [tf.zeros((), tf.float64) for _ in variables]
    token = _ports.set(dict(zip(map(id, variables), opened, strict=True)))
    weighed = _weights.set(weights)
    try:
        yield opened
    finally:
        _weights.reset(weighed)
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


class InUnits(keras.layers.Layer):
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

    def _convolution(
        self, x: tf.Tensor, kernel: keras.Variable, bias: keras.Variable | None, kind: str
    ) -> tf.Tensor:
        """``x`` (rows, height, width, channels) convolved, without the activation.

        Args:
            kind: Conv2D, of strides and dilations as the layer has; DepthwiseConv2dNative, of its
                strides; or Pointwise, which has neither.
        """
        options: dict[str, Any] = {"strides": [1, *self.strides, 1], "padding": "VALID"}
        if kind == "Pointwise":
            kind, options["strides"] = "Conv2D", [1, 1, 1, 1]
        else:
            options["padding"] = self.padding.upper()
            options["dilations"] = [1, *self.dilation_rate, 1]
        forward, to_input, to_kernel = (
            getattr(tf.raw_ops, kind + end) for end in ("", "BackpropInput", "BackpropFilter")
        )
        fixed = tf.cast(tf.convert_to_tensor(kernel), self.compute_dtype)
        offset = None
        if bias is not None:
            offset = tf.cast(tf.convert_to_tensor(bias), self.compute_dtype)

        @tf.custom_gradient
        def convolve(x: tf.Tensor, kernel_port: tf.Tensor, bias_port: tf.Tensor) -> Any:
            y = forward(input=x, filter=fixed, **options)
            if offset is not None:
                y = tf.nn.bias_add(y, offset)

            def gradient(dy: tf.Tensor) -> tuple[Any, Any, Any]:
                def of_unit(start: tf.Tensor) -> tf.Tensor:
                    rows = slice(start, start + self.unit)
                    return to_kernel(
                        input=x[rows], filter_sizes=fixed.shape, out_backprop=dy[rows], **options
                    )

                dx = to_input(input_sizes=tf.shape(x), filter=fixed, out_backprop=dy, **options)
                return dx, self._summed(tf.shape(x)[0], of_unit), _sum_of_rows(dy)

            return y, gradient

        return convolve(tf.cast(x, self.compute_dtype), _port(kernel), _port(bias))

    def _activated(self, outputs: tf.Tensor) -> tf.Tensor:
        return outputs if self.activation is None else self.activation(outputs)


class ReproducibleConv2D(InUnits, keras.layers.Conv2D):
    """``keras.layers.Conv2D`` (channels last, no groups) with its kernel's gradient in units."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if _ports.get() is None:
            return super().call(inputs)
        bias = self.bias if self.use_bias else None
        return self._activated(self._convolution(inputs, self.kernel, bias, "Conv2D"))


class ReproducibleDepthwiseConv2D(InUnits, keras.layers.DepthwiseConv2D):
    """``keras.layers.DepthwiseConv2D`` (channels last, not dilated), its gradient in units."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if _ports.get() is None:
            return super().call(inputs)
        bias = self.bias if self.use_bias else None
        found = self._convolution(inputs, self.kernel, bias, "DepthwiseConv2dNative")
        return self._activated(found)


class ReproducibleSeparableConv2D(InUnits, keras.layers.SeparableConv2D):
    """``keras.layers.SeparableConv2D`` (channels last, not dilated), its gradients in units."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        if _ports.get() is None:
            return super().call(inputs)
        x = self._convolution(inputs, self.depthwise_kernel, None, "DepthwiseConv2dNative")
        bias = self.bias if self.use_bias else None
        return self._activated(self._convolution(x, self.pointwise_kernel, bias, "Pointwise"))


class ReproducibleDense(keras.layers.Dense):
    """``keras.layers.Dense`` computed in float64 and rounded, which any division of rows shares.

    In evaluation too: by the loss on validation rows the best epoch is chosen.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        if isinstance(inputs, keras.KerasTensor):
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
            weights = _weights.get()
            weights = tf.ones(tf.shape(x)[:1]) if weights is None else tf.cast(weights, x.dtype)
            mean, variance, rows = _global_moments(x, weights)
            scale = tf.math.rsqrt(variance + self.epsilon)
            standard = (x - mean) * scale

            def gradient(dy: tf.Tensor, *_: tf.Tensor) -> tuple[Any, Any, Any]:
                own = tf.stack([_sum_of_rows(dy), _sum_of_rows(dy * standard)])
                values = rows * tf.cast(tf.reduce_prod(tf.shape(x)[1:-1]), tf.float64)
                offset, slope = tf.unstack(tf.cast(_over_workers(own) / values, tf.float32))
                dx = gamma * scale * (dy - offset - standard * slope)
                # Rows of weight 0 have no part in the statistics, so their gradient stays 0.
                return dx * weights[:, None, None, None], own[1], own[0]

            return (standard * gamma + beta, mean, variance), gradient

        outputs, mean, variance = normalise(
            tf.cast(inputs, tf.float32), _port(self.gamma), _port(self.beta)
        )
        for moving, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + new * (1.0 - self.momentum))
        return tf.cast(outputs, self.compute_dtype)


def _global_moments(x: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(mean, variance) float32 (channels,) over all workers' rows, and how many rows, float64.

    Args:
        weights: float32 (k,), 1 or 0 for each row.
    """
    means = tf.reduce_mean(x, [1, 2], keepdims=True)
    variances = tf.reduce_mean(tf.math.squared_difference(x, means), [1, 2])
    means = tf.cast(means[:, 0, 0], tf.float64)
    squares = tf.cast(variances, tf.float64) + tf.square(means)
    weights = tf.cast(weights, tf.float64)[:, None]
    own = [
        tf.reduce_sum(means * weights, 0),
        tf.reduce_sum(squares * weights, 0),
        tf.reduce_sum(weights, 0),
    ]
    channels = x.shape[-1]
    mean, square, rows = tf.split(_over_workers(tf.concat(own, 0)), [channels, channels, 1])
    mean, square = mean / rows, square / rows
    return tf.cast(mean, tf.float32), tf.cast(square - tf.square(mean), tf.float32), rows


def _over_workers(values: tf.Tensor) -> tf.Tensor:
    context = tf.distribute.get_replica_context()
    return context.all_reduce("SUM", values)


DEPTHWISE = (keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)

REPRODUCIBLE: dict[type[keras.layers.Layer], type[keras.layers.Layer]] = {
    keras.layers.Conv2D: ReproducibleConv2D,
    keras.layers.DepthwiseConv2D: ReproducibleDepthwiseConv2D,
    keras.layers.SeparableConv2D: ReproducibleSeparableConv2D,
    keras.layers.Dense: ReproducibleDense,
    keras.layers.BatchNormalization: ReproducibleBatchNormalization,
}
