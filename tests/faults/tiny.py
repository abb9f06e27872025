"""A training small enough to break again and again: the top of the base CNN on made-up activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

EPOCHS = 6


def write_rows(folder: Path) -> None:
    """320 rows (4, 4, 256) to train on and 50 to validate on, below ``folder / "rows"``."""
    from catdog.data.shards import write_shard
    from catdog.storage import Location

    generator = np.random.default_rng(0)
    files: dict[str, list[str]] = {}
    for split, count in (("train", 320), ("val", 50)):
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
        features=str(folder / "rows"),
        boundary="pool4",
    )


def train_here(job: Any) -> dict[str, Any]:
    """The same training in this process alone, without Ray; returns its facts."""
    import keras
    import tensorflow as tf

    from catdog.training.loop import train_model
    from catdog.training.progress import Rank
    from catdog.training.watchdog import Watchdog

    keras.backend.clear_session()
    keras.config.set_dtype_policy("float32")
    rank = Rank(
        rank=0,
        world_size=1,
        strategy=tf.distribute.get_strategy(),
        tell=lambda message: None,
        report=lambda row: None,
        watchdog=Watchdog(600),
    )
    return train_model(job, rank)
