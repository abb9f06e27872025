"""What a training starts from: pretrained weights, and a step with its optimizer."""

from __future__ import annotations

from typing import Any

import keras

from catdog.data.shards import Rows
from catdog.models import registry
from catdog.models.weights import unpack
from catdog.storage import Location
from catdog.training.augmentation import make_augmentation, make_mixing
from catdog.training.job import TrainingJob
from catdog.training.knobs import Knobs
from catdog.training.optimization import make_optimizer
from catdog.training.progress import Rank
from catdog.training.step import GlobalStep
from catdog.training.weighting import class_weights


def make_step(
    job: TrainingJob,
    rank: Rank,
    network: keras.Model,
    row_dtype: Any,
    weights: tuple[float, float] | None,
    knobs: Knobs,
    *,
    exact: bool,
) -> GlobalStep:
    """The step of ``network`` with an optimizer of its own, both built."""
    asked = job.applied_augmentation
    decay = getattr(job.settings, "layer_decay", 1.0)
    optimizer = make_optimizer(
        job.settings, registry.rate_factors(job.architecture.name, network, decay)
    )
    optimizer.build(network.trainable_variables)
    optimizer.weight_decay = knobs.weight_decay
    return GlobalStep(
        rank.strategy,
        network,
        optimizer,
        make_augmentation(asked),
        label_smoothing=knobs.label_smoothing,
        row_dtype=row_dtype,
        mixing=make_mixing(asked),
        class_weights=weights,
        reproducible=exact,
        seed=job.seed,
        dropout=knobs.dropout,
    )


def weights_of_classes(job: TrainingJob, rank: Rank, rows: Rows) -> tuple[float, float] | None:
    found = class_weights(rows.labels, job.settings.class_weights)
    if found is not None:
        cat, dog = found
        rank.say(f"{job.name}: in the loss a cat counts {cat:.2f} and a dog {dog:.2f}")
    return found


def load_start(model: keras.Model, job: TrainingJob) -> None:
    """Pretrained backbone and probed head, where the job names them; local assignments."""
    if job.backbone is not None:
        arrays = unpack(Location.of(job.backbone).read_bytes())
        for variable, array in zip(registry.backbone_variables(model), arrays, strict=True):
            variable.assign(array)
    if job.head is not None:
        kernel, bias = unpack(Location.of(job.head).read_bytes())
        model.get_layer("logit").set_weights([kernel, bias])
