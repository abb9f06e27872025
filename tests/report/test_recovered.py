"""A run that stopped half-way shows what its events tell."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from catdog.report import build, recovered
from catdog.runs.records import Event
from catdog.storage import Location


def epoch(model: str, number: int, accuracy: float, **more: Any) -> Event:
    facts = {"loss": 0.6, "accuracy": 0.7, "val_loss": 0.5, "val_accuracy": accuracy}
    return Event(**{"event": "epoch", "model": model, "epoch": number, **facts} | more)


def test_an_epoch_that_was_trained_again_counts_once() -> None:
    events = [
        epoch("base_cnn", 1, 0.5),
        epoch("base_cnn", 2, 0.6),
        Event(event="restart", model="base_cnn", epoch=1),
        epoch("base_cnn", 2, 0.7),
        epoch("efficientnet_lite0", 1, 0.9),
    ]
    rows = recovered.history(events, "base_cnn")
    assert [(row.epoch, row.val_accuracy) for row in rows] == [(1, 0.5), (2, 0.7)]
    assert recovered.history(events, "resnet50v2") == []


def test_the_probe_comes_before_fine_tuning() -> None:
    events = [
        epoch("efficientnet_lite0", 1, 0.8, event="probe", phase="probe"),
        epoch("efficientnet_lite0", 1, 0.9, phase="finetune"),
    ]
    phases = [row.phase for row in recovered.history(events, "efficientnet_lite0")]
    assert phases == ["probe", "finetune"]


def test_trials_are_put_together_from_their_epochs() -> None:
    config = {"learning_rate": 1e-3}
    events = [
        epoch("", 1, 0.7, event="trial", id="000", config=config, seconds=10.0),
        epoch("", 2, 0.6, event="trial", id="000", config=config, seconds=11.0),
        epoch("", 1, 0.9, event="trial", id="001", config=config),
    ]
    found = recovered.sweep(events)
    first, second = found.trials
    assert (first.id, first.epochs, first.val_accuracy, first.seconds) == ("000", 2, 0.7, 21.0)
    assert second.config == config
    assert recovered.sweep([epoch("base_cnn", 1, 0.5)]).trials == []


@pytest.fixture
def stopped(new_run: Callable[..., Any]) -> Any:
    """Killed in the training of the second model: nothing but events and checkpoints so far."""
    run = new_run(n_test=20, models=["base_cnn", "efficientnet_lite0"])
    for folder in ("models", "artifacts"):
        shutil.rmtree(run.path / folder)
    (run.path / "sweeps/efficientnet_lite0/trials.json").unlink()
    run.change_run(status="running")
    events = [
        epoch("efficientnet_lite0", 1, 0.77, event="probe", phase="probe"),
        epoch("", 1, 0.88, event="trial", id="000", config={"learning_rate": 1e-4}),
        epoch("", 2, 0.91, event="trial", id="000", config={"learning_rate": 1e-4}),
        epoch("", 1, 0.86, event="trial", id="001", config={"learning_rate": 1e-3}),
        *(epoch("base_cnn", i, 0.5 + 0.02 * i) for i in range(1, 6)),
    ]
    lines = [json.dumps(event.as_json()) for event in events]
    odd = ['{"event": "epoch", "model": 3, "epoch": "five"}', '"text"', '{"cut off']
    (run.path / "events.jsonl").write_text("\n".join([*lines, *odd]))
    return run


def test_what_is_known_of_a_stopped_run_is_shown(stopped: Any) -> None:
    page = build([Location.of(stopped.path)]).read_text().replace("\u00a0", " ")
    assert "No model has been evaluated yet" in page
    words = "Base CNN 60.0 % after 5 epochs and EfficientNet-Lite0 77.0 % after 1 epoch"
    assert f"The best on validation so far: {words}." in page
    assert "This run is not finished." in page
    assert 'id="training"' in page
    assert "2 trials, 3 epochs" in page
    tree = json.loads((stopped.path / "report.json").read_text())
    assert [len(model["history"]) for model in tree["models"]] == [5, 1]
    assert [model["test"] for model in tree["models"]] == [None, None]
    assert [trial["id"] for trial in tree["sweeps"]["efficientnet_lite0"]["trials"]] == [
        "000",
        "001",
    ]
