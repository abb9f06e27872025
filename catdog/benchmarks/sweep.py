"""Trials of the head on kept features, against trials that each run the backbone.

A plain trial is what a sweep does without kept features: a process of its own builds the backbone,
runs it over the photos **once**, and fits the same head with one ``C``. Two of them share the
cores, and their time is scaled to the trials of the sweep.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from typing import Any

from catdog import console
from catdog.benchmarks._setup import Bench, bench
from catdog.cluster.numerics import use_onednn
from catdog.config import ModelName
from catdog.models.registry import POOLED
from catdog.storage import Location
from catdog.training.inputs import Split, open_dataset
from catdog.training.pool import WorkerPool
from catdog.transfer import probe
from catdog.transfer.features import FeatureRequest, extract

TRIALS = len(probe.STRENGTHS)
BACKBONE: ModelName = "inception_v3"
#: Plain trials that are measured, at once.
MEASURED = 2


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of rounds taken in turn; starting processes counts, the sweep's as the extraction's,
    for it runs in the same.
    """
    seconds: dict[str, list[float]] = {"extraction": [], "sweep": [], "plain": []}
    name = arguments.backbone[0] if arguments.backbone else BACKBONE
    with bench(arguments) as made:
        request = made.request(name)
        for turn in range(arguments.rounds):
            place = made.storage / f"round-{turn}"
            extraction, sweep = _ours(made, request, place)
            seconds["extraction"].append(extraction)
            seconds["sweep"].append(sweep)
            seconds["plain"].append(_plain(made, request))
            line = "  ".join(f"{side} {times[-1]:.1f} s" for side, times in seconds.items())
            console.say(f"round {turn + 1}  {line}")
        facts = made.facts
    middle = {side: statistics.median(times) for side, times in seconds.items()}
    plain = middle["plain"] * TRIALS / MEASURED
    return {
        "speedup": round(plain / middle["sweep"], 2),
        "speedup_with_extraction": round(plain / (middle["sweep"] + middle["extraction"]), 2),
        "trials": TRIALS,
        "plain_trials_measured": MEASURED,
        "plain_seconds_scaled": round(plain, 1),
        "plain_trial": "own process, backbone once over the photos, then the same head",
        "model": name,
        **facts,
        "cores": dict.fromkeys(seconds, made.cores),
        # On a machine with other work these tell more: the sides of a round are neighbours.
        "speedups_by_round": _by_round(seconds["plain"], seconds["sweep"]),
        "speedups_with_extraction_by_round": _by_round(
            seconds["plain"],
            [a + b for a, b in zip(seconds["sweep"], seconds["extraction"], strict=True)],
        ),
        "seconds": {side: [round(t, 2) for t in times] for side, times in seconds.items()},
    }


def _by_round(plain: list[float], ours: list[float]) -> list[float]:
    scale = TRIALS / MEASURED
    return [round(scale * a / b, 2) for a, b in zip(plain, ours, strict=True)]


def _ours(made: Bench, request: FeatureRequest, place: Location) -> tuple[float, float]:
    """Seconds of the extraction and of the sweep, in one group of workers as in the job."""
    start = time.perf_counter()
    with WorkerPool(made.workers, place / "ray", lambda message: None) as pool:
        features = extract(pool, made.dataset, request, [POOLED], place)[POOLED]
        extracted = time.perf_counter()
        fitted = probe.fit(pool, features, place / "probe", None)
        store = probe.trial_store(place / "sweep")
        probe.record(fitted, store, lambda trial: None)
        store.summarise(0.0)
        end = time.perf_counter()
    return extracted - start, end - extracted


def _plain(made: Bench, request: FeatureRequest) -> float:
    """Seconds of :data:`MEASURED` plain trials that share the cores."""
    import ray

    cpus = max(1, made.cores // MEASURED)
    # A process of its own for each, as Tune starts them.
    trial = ray.remote(num_cpus=cpus, max_calls=1)(plain_trial)
    tried = probe.STRENGTHS[:MEASURED]
    start = time.perf_counter()
    ray.get([trial.remote(made.dataset.root.uri, request, cpus, strength) for strength in tried])
    return time.perf_counter() - start


def plain_trial(dataset: str, request: FeatureRequest, threads: int, strength: float) -> float:
    """Build the backbone, run it over the photos, fit the head; its validation loss."""
    use_onednn()
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    import keras

    from catdog.models import registry
    from catdog.models.weights import load_backbone

    keras.config.set_dtype_policy(request.precision)
    model = registry.build(replace(request.architecture, dropout=0.0))
    load_backbone(model, request.backbone)
    trunk = keras.Model(model.input, registry.find_layer(model, POOLED).output)
    signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
    forward = tf.function(
        lambda pixels: trunk(pixels, training=False), input_signature=signature, autograph=False
    )

    def features(split: Split) -> Any:
        rows = open_dataset(dataset).rows(split)
        starts = range(0, len(rows), 64)
        parts = [
            forward(rows.gather(np.arange(at, min(at + 64, len(rows))))).numpy() for at in starts
        ]
        return np.concatenate(parts).astype(np.float32), rows.labels.astype(np.float32)

    (head,) = probe.heads_of(features("train"), [strength], None)
    return probe.measured(head, features("val"))[0]
