"""``report.json`` keeps the contract that other programs read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from catdog.report import build
from catdog.storage import Location

CONTRACT: dict[str, Any] = {
    "schema_version": int,
    "run": {
        "name": str,
        "seconds": float,
        "config": dict,
        "config_hash": str,
        "versions": dict,
        "resumed": bool,
    },
    "data": {
        "source": str,
        "fingerprint": str,
        "files": int,
        "kept": int,
        "held_back": int,
        "rejected": dict,
        "splits": {split: {"cat": int, "dog": int} for split in ("train", "val", "test")},
    },
    "models": [
        {
            "name": str,
            "weights": str,
            "parameters": int,
            "test": {
                "n": int,
                "accuracy": float,
                "accuracy_ci95": [float],
                "loss": float,
                "auc": float,
                "ece": float,
                "confusion": [[int]],
            },
            "train": {
                "epochs": int,
                "seconds": float,
                # None of a head on kept features.
                "images_per_second": float | None,
                "workers": int,
                "restarts": int,
            },
            "history": [
                {
                    "phase": str,
                    "epoch": int,
                    "loss": float,
                    "accuracy": float,
                    "val_loss": float,
                    "val_accuracy": float,
                }
            ],
        }
    ],
    "ensembles": [{"name": str, "test": {"n": int, "accuracy": float, "loss": float}}],
    "comparisons": [
        {"a": str, "b": str, "accuracy_difference": float, "ci95": [float], "mcnemar_p": float}
    ],
    "sweeps": {
        "efficientnet_lite0": {
            "trials": [{"id": str, "config": dict, "epochs": int, "seconds": float, "status": str}],
            "best": dict,
        }
    },
}


def check(tree: Any, wanted: Any, path: str = "report") -> None:
    if isinstance(wanted, dict):
        for key, below in wanted.items():
            assert key in tree, f"{path}.{key} is missing"
            check(tree[key], below, f"{path}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(tree, list), path
        assert tree, f"{path} is empty"
        for item in tree:
            check(item, wanted[0], f"{path}[]")
    elif wanted is float:
        assert isinstance(tree, int | float), f"{path} is {tree!r}"
        assert math.isfinite(tree), path
    else:
        assert isinstance(tree, wanted), f"{path} is {tree!r}, not {wanted}"


@pytest.fixture(scope="module")
def tree(finished_run: Any) -> Any:
    build([Location.of(finished_run.path)])
    return json.loads((finished_run.path / "report.json").read_text())


def test_every_key_of_the_contract_is_there(tree: Any) -> None:
    check(tree, CONTRACT)
    assert tree["schema_version"] == 1


def test_counts_add_up(tree: Any) -> None:
    data = tree["data"]
    assert data["files"] == data["kept"] + sum(data["rejected"].values())
    for model in tree["models"]:
        confusion = model["test"]["confusion"]
        assert sum(map(sum, confusion)) == model["test"]["n"]
        right = confusion[0][0] + confusion[1][1]
        assert right / model["test"]["n"] == pytest.approx(model["test"]["accuracy"])


def test_rows_of_the_confusion_matrix_are_the_true_classes(tree: Any) -> None:
    expected = tree["data"]["splits"]["test"]
    for model in tree["models"]:
        assert [sum(row) for row in model["test"]["confusion"]] == [
            expected["cat"],
            expected["dog"],
        ]


def test_comparisons_are_of_a_less_b(tree: Any) -> None:
    accuracy = {model["name"]: model["test"]["accuracy"] for model in tree["models"]}
    assert len(tree["comparisons"]) == 3
    for pair in tree["comparisons"]:
        expected = accuracy[pair["a"]] - accuracy[pair["b"]]
        assert pair["accuracy_difference"] == pytest.approx(expected)


def test_what_is_not_there_yet_is_null(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20)
    for path in sorted((run.path / "models/efficientnet_lite0").rglob("*.*")):
        path.unlink()
    (run.path / "events.jsonl").unlink()
    build([Location.of(run.path)])
    tree = json.loads((run.path / "report.json").read_text())
    model = next(m for m in tree["models"] if m["name"] == "efficientnet_lite0")
    assert (model["test"], model["train"], model["history"]) == (None, None, [])
    assert model["weights"] == "imagenet"
    assert len(tree["comparisons"]) == 1


def test_the_best_model_is_named(tree: Any) -> None:
    best = max(tree["models"], key=lambda m: m["test"]["accuracy"])
    assert tree["best"] == {"name": best["name"], "run": "photos"}


def test_a_second_run_stands_beside_the_first(new_run: Callable[..., Any]) -> None:
    first, second = new_run("first", n_test=20, models=["base_cnn"]), new_run("second", n_test=20)
    build([Location.of(first.path), Location.of(second.path)])
    tree = json.loads((first.path / "report.json").read_text())
    assert [model["name"] for model in tree["models"]] == ["base_cnn"]
    assert [run["run"]["name"] for run in tree["other_runs"]] == ["second"]
    assert len(tree["other_runs"][0]["models"]) == 3
    assert len(tree["comparisons"]) == 6
    assert not (second.path / "report.json").exists()


def test_secrets_in_settings_are_not_written(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20, models=["base_cnn"])
    config = run.path / "config.yaml"
    config.write_text(
        config.read_text().replace("source: /data/photos", "source: s3://key:word@b/x")
    )
    build([Location.of(run.path)])
    for name in ("report.json", "report.html", "report.md", "models/base_cnn/MODEL_CARD.md"):
        assert "word@" not in (run.path / name).read_text(), name
