"""A whole job on pictures that are hard, so that every model makes mistakes, and its report."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest

from catdog.data import sample

PICTURES, SIDE = 120, 96
MODELS = {"base_cnn": "Base CNN", "efficientnet_lite0": "EfficientNet-Lite0"}
JPEG = b"\xff\xd8\xff"


def draw_hard(folder: Path) -> None:
    """Drawings below so much noise that no cheap model tells all of them apart."""
    folder.mkdir()
    numbers = {"cat": 0, "dog": 0}
    for index in range(PICTURES):
        animal = ("cat", "dog")[index % 2]
        rng = np.random.default_rng([7, index])
        drawing = sample.picture(animal, rng, SIDE).astype(np.float32)
        hidden = 0.35 * drawing + 0.65 * rng.uniform(0, 255, drawing.shape)
        name = folder / f"{animal}.{numbers[animal]}.jpg"
        assert cv2.imwrite(str(name), hidden.astype(np.uint8))
        numbers[animal] += 1


def job(project: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(project / "jobs" / name), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        # Ray lowers its workers' priority by default; with that, tests beside others time out.
        env=os.environ | {"RAY_worker_niceness": "0"},
        check=False,
    )


def mistakes(training: Path) -> set[str]:
    """Test photos that the model in this folder gets wrong."""
    rows = pd.read_parquet(training / "predictions.parquet").query("split == 'test'")
    assert len(rows), training
    return set(rows.uri[(rows.logit > 0) != (rows.label > 0)])


def section(page: str, title: str) -> str:
    """What stands below the heading that begins with ``title``, up to the next heading."""
    return re.split(r"<h[23]>", page.split(f"<h3>{title}", 1)[1])[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mistakes_of_every_model_and_seed_are_explained_and_shown(
    project: Path, tmp_path: Path
) -> None:
    draw_hard(tmp_path / "photos")
    arguments = [f"--data={tmp_path / 'photos'}", f"--storage={tmp_path}", "--name=hard"]
    arguments += ["--preset=sample", f"--image-size={SIDE}", "--workers=1", "--trials=0"]
    arguments += ["--models", *MODELS, "--epochs=1", "--fine-tune-epochs=1", "--seeds=2"]
    done = job(project, "train.py", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    run = tmp_path / "hard"
    assert done.stdout.strip().splitlines()[-1] == str(run / "report.html")

    wrong: dict[str, set[str]] = {}
    for name in MODELS:
        wrong[name] = mistakes(run / "models" / name)
        for training in (run / "models" / name, run / "models" / name / "seeds" / "1"):
            # Each with its Grad-CAM, as many as are kept of a model.
            missed = mistakes(training)
            explained = pd.read_parquet(training / "artifacts" / "gradcam.parquet")
            assert len(explained) == min(12, len(missed)) > 0, training
            assert set(explained.uri) <= missed
            for picture in (*explained.thumbnail, *explained.heatmap):
                assert picture.startswith(JPEG)
    by_all = set.intersection(*wrong.values())
    assert by_all, "the pictures are too easy for this test: no photo is missed by both models"
    kept = pd.read_parquet(run / "artifacts" / "thumbnails.parquet")
    assert by_all <= set(kept.uri)

    report = json.loads((run / "report.json").read_text())
    assert_numbers(report, wrong)
    assert_page((run / "report.html").read_text(), wrong, by_all)

    again = job(project, "report.py", str(run))
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads((run / "report.json").read_text()) == report


def assert_numbers(report: dict[str, Any], wrong: dict[str, set[str]]) -> None:
    """Counts of the same mistakes; intervals, calibration and seeds of models that make them."""
    assert [model["name"] for model in report["models"]] == list(MODELS)
    for model in report["models"]:
        test = model["test"]
        (cats, cats_wrong), (dogs_wrong, dogs) = test["confusion"]
        assert cats_wrong + dogs_wrong == len(wrong[model["name"]])
        assert test["accuracy"] == pytest.approx((cats + dogs) / test["n"])
        assert test["accuracy_ci95"][0] < test["accuracy"] < test["accuracy_ci95"][1] < 1
        assert 0 < test["auc"] < 1
        assert model["calibration"]["temperature"] > 0
        assert model["seeds"]["n"] == 2
    (pair,) = report["comparisons"]
    assert pair["only_a_right"] == len(wrong[pair["b"]] - wrong[pair["a"]])
    assert pair["only_b_right"] == len(wrong[pair["a"]] - wrong[pair["b"]])
    assert pair["over_seeds"] is not None
    assert "average" in [each["name"] for each in report["ensembles"]]


def assert_page(page: str, wrong: dict[str, set[str]], by_all: set[str]) -> None:
    """Every part that a model without mistakes leaves out is there, with its pictures."""
    missed = section(page, "Wrong in all models")
    assert missed.count("<figure>") == min(12, len(by_all))
    assert missed.count("data:image/jpeg") == min(12, len(by_all))
    for name, title in MODELS.items():
        shown = min(9, len(wrong[name]))
        own = section(page, f"{title}: its most confident mistakes")
        assert f"{shown} of {len(wrong[name])}\N{NO-BREAK SPACE}mistake" in own
        assert "(Grad-CAM)" in own
        assert own.count("Where the model looked in") == shown
        assert own.count("data:image/jpeg") == 2 * shown
    assert section(page, "Most uncertain").count("data:image/jpeg") == 12
    for absent in ("No mistakes on the test photos", "No photo is missed", "no picture kept"):
        assert absent not in page
    for there in ('id="slices"', "Over seeds", "Which errors they make"):
        assert there in page
