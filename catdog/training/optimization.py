"""AdamW with a per-step learning rate, for gradients that are already all-reduced."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from catdog.cluster import private
from catdog.config import FineTuneSettings, ScratchSettings


class SummedAdamW(keras.optimizers.AdamW):
    """AdamW for gradients that are already summed over workers.

    Keras clips and accumulates before its own all-reduce, so each worker would clip its share;
    here the sum comes first. ``rate_factors`` gives layers a smaller rate (by variable path). The
    names that Keras keeps to itself are listed in :mod:`catdog.cluster.private`.
    """

    def __init__(
        self, *args: Any, rate_factors: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.rate_factors = rate_factors or {}
        self._factor_of: dict[Any, float] = {}

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        self._factor_of = {
            self._var_key(variable): self.rate_factors.get(variable.path, 1.0)
            for variable in variables
        }

    def _backend_update_step(
        self, grads: Any, trainable_variables: Any, learning_rate: Any
    ) -> None:
        # Without Keras' detour through the cross-replica context (one context switch and one
        # traced function for every variable): each worker holds one replica and all gradients.
        for gradient, variable in zip(grads, trainable_variables, strict=True):
            raw = variable.value if isinstance(variable, keras.Variable) else variable
            factor = self._factor_of.get(self._var_key(variable), 1.0)
            self.update_step(gradient, raw, learning_rate * factor)

    def _backend_increment_gradient_accumulators(self, grads: Any, acc_grads: Any) -> None:
        # Keras' own waits for all replicas, which TensorFlow refuses within a condition.
        for gradient, accumulated in zip(grads, acc_grads, strict=True):
            accumulated.assign(accumulated + gradient)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Adam's update of one variable in one kernel; Keras' own takes a dozen.

        For ResNet50V2's 174 variables that is most of the optimizer's graph and of its time.
        """
        mean, square = private.moments(self, variable)
        # A variable, or with accumulation a tensor: the number of updates, not of steps.
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=mean.value.handle,
            v=square.value.handle,
            beta1_power=tf.pow(self.beta_1, step),
            beta2_power=tf.pow(self.beta_2, step),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )

    def _apply_weight_decay(self, variables: list[keras.Variable]) -> None:
        if self.weight_decay is None:
            return
        rate = self.learning_rate * self.weight_decay
        for variable in variables:
            if self._use_weight_decay(variable):
                variable.assign(variable * (1 - rate * self._factor_of[self._var_key(variable)]))


def make_optimizer(
    settings: ScratchSettings | FineTuneSettings, rate_factors: dict[str, float] | None = None
) -> SummedAdamW:
    """AdamW whose rate is a variable; :class:`RateSchedule` says what it is at each step."""
    optimizer = SummedAdamW(
        settings.learning_rate,
        weight_decay=settings.weight_decay,
        global_clipnorm=settings.clip_norm,
        use_ema=settings.ema_momentum is not None,
        ema_momentum=settings.ema_momentum or 0.99,
        gradient_accumulation_steps=(
            settings.accumulation_steps if settings.accumulation_steps > 1 else None
        ),
        rate_factors=rate_factors,
    )
    # Loshchilov & Hutter decay weights, not offsets and scales.
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


@dataclass(frozen=True)
class RateSchedule:
    """Linear warm-up, then half a cosine down to zero, by step.

    Computed outside the graph: a schedule inside it is evaluated, and traced, once a variable.
    """

    peak: float
    warmup_steps: int
    total_steps: int

    @classmethod
    def of(cls, settings: ScratchSettings | FineTuneSettings, steps_per_epoch: int) -> RateSchedule:
        warmup = min(settings.warmup_epochs, settings.epochs / 2)
        total = settings.epochs * steps_per_epoch
        return cls(settings.learning_rate, max(1, round(warmup * steps_per_epoch)), total)

    def at(self, step: int) -> float:
        """The rate of the step with this number, from 0."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return self.peak * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
