"""Batch prediction with decoding, against the bare model on pixels in memory.

Both sides run the same file of a ResNet50V2 in the same precision on the same cores and batches.
Weights are random: they change no speed. Ours is counted from the first block's answers on, when
Ray's actor has been started and the model traced.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from catdog import console
from catdog.benchmarks import _setup
from catdog.cluster import machine
from catdog.config import ModelName

MODEL: ModelName = "resnet50v2"
#: Photos of a round on CPUs: some 15 s of ResNet50V2 at 224 pixels on two cores.
_MOST_ON_CPUS = 1024


@dataclass(frozen=True)
class _Task:
    """What the process of the bare loop is told; it also makes the model's file."""

    folder: str
    file: str
    image_size: int
    precision: str
    threads: int


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of rounds taken in turn, in images per second, and the ratio between them."""
    import ray

    from catdog.cluster.resources import Resources, plan_workers
    from catdog.inference.batch import BATCH, Pool
    from catdog.presets import PRESETS

    cores = machine.cores()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
    try:
        pool = Pool.of_cluster()
        precision = plan_workers(PRESETS["laptop"](), Resources.at_most()).precision
        count = arguments.files if pool.use_gpu else min(arguments.files, _MOST_ON_CPUS)
        with _setup.workplace(arguments.work) as work:
            folder = _setup.repeated(arguments.data, count, arguments.image_size, work)
            task = _Task(
                str(folder), str(work / "model.keras"), arguments.image_size, precision, pool.cpus
            )
            speeds = _rounds(task, pool, arguments.rounds)
    finally:
        ray.shutdown()
    ours, bare = (statistics.median(speeds[name]) for name in ("catdog", "bare"))
    return {
        "images_per_second": round(ours, 1),
        "ratio_to_bare_model": round(ours / bare, 3),
        "bare_images_per_second": round(bare, 1),
        "model": MODEL,
        "precision": precision,
        "cores": dict.fromkeys(speeds, pool.cpus),
        "actors": asdict(pool),
        "codec": "simplejpeg (libjpeg-turbo)",
        "filter": "OpenCV bilinear, area above 2.6 times",
        "photos": count,
        "batch_size": BATCH,
        "image_size": arguments.image_size,
        "real_photos": arguments.data is not None,
        "rounds": arguments.rounds,
        "rates": {name: [round(rate, 2) for rate in rates] for name, rates in speeds.items()},
    }


def _rounds(task: _Task, pool: Any, rounds: int) -> dict[str, list[float]]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_bare_loop, args=(task, theirs), daemon=True)
    process.start()
    theirs.close()
    speeds: dict[str, list[float]] = {"bare": [], "catdog": []}
    try:
        ours.recv()  # the model's file is written and its loop traced
        for turn in range(rounds):
            ours.send("again")
            # Several actors are several times the cores of the bare loop.
            speeds["bare"].append(pool.count * ours.recv())
            speeds["catdog"].append(_batch_prediction(task, pool))
            for name, rates in speeds.items():
                console.say(f"round {turn + 1}  {name:8} {rates[-1]:8.1f} images/s")
    finally:
        ours.close()
        process.join()
    return speeds


def _batch_prediction(task: _Task, pool: Any) -> float:
    """Photos per second from the first block's answers on."""
    from catdog.data.graph import quiet
    from catdog.errors import UserError
    from catdog.inference.batch import list_photos, predict_files
    from catdog.inference.finished import FinishedModel
    from catdog.storage import Location

    told: list[tuple[int, float]] = []
    model = FinishedModel(MODEL, Location.of(Path(task.file).parent), 1.0)
    with quiet():
        answers = predict_files(
            list_photos(task.folder),
            model,
            pool,
            lambda done, total: told.append((done, time.perf_counter())),
        )
    assert answers["reason"].isna().all(), "a benchmark photo was not predicted"
    if len(told) < 2:
        raise UserError(f"--files: {len(answers)} photos are one block; give more")
    (first, start), (last, end) = told[0], told[-1]
    return (last - first) / (end - start)


def _bare_loop(task: _Task, pipe: Connection) -> None:
    """In a process of its own: the model's file, the pixels in memory, a loop for each message."""
    os.environ["OMP_NUM_THREADS"] = str(task.threads)  # as Ray sets it for its actors
    import keras
    import numpy as np
    import tensorflow as tf

    from catdog.data.images import Photo, inspect
    from catdog.inference.batch import BATCH
    from catdog.models import registry
    from catdog.models.saving import load_keras, logits_of, save_keras
    from catdog.storage import Location

    tf.config.threading.set_intra_op_parallelism_threads(task.threads)
    keras.config.set_dtype_policy(task.precision)
    size = task.image_size
    file = Location.of(task.file)
    save_keras(registry.build(registry.Architecture(MODEL, size, size, "-1..1", 0.0)), file)
    photos = (inspect(path.read_bytes(), size) for path in sorted(Path(task.folder).iterdir()))
    pixels = np.stack([photo.pixels for photo in photos if isinstance(photo, Photo)])
    forward = logits_of(load_keras(file))
    forward(pixels[:BATCH]).numpy()
    pipe.send("ready")
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        started = time.perf_counter()
        for at in range(0, len(pixels), BATCH):
            forward(pixels[at : at + BATCH]).numpy()
        pipe.send(len(pixels) / (time.perf_counter() - started))
