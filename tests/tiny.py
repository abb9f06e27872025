"""A training small enough to break again and again: the base CNN's top on made-up activations."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from catdog.runs.records import Epoch

EPOCHS = 6


def write_rows(folder: Path) -> None:
    """320 rows (4, 4, 256) to train on and 47 to validate on, below ``folder / "rows"``."""
    from catdog.data.shards import write_shard
    from catdog.storage import Location

    generator = np.random.default_rng(0)
    files: dict[str, list[str]] = {}
    for split, count in (("train", 320), ("val", 47)):
        labels = np.arange(count) % 2
        rows = generator.normal(size=(count, 4, 4, 256)).astype(np.float16)
        rows[:, :, :, :4] += labels[:, None, None, None]
        target = Location.of(str(folder / "rows" / split / "0.arrow"))
        write_shard(target, rows, labels=labels, uris=[f"{n}.jpg" for n in range(count)])
        files[split] = ["0.arrow"]
    Location.of(str(folder / "rows" / "manifest.json")).write_json({"files": files})


def make_job(folder: Path, output: str, dropout: float = 0.2, **settings: Any) -> Any:
    """Training on those rows: 40 steps an epoch, :data:`EPOCHS` epochs."""
    from catdog.config import ScratchSettings
    from catdog.models.registry import Architecture
    from catdog.training.job import TrainingJob

    return TrainingJob(
        output=output if "://" in output else str(folder / output),
        architecture=Architecture("base_cnn", 96, 96, "-1..1", dropout),
        phase="scratch",
        settings=ScratchSettings(**({"epochs": EPOCHS, "learning_rate": 1e-4} | settings)),
        batch_size=8,
        seed=0,
        dataset="",
        photos="",
        features=str(folder / "rows"),
        boundary="pool4",
    )


def evaluated_by_keras(job: Any) -> tuple[float, float]:
    """(loss, accuracy) of the saved model over the validation rows, in one batch."""
    import keras

    from catdog.models import registry
    from catdog.models.saving import load_keras
    from catdog.storage import Location
    from catdog.training.inputs import open_inputs

    _, rows = open_inputs(job)
    model = load_keras(Location.of(job.output) / "model.keras")
    _, network = registry.split_at(model, job.boundary)
    logits = np.asarray(network(rows.gather(np.arange(len(rows)))))[:, 0].astype(np.float64)
    loss = keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64")
    return float(loss(rows.labels, logits)), float(((logits > 0) == rows.labels).mean())


class Stopped(Exception):
    """Raised by a test where a training is to end as if it were killed."""


def train_here(
    job: Any,
    epochs: int | None = None,
    warned: Any = lambda: None,
    kept: dict[str, Any] | None = None,
) -> list[Epoch]:
    """The rows of ``job``'s epochs, trained in this process alone, without Ray.

    After ``epochs`` of them it ends as if it were killed; without a number it trains to its end.
    """
    import keras

    from catdog.cluster.workers import Workers
    from catdog.training.loop import train_model
    from catdog.training.on_worker import strategy
    from catdog.training.progress import Rank
    from catdog.training.watchdog import Watchdog

    rows: list[Epoch] = []

    def report(row: Epoch) -> bool:
        rows.append(row)
        if len(rows) == epochs:
            raise Stopped
        return True

    keras.config.set_dtype_policy("float32")
    with Watchdog(600) as watchdog, suppress(Stopped):
        rank = Rank(
            rank=0,
            world_size=1,
            strategy=strategy(Workers(1, 2, False, "float32"), 1),
            tell=lambda message: None,
            report=report,
            watchdog=watchdog,
            warned=warned,
            kept={} if kept is None else kept,
        )
        train_model(job, rank)
    return rows
