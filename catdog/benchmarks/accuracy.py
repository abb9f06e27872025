"""The job's fine-tuning against plain Keras fine-tuning of all layers: test accuracy and time.

Both sides take the same backbone, weights, prepared photos, splits, cores and precision. Ours is
``jobs/train.py`` with the preset ``laptop`` as a user runs it; plain is ``Model.fit`` on arrays in
memory with the recipe of a careful person: augmentation, AdamW, warm-up and cosine, eight epochs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from catdog import console
from catdog.benchmarks import _setup
from catdog.cluster import machine
from catdog.cluster.resources import dtype_policy
from catdog.config import InputScale, ModelName
from catdog.data.prepare import PreparedSet
from catdog.errors import RunFailed, UserError
from catdog.evaluation.intervals import wilson
from catdog.storage import Location

PROJECT = Path(__file__).parents[2]
RUN = "ours"
EPOCHS, WARMUP_EPOCHS, BATCH, RATE = 8, 1, 32, 2e-4


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Test accuracy with interval and seconds of both sides, one after the other."""
    if not arguments.data or not arguments.weights_for:
        raise UserError("accuracy needs --data DIR and --weights-for MODEL=FILE,scale=0..1")
    name, weights = arguments.weights_for
    path = str(Location.of(weights["source"]).local_path)
    with _setup.workplace(arguments.work) as work:
        flag = f"{name}={weights['source']},scale={weights['scale']}"
        ours = _ours(arguments.data, name, flag, work)
        console.say(f"ours   {_line(ours)}")
        plain = _run([__file__, name, path, weights["scale"], ours.pop("dataset")], work)
        told = json.loads(plain.splitlines()[-1])
        console.say(f"plain  {_line(told)}")
    return {
        "model": name,
        "ours": ours,
        "plain": told,
        "difference": round(ours["test_accuracy"] - told["test_accuracy"], 4),
        "time_ratio": round(told["seconds"] / ours["seconds"], 2),
        "cores": machine.cores(),
    }


def _line(side: dict[str, Any]) -> str:
    low, high = side["test_accuracy_ci95"]
    return f"test {side['test_accuracy']:.3f} ({low:.3f} to {high:.3f})  {side['seconds']:.0f} s"


def _run(command: list[str], work: Path) -> str:
    log = work / "log.txt"
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "RAY_ADDRESS": "local"}
    with log.open("w") as errors:
        done = subprocess.run(
            [sys.executable, *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            check=False,
        )
    if done.returncode:
        last = "\n".join(log.read_text().splitlines()[-10:])
        raise RunFailed(f"{command[0]} ended with {done.returncode}: {last}")
    return done.stdout


def _ours(data: str, name: str, weights: str, work: Path) -> dict[str, Any]:
    start = time.perf_counter()
    command = ["--preset=laptop", f"--data={data}", f"--models={name}", f"--weights-for={weights}"]
    place = [f"--storage={work}", f"--name={RUN}", "--trials=0", "--workers=1"]
    _run([str(PROJECT / "jobs/train.py"), *command, *place], work)
    command_seconds = time.perf_counter() - start
    report = json.loads((work / RUN / "report.json").read_text())
    model = report["models"][0]
    return {
        "test_accuracy": model["test"]["accuracy"],
        "test_accuracy_ci95": model["test"]["accuracy_ci95"],
        "seconds": round(model["train"]["seconds"], 1),
        "command_seconds": round(command_seconds, 1),
        "epochs": model["train"]["epochs"],
        "dataset": str(work / "datasets" / report["data"]["fingerprint"]),
    }


def _fine_tune_plainly(name: ModelName, path: str, scale: InputScale, root: str) -> dict[str, Any]:
    """Seconds are those of ``fit`` alone; the last epoch's weights are tested."""
    import keras
    import tensorflow as tf

    from catdog.models import registry

    factor, offset = registry.SCALES[scale]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype_policy("auto", use_gpu=False))
    location = Location.of(root)
    dataset = PreparedSet(location, (location / "manifest.json").read_json())
    train, val, test = (dataset.rows(split) for split in ("train", "val", "test"))
    size = train.shape[0]

    augment = keras.Sequential(
        [
            keras.layers.RandomFlip("horizontal"),
            keras.layers.RandomTranslation(0.1, 0.1, fill_mode="reflect"),
        ]
    )
    pixels = train.gather(np.arange(len(train)))
    batches = (
        tf.data.Dataset.from_tensor_slices((pixels, train.labels))
        .shuffle(len(train), seed=0)
        .batch(BATCH)
        .map(lambda x, y: (augment(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    inputs = keras.Input((size, size, 3))
    backbone = registry.bare_backbone(name, path)
    x = backbone(keras.layers.Rescaling(factor, offset)(inputs), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, keras.layers.Dense(1, "sigmoid", dtype="float32")(x))
    steps = -(-len(train) // BATCH)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, (EPOCHS - WARMUP_EPOCHS) * steps, warmup_target=RATE, warmup_steps=steps
    )
    model.compile(keras.optimizers.AdamW(rate), "binary_crossentropy", metrics=["accuracy"])
    checked = (val.gather(np.arange(len(val))), val.labels)
    start = time.perf_counter()
    history = model.fit(batches, epochs=EPOCHS, verbose=0, validation_data=checked).history
    seconds = time.perf_counter() - start
    answers = model.predict(test.gather(np.arange(len(test))), BATCH, verbose=0)[:, 0]
    right = int(((answers > 0.5) == test.labels).sum())
    return {
        "test_accuracy": right / len(test),
        "test_accuracy_ci95": wilson(right, len(test)),
        "seconds": round(seconds, 1),
        "epochs": EPOCHS,
        "val_accuracy": [round(value, 4) for value in history["val_accuracy"]],
    }


if __name__ == "__main__":
    print(json.dumps(_fine_tune_plainly(*sys.argv[1:])))  # type: ignore[arg-type]
