"""The data stage against ``tf.data``, ``read_images`` and the codec itself, on the same files.

The stage goes from file names to the finished prepared set on disk with every check on.
``tf.data`` decodes and resizes with AUTOTUNE and writes nothing; the codec loop is what the
same decoder and filter do in as many processes as cores, and nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from catdog import console
from catdog.benchmarks import _setup
from catdog.cluster import machine


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of rounds taken in turn, in images per second, and the ratios between them."""
    import ray

    cores = machine.cores()
    count, size = arguments.files, arguments.image_size
    with _setup.workplace(arguments.work) as work:
        folder = _setup.repeated(arguments.data, count, size, work)
        quarter = _setup.repeated(arguments.data, max(count // 4, 256), size, work)
        # Workers of equal priority: whatever else the machine does would slow Ray's side alone.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray reads this name)
        ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=False)
        try:
            stage(folder, size, work)  # warms workers, imports, file cache and the disk's blocks
            sides: dict[str, Callable[[], float]] = {
                "catdog": lambda: stage(folder, size, work),
                "tf_data": lambda: _in_child(tf_data, folder, size, cores),
                "read_images": lambda: read_images(folder, size),
                "codec": lambda: codec(folder, size, cores),
            }
            seconds = _rounds(sides, arguments.rounds, count)
            memory = [_peak_memory(photos, size, work) for photos in (quarter, folder)]
        finally:
            ray.shutdown()
    speed = {name: count / statistics.median(times) for name, times in seconds.items()}
    ours = speed["catdog"]
    return {
        "images_per_second": round(ours, 1),
        "ratio_to_tf_data": round(ours / speed["tf_data"], 3),
        "ratio_to_read_images": round(ours / speed["read_images"], 3),
        "ratio_to_codec_limit": round(ours / speed["codec"], 3),
        "peak_memory_bytes": memory[1],
        "peak_memory_growth": round(memory[1] / memory[0], 3),
        "tf_data_images_per_second": round(speed["tf_data"], 1),
        "read_images_images_per_second": round(speed["read_images"], 1),
        "codec_images_per_second": round(speed["codec"], 1),
        "cores": dict.fromkeys(sides, cores),
        "codec": "simplejpeg (libjpeg-turbo)",
        "filter": "OpenCV bilinear, area above 2.6 times",
        "photos": count,
        "image_size": size,
        "real_photos": arguments.data is not None,
        "rounds": arguments.rounds,
        "seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
    }


def _rounds(
    sides: dict[str, Callable[[], float]], rounds: int, count: int
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, run in sides.items():
            seconds[name].append(run())
            console.say(f"round {turn + 1}  {name:12} {count / seconds[name][-1]:8.0f} images/s")
    return seconds


def stage(folder: Path, size: int, work: Path) -> float:
    """Seconds of the whole data stage. The repeated files are found as duplicates, and written."""
    from catdog.config import DataSettings
    from catdog.data.prepare import prepare
    from catdog.storage import Location

    storage = work / "storage"
    shutil.rmtree(storage, ignore_errors=True)
    settings = DataSettings(source=str(folder), image_size=size, max_rejected=1.0, min_per_class=1)
    start = time.perf_counter()
    prepared = prepare(settings, Location.of(storage), seed=0)
    seconds = time.perf_counter() - start
    written = sum(shard["rows"] for shard in prepared.manifest["shards"])
    unwritten = {"unreadable", "empty", "not_an_image", "too_many_pixels", "truncated", "corrupt",
                 "too_small", "no_content", "no_label"}  # fmt: skip
    bad = sum(n for reason, n in prepared.manifest["rejected"].items() if reason in unwritten)
    assert written + bad == prepared.manifest["files"], "the stage has not written every photo"
    shutil.rmtree(storage)
    return seconds


def _peak_memory(folder: Path, size: int, work: Path) -> int:
    with _setup.peak() as result:
        stage(folder, size, work)
    return result[0]


def read_images(folder: Path, size: int) -> float:
    """Ray Data's own reader: Pillow in blocks."""
    import ray

    from catdog.data.graph import quiet

    with quiet():
        start = time.perf_counter()
        dataset = ray.data.read_images(str(folder), size=(size, size), mode="RGB")
        for _ in dataset.iter_batches(batch_size=None):
            pass
        return time.perf_counter() - start


def tf_data(folder: Path, size: int, cores: int) -> float:
    """Decode and resize by TensorFlow, AUTOTUNE everywhere; no check and nothing written."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    def load(path: Any) -> Any:
        picture = tf.io.decode_jpeg(tf.io.read_file(path), channels=3)
        return tf.cast(tf.image.resize(picture, (size, size)), tf.uint8)

    def run(paths: list[str]) -> float:
        start = time.perf_counter()
        dataset = tf.data.Dataset.from_tensor_slices(paths).map(load, tf.data.AUTOTUNE)
        dataset = dataset.ignore_errors(log_warning=False)
        for _ in dataset.batch(256).prefetch(tf.data.AUTOTUNE):
            pass
        return time.perf_counter() - start

    paths = sorted(str(path) for path in folder.iterdir())
    run(paths[:512])
    return run(paths)


def codec(folder: Path, size: int, cores: int) -> float:
    """The bare decoder and filter, one process a core, each with memory it uses again."""
    context = multiprocessing.get_context("spawn")
    paths = sorted(str(path) for path in folder.iterdir())
    barrier = context.Barrier(cores)
    times: Any = context.Queue()
    processes = [
        context.Process(target=_codec_loop, args=(paths[core::cores], size, barrier, times))
        for core in range(cores)
    ]
    for process in processes:
        process.start()
    spans = [times.get() for _ in processes]
    for process in processes:
        process.join()
    return max(end for _, end in spans) - min(start for start, _ in spans)


def _codec_loop(paths: list[str], size: int, barrier: Any, times: Any) -> None:
    import cv2
    import numpy as np
    import simplejpeg

    from catdog.data.decoding import Workspace
    from catdog.data.images import shrink

    cv2.setNumThreads(1)
    buffer, out = Workspace().buffer, np.empty((size, size, 3), np.uint8)

    def one(path: str) -> None:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        try:
            shrink(simplejpeg.decode_jpeg(data, buffer=buffer), size, out=out)
        except ValueError:  # the few damaged files among the drawings
            return

    for path in paths[:64]:
        one(path)
    barrier.wait()
    start = time.time()
    for path in paths:
        one(path)
    times.put((start, time.time()))


def _in_child(function: Callable[..., float], *arguments: Any) -> float:
    """Run in a fresh process: TensorFlow's threads and memory stay out of this one."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(partial(function, *arguments))
