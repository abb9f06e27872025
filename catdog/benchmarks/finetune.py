"""Fine-tuning the last block from kept activations, against running the whole network each epoch.

Both sides train the same block of the same network on the same photos in the real job: one worker
with all cores. The plain side computes the frozen part again in every epoch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

from catdog import console
from catdog.benchmarks._setup import Bench, bench
from catdog.config import FineTuneSettings, ModelName
from catdog.config.architectures import BACKBONES
from catdog.models.registry import boundary
from catdog.training.job import TrainingJob
from catdog.training.pool import WorkerPool, train
from catdog.transfer.features import extract

#: Of each training; the first pays for the graph and does not count.
EPOCHS = 3
SETTINGS = FineTuneSettings(epochs=EPOCHS, unfrozen_blocks=1)
BATCH = 32


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """For each backbone the medians of epochs of trainings taken in turn."""
    with bench(arguments) as made:
        return {
            name: _backbone(made, name) for name in dict.fromkeys(arguments.backbone or BACKBONES)
        }


def _backbone(made: Bench, name: ModelName) -> dict[str, Any]:
    request, cut = made.request(name), boundary(name, 1)
    start = time.perf_counter()
    with WorkerPool(made.workers, made.storage / "ray", lambda message: None) as pool:
        features = extract(pool, made.dataset, request, [cut], made.storage)[cut]
    extraction = time.perf_counter() - start
    kept = TrainingJob(
        output="",
        architecture=replace(request.architecture, dropout=SETTINGS.dropout),
        phase="finetune",
        settings=SETTINGS,
        batch_size=BATCH,
        seed=0,
        dataset=made.dataset.root.uri,
        photos=made.dataset.identity,
        features=features.root.uri,
        boundary=cut,
        freeze_below=cut,
        backbone=request.backbone,
    )
    sides = {"plain": replace(kept, features=None, boundary="pixels"), "kept": kept}
    place = made.storage / f"{name}-trainings"
    jobs = [
        replace(job, output=(place / f"{side}-{turn}").uri)
        for turn in range(made.facts["rounds"])
        for side, job in sides.items()
    ]
    facts = train(jobs, made.workers, place / "ray", lambda message: None)
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    for index, fact in enumerate(facts):
        epochs = [row.seconds for row in fact.history[1:]]
        seconds[list(sides)[index % len(sides)]] += epochs
    middle = {side: statistics.median(times) for side, times in seconds.items()}
    for side, value in middle.items():
        console.say(f"{name}  {side:6} {value:8.2f} s an epoch")
    return {
        "speedup": round(middle["plain"] / middle["kept"], 2),
        "unfrozen_blocks": SETTINGS.unfrozen_blocks,
        "extraction_seconds": round(extraction, 2),
        "kept_bytes": _kept_bytes(features.root),
        **made.facts,
        "cores": dict.fromkeys(sides, made.cores),
        "seconds": {side: [round(t, 2) for t in times] for side, times in seconds.items()},
    }


def _kept_bytes(root: Any) -> int:
    return sum(info.size or 0 for info in root.list(recursive=True))
