"""The end of a job on the terminal: a table, and what comes next."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from catdog.report import build, ending
from catdog.storage import Location


def test_every_model_has_a_line_with_its_numbers_as_in_the_report(
    new_run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(n_test=40)
    build([Location.of(run.path)])
    ending.show(Location.of(run.path))
    shown = capsys.readouterr().out
    report = json.loads((run.path / "report.json").read_text())
    lines = shown.splitlines()
    for name, model in zip(
        ("Base CNN", "ResNet50V2", "EfficientNet-Lite0"), report["models"], strict=True
    ):
        (line,) = [line for line in lines if line.startswith(name)]
        low, high = model["test"]["accuracy_ci95"]
        for number in (model["test"]["accuracy"], low, high, model["test"]["loss"]):
            assert f"{number:.3f}" in line
    assert "95 % interval" in shown


def test_a_model_without_results_keeps_its_line(
    new_run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(n_test=20)
    (run.path / "models" / "resnet50v2" / "predictions.parquet").unlink()
    build([Location.of(run.path)])
    ending.show(Location.of(run.path))
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith("ResNet50V2")]
    assert line.count("—") >= 3


@pytest.mark.parametrize("drawings", [True, False])
def test_the_commands_that_come_next_can_be_typed_and_name_this_run(drawings: bool) -> None:
    report = {"data": {"sample": drawings}}
    commands = [command for _, command in ending.next_commands(report, "/my runs/one")]
    jobs = [shlex.split(command)[1] for command in commands]
    first = ["jobs/train.py", "jobs/predict.py"]
    assert jobs == (first if drawings else ["jobs/predict.py", "jobs/serve.py"])
    predict = shlex.split(commands[jobs.index("jobs/predict.py")])
    assert predict[predict.index("--model") + 1] == "/my runs/one"
    assert ("PHOTOS" in commands[0]) == drawings


def test_with_several_seeds_their_mean_and_spread_stand_beside_the_first(
    new_run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(n_test=40, seeds=(0, 1))
    for folder in (run.path / "models" / "efficientnet_lite0").glob("seeds"):
        shutil.rmtree(folder)  # a head on frozen features is not repeated
    build([Location.of(run.path)])
    ending.show(Location.of(run.path))
    shown = capsys.readouterr().out.splitlines()
    report = json.loads((run.path / "report.json").read_text())
    seeds = report["models"][0]["seeds"]
    (line,) = [line for line in shown if line.startswith("Base CNN")]
    assert line.endswith(f"{seeds['mean']:.3f} ± {seeds['sd']:.3f} ({seeds['n']})")
    (line,) = [line for line in shown if line.startswith("EfficientNet-Lite0")]
    assert line.endswith("—")


def test_without_more_seeds_there_is_no_column_for_them(
    new_run: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run(n_test=20)
    build([Location.of(run.path)])
    ending.show(Location.of(run.path))
    assert ending.OVER_SEEDS not in capsys.readouterr().out
