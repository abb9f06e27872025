"""A backbone with random weights whose early features are usable, where no pretrained ones are.

A head on random features tells more than a network that is trained for some dozens of steps, at the
cost of a probe. The statistics of batch normalisation are those of training photos: with Keras'
initial ones (mean 0, variance 1) activations grow or vanish from layer to layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from catdog.config import digest
from catdog.data.prepare import PreparedSet
from catdog.models.registry import Architecture
from catdog.models.weights import RANDOM, Weights, pack
from catdog.storage import Location
from catdog.training.inputs import open_dataset
from catdog.training.pool import Runner
from catdog.training.progress import Rank

#: Photos whose statistics are taken, at 96 pixels a side; fewer of larger ones, for memory.
PHOTOS_AT_96 = 256


def draw(
    pool: Runner, dataset: PreparedSet, architecture: Architecture, seed: int, storage: Location
) -> Weights:
    """Random weights for ``architecture``, drawn once and kept in storage."""
    known = [
        architecture.name,
        architecture.model_image_size,
        architecture.scale,
        seed,
        dataset.identity,
    ]
    target = storage / "weights" / f"{architecture.name}-random-{digest(known)}.npz"
    if not target.exists():
        content = pool.run([DrawTask(dataset.root.uri, architecture, seed)])[0][0]
        target.write_bytes(content)
    return Weights(target.uri, RANDOM, target.name.removesuffix(".npz"), architecture.scale)


@dataclass(frozen=True)
class DrawTask:
    """Rank 0 draws the weights: some seconds."""

    dataset: str
    architecture: Architecture
    seed: int

    def run(self, rank: Rank) -> bytes | None:
        if not rank.is_chief:
            return None
        import keras

        from catdog.models import registry

        keras.backend.clear_session()
        keras.config.set_dtype_policy("float32")
        keras.utils.set_random_seed(self.seed)
        model = registry.build(self.architecture)
        norms = [
            layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)
        ]
        for layer in norms:
            layer.momentum = 0.0  # the statistics of the one batch that follows
        model(self._pixels(), training=True)
        arrays = [variable.numpy() for variable in registry.backbone_variables(model)]
        return pack(arrays)[0]

    def _pixels(self) -> Any:
        rows = open_dataset(self.dataset).rows("train")
        count = max(32, round(PHOTOS_AT_96 * (96 / self.architecture.model_image_size) ** 2))
        return rows.gather(np.arange(min(count, len(rows))))
