"""The training loop against plain ``keras.Model.fit``, and two workers against one.

The base CNN on rows in memory, or in the page's cache: nothing is decoded, augmented or dropped
out of the measurement but the first epoch, which traces and warms up.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from catdog import console
from catdog.benchmarks import _setup
from catdog.cluster import machine
from catdog.cluster.connection import connected
from catdog.cluster.resources import dtype_policy
from catdog.cluster.workers import Workers
from catdog.config import ScratchSettings
from catdog.data.shards import write_shard
from catdog.models.registry import Architecture
from catdog.storage import Location
from catdog.training.job import TrainingJob
from catdog.training.pool import train

SIDE = 128
BATCH = 64
PHOTOS = 512
EPOCHS = 3

#: The cores it computes on, and what measures it: images per second.
Side = tuple[int, Callable[[], float]]


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of rounds taken in turn, images per second from the second epoch on."""
    cores = machine.cores()
    # Priority equal to that of plain Keras, whatever else the machine does.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray reads this name)
    with _setup.workplace(arguments.work) as work, connected():
        _write_rows(work)
        # What a run takes with nothing set.
        auto = dtype_policy("auto", use_gpu=False)
        sides: dict[str, Side] = {
            "keras_fit": (cores, lambda: _keras_fit(work, cores, "float32")),
            "ray_worker": (cores, lambda: _ray(work, 1, cores, "float32")),
            "one_worker_one_core": (1, lambda: _ray(work, 1, 1, auto)),
            "two_workers_one_core_each": (2, lambda: _ray(work, 2, 1, auto)),
            "keras_fit_one_core": (1, lambda: _keras_fit(work, 1, auto)),
            "two_keras_fits_one_core_each": (2, lambda: _keras_fit(work, 1, auto, 2)),
        }
        if auto != "float32":
            sides["ray_worker_auto"] = (cores, lambda: _ray(work, 1, cores, auto))
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(arguments.rounds):
            for name, (_, side) in sides.items():
                speeds[name].append(side())
                console.say(f"round {turn + 1}  {name:28} {speeds[name][-1]:8.1f} images/s")
    found = {name: statistics.median(values) for name, values in speeds.items()}

    def ratio(ours: str, theirs: str) -> float:
        return round(found[ours] / found[theirs], 3)

    own = "ray_worker_auto" if "ray_worker_auto" in found else "ray_worker"
    return {
        "ratio_to_keras_fit": ratio("ray_worker", "keras_fit"),
        "ratio_to_keras_fit_auto_precision": ratio(own, "keras_fit"),
        "auto_precision": auto,
        "two_worker_speedup": ratio("two_workers_one_core_each", "one_worker_one_core"),
        # Two processes that share nothing but the machine: what its cores are worth beside another.
        "two_process_limit": ratio("two_keras_fits_one_core_each", "keras_fit_one_core"),
        "images_per_second": {name: round(speed, 1) for name, speed in found.items()},
        "images_per_second_by_round": {
            name: [round(speed, 1) for speed in each] for name, each in speeds.items()
        },
        "cores": {name: used for name, (used, _) in sides.items()},
        "photos": PHOTOS,
        "image_size": SIDE,
        "batch_size": BATCH,
        "model": "base_cnn",
        "real_photos": False,
        "rounds": arguments.rounds,
    }


def _write_rows(work: Path) -> None:
    generator = np.random.default_rng(0)
    files = {}
    for split, count in (("train", PHOTOS), ("val", BATCH)):
        rows = generator.integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
        target = Location.of(work) / split / "0.arrow"
        write_shard(target, rows, labels=np.arange(count) % 2, uris=[str(n) for n in range(count)])
        files[split] = ["0.arrow"]
    (Location.of(work) / "manifest.json").write_json({"files": files})


def _architecture() -> Architecture:
    return Architecture("base_cnn", SIDE, SIDE, "-1..1", 0.2)


def _ray(work: Path, count: int, cpus: int, policy: str) -> float:
    """Images per second of ``count`` Ray workers, all together."""
    with _setup.workplace(str(work)) as output:
        job = TrainingJob(
            output=str(output / "model"),
            architecture=_architecture(),
            phase="scratch",
            settings=ScratchSettings(epochs=EPOCHS),
            batch_size=BATCH,
            seed=0,
            dataset="",
            photos="",
            features=str(work),
        )
        workers = Workers(count, cpus, use_gpu=False, precision=policy)
        result = train([job], workers, Location.of(output / "ray"), lambda message: None)[0]
    return statistics.median(row.images_per_second or 0.0 for row in result.history[1:])


def _keras_fit(work: Path, cores: int, policy: str, count: int = 1) -> float:
    """Images per second of ``Model.fit`` in ``count`` processes at once, all together."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "catdog.benchmarks.train", str(work), str(cores), policy],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        for _ in range(count)
    ]
    told = [process.communicate()[0] for process in processes]
    return sum(float(json.loads(text.splitlines()[-1])) for text in told)


def _fit_plainly(work: str, cores: int, policy: str) -> float:
    import time

    import keras
    import tensorflow as tf

    from catdog.data.shards import open_rows
    from catdog.models import registry

    tf.config.threading.set_intra_op_parallelism_threads(cores)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, cores))
    keras.config.set_dtype_policy(policy)
    rows = open_rows([Location.of(work) / "train" / "0.arrow"])
    pixels = rows.gather(np.arange(len(rows)))
    model = registry.build(_architecture())
    model.compile(keras.optimizers.AdamW(1e-3), "binary_crossentropy", metrics=["accuracy"])
    times = [time.monotonic()]
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: times.append(time.monotonic()))
    model.fit(pixels, rows.labels, BATCH, epochs=EPOCHS, verbose=0, callbacks=[note])
    epochs = [end - start for start, end in itertools.pairwise(times[1:])]
    return len(rows) / statistics.median(epochs)


if __name__ == "__main__":
    print(json.dumps(_fit_plainly(sys.argv[1], int(sys.argv[2]), sys.argv[3])))
