"""Export a finished model; each file is verified on the run's test photos before it is kept.

::

    models/<model>/exports/saved_model/   takes JPEG bytes
    models/<model>/exports/model.onnx     takes uint8 pixels
    models/<model>/exports.json           sizes, CPU latency and the proofs, also of model.keras
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catdog import console, report
from catdog.cluster import machine
from catdog.errors import RunFailed, UserError
from catdog.evaluation.metrics import probabilities
from catdog.inference.finished import FinishedModel, TestPhotos, find_model, photos_of, predictions
from catdog.inference.formats import (
    OUTPUT,
    PIXELS,
    check_onnx,
    load_onnx,
    portable,
    write_onnx,
    write_saved_model,
)
from catdog.models.saving import load_keras, logits_of
from catdog.runs import now
from catdog.storage import Location

MOST_DIFFERENCE = 1e-3
LEAST_SAME_LABEL = 0.99
_BATCH = 32
_CALLS = 20

Array = NDArray[Any]
Say = Callable[[str], None]


def export(
    model: FinishedModel, formats: Sequence[str], photos: TestPhotos, say: Say = lambda line: None
) -> dict[str, Any]:
    """Write ``formats`` of ``model``, prove each, and note it in ``exports.json``.

    The float32 formats are compared with the same weights in float32 under Keras; ``model.keras``,
    which keeps the precision it was trained in, with the run's own predictions.

    Returns:
        What ``exports.json`` holds now, earlier formats included.

    Raises:
        UserError: the extra for ONNX is missing.
        RunFailed: an export answers otherwise than the model.
    """
    if "onnx" in formats:
        check_onnx()
    proof = _Proof.of(model, photos)
    makers = {"keras": _keras, "saved_model": _saved_model, "onnx": _onnx}
    for name in formats:
        say(f"{model.name}: {name}")
        with tempfile.TemporaryDirectory(prefix="catdog-export-") as folder:
            facts = makers[name](model, proof, Path(folder))
            _check(name, facts)
            _keep(Path(folder), model.folder / "exports")
        _note(model, proof, name, facts)
    record: dict[str, Any] = (model.folder / "exports.json").read_json()
    return record


@dataclass
class _Proof:
    """The test photos and what the model says of them: ``run`` as trained, ``expected`` float32.

    Both are calibrated probabilities of dog, (n,).
    """

    photos: TestPhotos
    loaded: Any
    network: Any
    run: Array
    expected: Array

    @classmethod
    def of(cls, model: FinishedModel, photos: TestPhotos) -> _Proof:
        loaded = load_keras(model.file)
        network = portable(loaded, model.temperature)
        rows = predictions(model.folder, "test")
        assert rows is not None, f"{model.folder} has no predictions, and photos to prove with"
        logits = rows.set_index("uri")["logit"].loc[photos.uris].to_numpy(np.float64)
        expected = _in_batches(lambda pixels: network(pixels, training=False)[:, 0], photos.pixels)
        run: Array = probabilities(logits / model.temperature)
        return cls(photos, loaded, network, run, expected)

    def facts(self, found: Array, reference: Array, files: int) -> dict[str, Any]:
        return {
            "bytes": files,
            "max_difference": float(np.abs(found - reference).max()),
            "same_label_as_run": float(((found > 0.5) == (self.run > 0.5)).mean()),
        }


def _keras(model: FinishedModel, proof: _Proof, folder: Path) -> dict[str, Any]:
    forward = logits_of(proof.loaded)
    found = probabilities(_in_batches(forward, proof.photos.pixels) / model.temperature)
    facts = proof.facts(found, proof.run, len(model.file.read_bytes()))
    latency = _latency_ms(lambda: forward(proof.photos.pixels[:1]).numpy())
    precision = proof.loaded.layers[1].dtype_policy.compute_dtype
    return {"path": "model.keras", "precision": precision, **facts, "latency_ms": latency}


def _saved_model(model: FinishedModel, proof: _Proof, folder: Path) -> dict[str, Any]:
    import tensorflow as tf

    target = folder / "saved_model"
    write_saved_model(proof.network, target)
    signatures = tf.saved_model.load(str(target)).signatures
    from_jpeg, from_pixels = signatures["serving_default"], signatures[PIXELS]
    found = _in_batches(lambda pixels: from_pixels(pixels=pixels)[OUTPUT], proof.photos.pixels)
    facts = proof.facts(found, proof.expected, _size_of(target))
    where, files = proof.photos.jpegs
    answers = _in_batches(lambda data: from_jpeg(jpeg=tf.constant(list(data)))["label"], files)
    same = (answers == b"dog") == (proof.expected[where] > 0.5)

    def one_photo() -> None:
        from_jpeg(jpeg=tf.constant(files[:1].tolist()))[OUTPUT].numpy()

    return {
        "path": "exports/saved_model",
        "precision": "float32",
        **facts,
        "jpeg_photos": len(files),
        "same_label_from_jpeg": float(same.mean()),
        "latency_ms": _latency_ms(one_photo),
    }


def _onnx(model: FinishedModel, proof: _Proof, folder: Path) -> dict[str, Any]:
    target = folder / "model.onnx"
    write_onnx(proof.network, target, model.temperature)
    forward = load_onnx(target)
    found = _in_batches(forward, proof.photos.pixels)
    facts = proof.facts(found, proof.expected, _size_of(target))
    latency = _latency_ms(lambda: forward(proof.photos.pixels[:1]))
    return {"path": "exports/model.onnx", "precision": "float32", **facts, "latency_ms": latency}


def _check(name: str, facts: dict[str, Any]) -> None:
    if not facts["max_difference"] < MOST_DIFFERENCE:
        raise RunFailed(
            f"{name} is not kept: on the same pixels its probabilities differ by up to "
            f"{facts['max_difference']:.2g} from the model's"
        )
    if not facts.get("same_label_from_jpeg", 1.0) >= LEAST_SAME_LABEL:
        raise RunFailed(
            f"{name} is not kept: from JPEG bytes only {facts['same_label_from_jpeg']:.1%} of the "
            "test photos get the model's label"
        )


def _note(model: FinishedModel, proof: _Proof, name: str, facts: dict[str, Any]) -> None:
    target = model.folder / "exports.json"
    record = target.read_json() if target.exists() else {"formats": {}}
    record["formats"][name] = facts | {
        "temperature": model.temperature,
        "test_photos": len(proof.photos.pixels),
        "cores": machine.cores(),
        "made_at": now(),
    }
    target.write_json(record)


def _in_batches(forward: Callable[[Any], Any], rows: Array) -> Array:
    parts = [np.asarray(forward(rows[at : at + _BATCH])) for at in range(0, len(rows), _BATCH)]
    return np.concatenate(parts)


def _latency_ms(call: Callable[[], Any]) -> float:
    """Median time of one photo by itself, after the first calls."""
    spans = []
    for _ in range(_CALLS + 3):
        started = time.perf_counter()
        call()
        spans.append(time.perf_counter() - started)
    return round(1000 * statistics.median(spans[3:]), 2)


def _size_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _keep(folder: Path, target: Location) -> None:
    """Copy what was proven; the file that makes a SavedModel one comes last."""
    files = sorted(folder.rglob("*"), key=lambda file: (file.name == "saved_model.pb", file))
    for file in files:
        if file.is_file():
            place = target
            for part in file.relative_to(folder).parts:
                place = place / part
            place.write_bytes(file.read_bytes())


def run_export(model: str, formats: Sequence[str]) -> None:
    """Export ``formats`` and say what each weighs and how near it is to the model.

    Raises:
        UserError: no such model, or its test photos are gone.
        RunFailed: an export answers otherwise than the model.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    chosen = find_model(model)
    if predictions(chosen.folder, "test") is None:
        raise UserError(f"{chosen.folder} has no test predictions to prove an export by")
    photos = photos_of(chosen.run)
    log = Path(tempfile.gettempdir()) / f"catdog-export-{os.getpid()}.log"
    with console.chatter_to(log):
        record = export(chosen, formats, photos, console.say)
    rows = [
        [
            name,
            str(chosen.folder / facts["path"]),
            console.size(facts["bytes"]),
            f"{facts['latency_ms']:.1f} ms",
            f"{facts['max_difference']:.1e}",
        ]
        for name, facts in record["formats"].items()
    ]
    console.table(["format", "where", "size", "one photo", "largest difference"], rows)
    console.say(str(_in_report(chosen.run)))


def _in_report(run: Location) -> Location:
    """The run's page with its exports; a report of several runs is left to who made it."""
    try:
        before = (run / "report.json").read_json()
    except FileNotFoundError:
        before = {}
    if before.get("other_runs"):
        console.say("the report compares several runs; jobs/report.py with all of them renews it")
        return run / "report.html"
    return report.build([run], price_per_hour=before.get("price_per_hour"))
