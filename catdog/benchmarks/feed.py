"""Feeding a training worker from prepared rows, against the same gather from memory."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from catdog import console
from catdog.benchmarks import _setup
from catdog.data.feed import batches, epoch_order
from catdog.data.shards import Rows, open_rows, write_shard
from catdog.storage import Location

BATCH = 128
_SHARD_ROWS = 820  # what a block of 1,024 photos leaves for training


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of rounds taken in turn: an epoch in random order from each side."""
    size = arguments.image_size
    count = min(arguments.files, max(BATCH, (2 << 30) // (3 * size * size)))
    with _setup.workplace(arguments.work) as work:
        memory = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
        rows = _written(memory, work)
        speeds: dict[str, list[float]] = {"memory": [], "feed": []}
        for turn in range(-1, arguments.rounds):
            order = epoch_order(count, 0, turn + 1)
            for name, seconds in (
                ("memory", _from_memory(memory, order)),
                ("feed", _from_rows(rows, order)),
            ):
                if turn >= 0:  # the first touches every page for the first time
                    speeds[name].append(count / seconds)
                    console.say(f"round {turn + 1}  {name:8} {count / seconds:8.0f} images/s")
    feed, limit = (statistics.median(speeds[name]) for name in ("feed", "memory"))
    return {
        "images_per_second": round(feed, 1),
        "ratio_to_memory": round(feed / limit, 3),
        "memory_images_per_second": round(limit, 1),
        "cores": {"feed": 1, "memory": 1},
        "photos": count,
        "image_size": size,
        "batch_size": BATCH,
        "real_photos": False,
        "rounds": arguments.rounds,
    }


def _written(memory: np.ndarray[Any, Any], work: Path) -> Rows:
    places = []
    for start in range(0, len(memory), _SHARD_ROWS):
        part = memory[start : start + _SHARD_ROWS]
        places.append(Location.of(work) / f"part-{start:06d}.arrow")
        marks = np.arange(len(part)) % 2
        write_shard(places[-1], part, labels=marks, uris=[str(i) for i in range(len(part))])
    return open_rows(places)


def _from_memory(memory: np.ndarray[Any, Any], order: np.ndarray[Any, Any]) -> float:
    start = time.perf_counter()
    for at in range(0, len(order), BATCH):
        _ = memory[order[at : at + BATCH]]
    return time.perf_counter() - start


def _from_rows(rows: Rows, order: np.ndarray[Any, Any]) -> float:
    start = time.perf_counter()
    for _ in batches(rows, order, batch_size=BATCH, rank=0, world_size=1, drop_last=False):
        pass
    return time.perf_counter() - start
