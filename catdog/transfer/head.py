"""Training the head alone on kept features, in NumPy.

One dense unit with a sigmoid, from zero, by the same steps as :mod:`catdog.training` takes: AdamW
on clipped gradients, dropout, smoothed labels, warm-up and cosine, the same photos in the same
batches. Without dropout the losses equal those of a Ray Train run with these settings; with it
they differ by what is drawn. NumPy, because a step is some 10 µs of arithmetic and a process
that imports TensorFlow starts in 5 s or more.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catdog.config import FineTuneSettings
from catdog.data.feed import epoch_order, one_view_each
from catdog.training.schedule import RateSchedule
from catdog.training.weighting import class_weights
from catdog.transfer.features import FeatureSet

Vector = NDArray[np.float32]

#: Of Keras' Adam.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7


class HeadDiverged(Exception):
    """The loss is not finite any more."""


@dataclass(frozen=True)
class HeadData:
    """Features (n, width) float32 and labels (n,) float32 of both splits, in memory.

    A training photo has ``views`` rows, side by side.
    """

    train: tuple[NDArray[np.float32], Vector]
    val: tuple[NDArray[np.float32], Vector]
    views: int = 1

    @classmethod
    def load(cls, features: FeatureSet) -> HeadData:
        def arrays(split: str) -> tuple[NDArray[np.float32], Vector]:
            rows = features.rows(split)
            found = rows.gather(np.arange(len(rows))).astype(np.float32)
            return found, rows.labels.astype(np.float32)

        return cls(arrays("train"), arrays("val"), features.manifest["views"])


@dataclass
class _AdamW:
    """Keras' AdamW for the head; ``values`` is the kernel with the bias as its last element."""

    values: Vector
    weight_decay: float
    clip_norm: float | None
    step: int = 0
    mean: Vector = field(init=False)
    square: Vector = field(init=False)

    def __post_init__(self) -> None:
        self.mean, self.square = np.zeros_like(self.values), np.zeros_like(self.values)

    def update(self, gradient: Vector, rate: float) -> None:
        self.step += 1
        if self.clip_norm is not None:
            norm = float(np.linalg.norm(gradient))
            if norm > self.clip_norm:
                gradient = gradient * np.float32(self.clip_norm / norm)
        # The bias is not decayed.
        self.values[:-1] *= np.float32(1 - rate * self.weight_decay)
        self.mean += (gradient - self.mean) * np.float32(1 - BETA_1)
        self.square += (gradient * gradient - self.square) * np.float32(1 - BETA_2)
        scale = rate * math.sqrt(1 - BETA_2**self.step) / (1 - BETA_1**self.step)
        self.values -= np.float32(scale) * self.mean / (np.sqrt(self.square) + np.float32(EPSILON))


def train_head(
    data: HeadData, settings: FineTuneSettings, batch_size: int, seed: int
) -> list[dict[str, Any]]:
    """A row for every epoch: epoch, loss, accuracy, val_loss, val_accuracy, seconds, ….

    Losses are plain binary cross-entropy in nats; the training's are those of the steps, with
    dropout. ``patience`` ends it early; averages of weights and accumulation are not for a head.

    Raises:
        HeadDiverged: the loss is NaN or infinite.
    """
    x, y = data.train
    photos = len(x) // data.views
    size = min(batch_size, photos)
    steps = max(1, photos // batch_size)
    schedule = RateSchedule.of(settings, steps)
    head = _AdamW(np.zeros(x.shape[1] + 1, np.float32), settings.weight_decay, settings.clip_norm)
    counting = np.ones_like(y)
    if (weights := class_weights(y, settings.class_weights)) is not None:
        counting = np.where(y > 0.5, weights[1], weights[0]).astype(np.float32)
    rows: list[dict[str, Any]] = []
    with np.errstate(all="ignore"):  # what overflows is told as a loss that is not finite
        for epoch in range(1, settings.epochs + 1):
            started = time.monotonic()
            order = one_view_each(epoch_order(photos, seed, epoch), data.views, epoch)
            generator = np.random.Generator(np.random.SFC64([seed, epoch]))
            sums = np.zeros(2)
            whole = order[: steps * size].reshape(steps, size)
            for index, batch in enumerate(whole, start=(epoch - 1) * steps):
                kept = _dropped_out(x[batch], settings.dropout, generator)
                logits = kept @ head.values[:-1] + head.values[-1]
                sums += _sums(logits, y[batch])
                gradient = _gradient(kept, logits, y[batch], counting[batch], settings)
                head.update(gradient, schedule.at(index))
            val_sums = _sums(data.val[0] @ head.values[:-1] + head.values[-1], data.val[1])
            loss, accuracy = sums / (steps * size)
            val_loss, val_accuracy = val_sums / len(data.val[0])
            if not (math.isfinite(loss) and math.isfinite(val_loss)):
                raise HeadDiverged(f"the loss is {loss} after epoch {epoch}")
            seconds = time.monotonic() - started
            rows.append(
                {
                    "phase": "head",
                    "epoch": epoch,
                    "loss": float(loss),
                    "accuracy": float(accuracy),
                    "val_loss": float(val_loss),
                    "val_accuracy": float(val_accuracy),
                    "seconds": seconds,
                    "images_per_second": steps * size / max(seconds, 1e-9),
                    "learning_rate": schedule.at((epoch - 1) * steps),
                }
            )
            if _is_exhausted(rows, settings.patience):
                break
    return rows


def _dropped_out(
    x: NDArray[np.float32], rate: float, generator: np.random.Generator
) -> NDArray[np.float32]:
    if not rate:
        return x
    kept = generator.random(x.shape, np.float32) >= rate
    return x * (kept.astype(np.float32) / np.float32(1 - rate))


def _gradient(
    x: NDArray[np.float32],
    logits: Vector,
    labels: Vector,
    counting: Vector,
    settings: FineTuneSettings,
) -> Vector:
    """Of the mean cross-entropy against smoothed labels: (width + 1,), the bias last.

    ``counting`` is what each row's loss counts, 1 on average over all photos.
    """
    smoothing = np.float32(settings.label_smoothing)
    target = labels * (1 - smoothing) + np.float32(0.5) * smoothing
    error = (1 / (1 + np.exp(-logits)) - target) * counting / np.float32(len(x))
    return np.append(error @ x, error.sum()).astype(np.float32)


def _sums(logits: Vector, labels: Vector) -> NDArray[np.float64]:
    """(sum of binary cross-entropies in nats, number right)"""
    losses = np.logaddexp(0, logits.astype(np.float64)) - labels * logits
    return np.array([losses.sum(), ((logits > 0) == (labels > 0.5)).sum()])


def _is_exhausted(rows: list[dict[str, Any]], patience: int | None) -> bool:
    if patience is None:
        return False
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    return int(rows[-1]["epoch"]) - int(best["epoch"]) >= patience
