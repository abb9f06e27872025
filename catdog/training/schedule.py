"""The learning rate by step. Without Keras: trials of the head need nothing else of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from catdog.config import FineTuneSettings, ScratchSettings


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
