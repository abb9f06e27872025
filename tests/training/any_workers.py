"""A script: the same small training with some numbers of workers, on a Ray cluster of its own.

Augmented, mixed and dropped out; three steps an epoch of seven photos each, and five photos to
validate on, so that shares differ and some have one photo. Prints a JSON object: for each number
of workers the history, the facts, a digest of the model's weights and what was said to people.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import catdog.training.pool as pool
from catdog.cluster.numerics import use_onednn
from catdog.cluster.workers import Workers
from catdog.config import AugmentationSettings, ScratchSettings
from catdog.data.shards import write_shard
from catdog.models.registry import Architecture
from catdog.runs.messages import Message, Say
from catdog.storage import Location
from catdog.training.job import TrainingJob
from catdog.training.on_worker import TrainTask, _prepare_process, strategy, work
from catdog.training.pool import results_of, train
from catdog.training.progress import Rank
from catdog.training.watchdog import Watchdog

KEYS = ("loss", "accuracy", "val_loss", "val_accuracy")


def mixed(setting: str) -> Callable[[dict[str, Any]], None]:
    """What runs on a worker: as always, but the last one has an environment variable more."""

    def work_otherwise(config: dict[str, Any]) -> None:
        import ray.train

        context = ray.train.get_context()
        if context.get_world_rank() == context.get_world_size() - 1:
            name, _, value = setting.partition("=")
            os.environ[name] = value
        work(config)

    return work_otherwise


def write_photos(folder: Path) -> None:
    generator = np.random.default_rng(0)
    files = {}
    for split, count in (("train", 22), ("val", 5)):
        rows = generator.integers(0, 256, (count, 96, 96, 3), np.uint8)
        target = Location.of(folder) / split / "0.arrow"
        write_shard(target, rows, labels=np.arange(count) % 2, uris=[str(n) for n in range(count)])
        files[split] = ["0.arrow"]
    (Location.of(folder) / "manifest.json").write_json({"files": files})


def trained(folder: Path, count: int, epochs: int) -> dict[str, Any]:
    job = TrainingJob(
        output=str(folder / f"w{count}"),
        architecture=Architecture("base_cnn", 96, 96, "-1..1", dropout=0.3),
        phase="scratch",
        settings=ScratchSettings(epochs=epochs),
        batch_size=7,
        seed=0,
        dataset="",
        photos="",
        features=str(folder),
        augmentation=AugmentationSettings(translation=0.1, contrast=0.2, mixup=0.3, cutmix=0.3),
    )
    said: list[str] = []

    def listen(message: Message) -> None:
        if isinstance(message, Say):
            said.append(message.line)

    workers = Workers(count, 1, use_gpu=False, precision="float32", max_restarts=0)
    if count == 1:  # needs nobody beside it
        train_in_this_process(job, workers, listen)
        result = results_of([job])[0]
    else:
        result = train([job], workers, Location.of(folder / f"ray{count}"), listen)[0]
    return {
        "history": [[getattr(row, key) for key in KEYS] for row in result.history],
        "facts": {"reproducible": result.reproducible, "varies": result.varies},
        "weights": digest(folder / f"w{count}/checkpoints"),
        "said": said,
    }


def train_in_this_process(job: TrainingJob, workers: Workers, listen: Any) -> None:
    """What a lone worker does, without a group and its cluster."""
    _prepare_process(workers, xla=False)
    rank = Rank(0, 1, strategy(workers, 1), listen, lambda row: True, Watchdog(600))
    TrainTask(job, "float32").run(rank)


def digest(checkpoints: Path) -> str:
    """Of all arrays of the last checkpoint: weights, moments and statistics."""
    made = hashlib.sha256()
    with np.load(max(checkpoints.glob("epoch-*.npz"))) as archive:
        for name in sorted(set(archive.files) - {"meta"}):
            made.update(archive[name].tobytes())
    return made.hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("counts", nargs="+", type=int)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--last", metavar="NAME=VALUE", help="in the last worker's environment")
    given = parser.parse_args()
    import ray

    use_onednn()
    if given.last:
        pool.work = mixed(given.last)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as sockets:
        write_photos(Path(folder))
        ray.init(
            num_cpus=3,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=100_000_000,
            _temp_dir=sockets,
        )
        found = {}
        for count in given.counts:
            found[count] = trained(Path(folder), count, given.epochs)
            if not found[count]["facts"]["reproducible"]:
                break  # more of them would show nothing else
        ray.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
