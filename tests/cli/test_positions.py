"""Model and photos are given in the same way to every command: by position or by flag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from catdog.cli.flags import config_from, training_parser
from catdog.cli.main import run


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the commands hand on, with nothing done."""
    calls: list[tuple[Any, ...]] = []
    for place in ("prediction.run_prediction", "exports.run_export", "finished.find_model"):
        monkeypatch.setattr(f"catdog.inference.{place}", lambda *given: calls.append(given))
    monkeypatch.setattr("catdog.inference.serving.check_port", _Stop.at)
    return calls


class _Stop(Exception):
    @classmethod
    def at(cls, endpoint: object) -> None:
        raise cls


@pytest.mark.parametrize(
    "arguments",
    [
        ["RUN", "PHOTOS"],
        ["RUN", "--data", "PHOTOS"],
        ["--model", "RUN", "PHOTOS"],
        ["--model", "RUN", "--data", "PHOTOS"],
        ["--data", "PHOTOS", "RUN"],
        ["RUN", "--out", "x.csv", "PHOTOS"],
    ],
)
def test_predict_takes_model_and_photos(arguments: list[str], asked: list[tuple[Any, ...]]) -> None:
    assert run("predict", arguments) == 0
    assert asked == [("RUN", "PHOTOS", "x.csv" if "x.csv" in arguments else None)]


@pytest.mark.parametrize("arguments", [["RUN"], ["--model", "RUN"], ["--model=RUN"]])
def test_export_and_serve_take_the_model(
    arguments: list[str], asked: list[tuple[Any, ...]]
) -> None:
    assert run("export", [*arguments, "--formats", "onnx"]) == 0
    assert asked == [("RUN", ["onnx"])]
    with pytest.raises(_Stop):
        run("serve", [*arguments, "--port", "1"])
    assert asked[1:] == [("RUN",)]


@pytest.mark.parametrize(
    "command, arguments, said",
    [
        ("predict", [], "required: --model"),
        ("predict", ["RUN"], "required: --data"),
        ("predict", ["--data", "PHOTOS"], "required: --model"),
        ("predict", ["RUN", "PHOTOS", "--data", "MORE"], "PHOTOS: one argument too many"),
        ("export", [], "required: --model"),
        ("export", ["RUN", "--model", "OTHER"], "RUN: one argument too many"),
        ("serve", ["RUN", "OTHER"], "OTHER"),
        ("train", ["PHOTOS", "--data", "MORE"], "PHOTOS: one argument too many"),
    ],
)
def test_too_few_or_too_many_are_one_line(
    command: str,
    arguments: list[str],
    said: str,
    asked: list[tuple[Any, ...]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(command, arguments) == 2
    assert asked == []
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


def test_train_takes_photos_by_position_among_its_flags(tmp_path: Path) -> None:
    given = ["--epochs", "3", str(tmp_path), "--models", "base_cnn"]
    config = config_from(training_parser().parse_intermixed_args(given))
    assert config.data.source == str(tmp_path)
    assert config.preset == "laptop"
