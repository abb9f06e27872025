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
from catdog.runs.records import Export, Exports
from catdog.storage import Location

MOST_DIFFERENCE = 1e-3
LEAST_SAME_LABEL = 0.99
_BATCH = 32
_CALLS = 20

Array = NDArray[Any]
Say = Callable[[str], None]


def export(
    model: FinishedModel, formats: Sequence[str], photos: TestPhotos, say: Say = lambda line: None
) -> Exports:
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
            made = makers[name](model, proof, Path(folder))
            _check(name, made)
            _keep(Path(folder), model.folder / "exports")
        record = _noted(model)
        record.formats = record.formats | {name: made}
        (model.folder / "exports.json").write_json(record.as_json())
    return _noted(model)


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

    def export(
        self, model: FinishedModel, path: str, found: Array, reference: Array, files: int
    ) -> Export:
        return Export(
            path=path,
            precision="float32",
            bytes=files,
            temperature=model.temperature,
            max_difference=float(np.abs(found - reference).max()),
            same_label_as_run=float(((found > 0.5) == (self.run > 0.5)).mean()),
            test_photos=len(self.photos.pixels),
            cores=machine.cores(),
            made_at=now(),
        )


def _keras(model: FinishedModel, proof: _Proof, folder: Path) -> Export:
    forward = logits_of(proof.loaded)
    found = probabilities(_in_batches(forward, proof.photos.pixels) / model.temperature)
    made = proof.export(model, "model.keras", found, proof.run, len(model.file.read_bytes()))
    made.latency_ms = _latency_ms(lambda: forward(proof.photos.pixels[:1]).numpy())
    made.precision = proof.loaded.layers[1].dtype_policy.compute_dtype
    return made


def _saved_model(model: FinishedModel, proof: _Proof, folder: Path) -> Export:
    import tensorflow as tf

    target = folder / "saved_model"
    write_saved_model(proof.network, target)
    signatures = tf.saved_model.load(str(target)).signatures
    from_jpeg, from_pixels = signatures["serving_default"], signatures[PIXELS]
    found = _in_batches(lambda pixels: from_pixels(pixels=pixels)[OUTPUT], proof.photos.pixels)
    made = proof.export(model, "exports/saved_model", found, proof.expected, _size_of(target))
    where, files = proof.photos.jpegs
    answers = _in_batches(lambda data: from_jpeg(jpeg=tf.constant(list(data)))["label"], files)
    same = (answers == b"dog") == (proof.expected[where] > 0.5)

    def one_photo() -> None:
        from_jpeg(jpeg=tf.constant(files[:1].tolist()))[OUTPUT].numpy()

    made.jpeg_photos, made.same_label_from_jpeg = len(files), float(same.mean())
    made.latency_ms = _latency_ms(one_photo)
    return made


def _onnx(model: FinishedModel, proof: _Proof, folder: Path) -> Export:
    target = folder / "model.onnx"
    write_onnx(proof.network, target, model.temperature)
    forward = load_onnx(target)
    found = _in_batches(forward, proof.photos.pixels)
    made = proof.export(model, "exports/model.onnx", found, proof.expected, _size_of(target))
    made.latency_ms = _latency_ms(lambda: forward(proof.photos.pixels[:1]))
    return made


def _check(name: str, made: Export) -> None:
    if not made.max_difference < MOST_DIFFERENCE:
        raise RunFailed(
            f"{name} is not kept: on the same pixels its probabilities differ by up to "
            f"{made.max_difference:.2g} from the model's"
        )
    same = made.same_label_from_jpeg
    if same is not None and not same >= LEAST_SAME_LABEL:
        raise RunFailed(
            f"{name} is not kept: from JPEG bytes only {same:.1%} of the test photos get the "
            "model's label"
        )


def _noted(model: FinishedModel) -> Exports:
    target = model.folder / "exports.json"
    return Exports.fitted(target.read_json())[0] if target.exists() else Exports()


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
            str(chosen.folder / made.path),
            console.size(made.bytes or 0),
            f"{made.latency_ms:.1f} ms",
            f"{made.max_difference:.1e}",
        ]
        for name, made in record.formats.items()
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
