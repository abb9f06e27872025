"""Exports of a run's model, proven on its own photos, and what happens to one that is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg

from catdog.config.architectures import BACKBONES, MODELS, ModelName
from catdog.data.images import shrink
from catdog.errors import RunFailed
from catdog.inference import exports
from catdog.inference.finished import FinishedModel, find_model, photos_of
from catdog.inference.formats import FORMATS, load_onnx, portable, prepared, write_onnx
from catdog.models import registry
from catdog.storage import Location

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def made(finished_run: Any) -> dict[str, Any]:
    model = find_model(str(finished_run.path))
    return exports.export(model, FORMATS, photos_of(model.run)).as_json()["formats"]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_proven_on_the_same_pixels(made: dict[str, Any], name: str) -> None:
    facts = made[name]
    assert facts["max_difference"] < 1e-3
    assert facts["same_label_as_run"] >= 0.99
    assert facts["latency_ms"] > 0
    assert facts["bytes"] > 4_000_000
    assert facts["bytes"] < 6_000_000, "float32 weights of a million parameters, once"


def test_the_saved_model_answers_jpeg_bytes(made: dict[str, Any], finished_run: Any) -> None:
    import tensorflow as tf

    assert made["saved_model"]["same_label_from_jpeg"] >= 0.99
    folder = finished_run.path / "models" / "base_cnn" / made["saved_model"]["path"]
    loaded = tf.saved_model.load(str(folder))
    photos = photos_of(find_model(str(finished_run.path)).run)
    rows, files = photos.jpegs
    said = loaded.signatures["serving_default"](jpeg=tf.constant(files[:3].tolist()))
    assert said["probability_dog"].shape == (3,)
    same = loaded.signatures["pixels"](pixels=photos.pixels[rows[:3]])
    np.testing.assert_allclose(said["probability_dog"], same["probability_dog"], atol=0.05)
    for label, dog in zip(said["label"].numpy(), said["probability_dog"].numpy(), strict=True):
        assert label == (b"dog" if dog > 0.5 else b"cat")


def test_the_onnx_file_says_what_it_takes_and_gives(
    made: dict[str, Any], finished_run: Any
) -> None:
    import onnx

    file = finished_run.path / "models" / "base_cnn" / made["onnx"]["path"]
    model = onnx.load(file)
    (taken,), (given,) = model.graph.input, model.graph.output
    assert taken.name == "pixels"
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.name == "probability_dog"
    props = {prop.key: prop.value for prop in model.metadata_props}
    assert props["classes"] == "cat,dog"
    assert float(props["temperature"]) == made["onnx"]["temperature"]


def test_the_report_shows_them(made: dict[str, Any], finished_run: Any) -> None:
    from catdog.report import build

    root = Location.of(finished_run.path)
    page = build([root]).read_text()
    assert "SavedModel" in page
    assert "from JPEG bytes" in page
    assert "exports/model.onnx" in (root / "report.md").read_text()
    (entry,) = (root / "report.json").read_json()["models"]
    assert entry["exports"] == made


def test_an_export_that_answers_otherwise_is_not_kept(finished_run: Any, tmp_path: Path) -> None:
    model = find_model(str(finished_run.path))
    # Another temperature than the answers were made with: every probability moves.
    copied = Location.of(tmp_path / "models" / "base_cnn")
    for name in ("model.keras", "predictions.parquet"):
        (copied / name).write_bytes((model.folder / name).read_bytes())
    wrong = finished_run.model.get_weights()
    loaded = registry.build(registry.Architecture("base_cnn", 112, 96, "-1..1", dropout=0.2))
    loaded.set_weights([*wrong[:-1], wrong[-1] + 0.5])
    from catdog.models.saving import save_keras

    save_keras(loaded, copied / "model.keras")
    with pytest.raises(RunFailed, match="keras is not kept"):
        exports.export(FinishedModel("base_cnn", copied, 1.0), ["keras"], photos_of(model.run))
    assert not (copied / "exports.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BACKBONES)
def test_a_backbone_in_bfloat16_becomes_float32(name: ModelName, tmp_path: Path) -> None:
    import keras

    look = MODELS[name].smallest_image
    side = look + 16
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = registry.build(
            registry.Architecture(name, side, look, MODELS[name].scale, dropout=0.1)
        )
    finally:
        keras.config.set_dtype_policy(before)
    network = portable(model, 1.5)
    pixels = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), np.uint8)
    bare = keras.Model(model.input, model.get_layer("logit").output)
    logits = bare(pixels, training=False)
    plain = np.asarray(network(pixels, training=False))[:, 0]
    calibrated = 1 / (1 + np.exp(-np.asarray(logits, np.float64)[:, 0] / 1.5))
    np.testing.assert_allclose(plain, calibrated, atol=0.05)
    write_onnx(network, tmp_path / "model.onnx", 1.5)
    np.testing.assert_allclose(load_onnx(tmp_path / "model.onnx")(pixels), plain, atol=1e-4)


@pytest.mark.parametrize(
    "height, width", [(160, 160), (100, 90), (375, 500), (1200, 300), (60, 2000), (700, 1050)]
)
def test_tensorflow_prepares_a_jpeg_as_the_data_stage_does(height: int, width: int) -> None:
    coarse = np.random.default_rng(height).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(smooth), quality=90)
    ours = shrink(simplejpeg.decode_jpeg(data), 160).astype(int)
    theirs = np.asarray(prepared(data, 160)).astype(int)
    assert theirs.shape == (160, 160, 3)
    assert np.abs(ours - theirs).mean() < 0.5
    assert np.abs(ours - theirs).max() <= 3


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["/no/such/run"], "there is no /no/such/run"),
        (["RUN", "--formats", "tflite"], "invalid choice: 'tflite'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    project: Path, arguments: list[str], words: str
) -> None:
    command = [sys.executable, str(project / "jobs/export.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert words in done.stderr


@pytest.mark.slow
def test_the_job_exports_and_renews_the_report(project: Path, finished_run: Any) -> None:
    command = [sys.executable, str(project / "jobs/export.py"), str(finished_run.path)]
    done = subprocess.run(
        [*command, "--formats", "keras", "onnx"],
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == str(finished_run.path / "report.html")
    report = json.loads((finished_run.path / "report.json").read_text())
    assert {"keras", "onnx"} <= set(report["models"][0]["exports"])
