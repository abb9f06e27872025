"""A mistyped name is answered with the nearest that there is, in one line and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from catdog.cli.main import run


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["train", "--epoch", "3"], "--epoch; did you mean --epochs?"),
        (["train", "--epoch=3"], "--epoch; did you mean --epochs?"),
        (["train", "--batch_size", "3"], "did you mean --batch-size?"),
        (["predict", "--modle", "RUN"], "--modle; did you mean --model?"),
        (["export", "RUN", "--format", "onnx"], "--format; did you mean --formats?"),
        (["train", "--lr", "0.1"], "did you mean --set scratch.learning_rate=…, --set fine_tune"),
        (["train", "--models", "resnet50"], "'resnet50'; did you mean resnet50v2?"),
        (["train", "--models", "cnn"], "'cnn'; did you mean base_cnn?"),
        (["tune", "--model", "inceptionv3"], "did you mean inception_v3?"),
        (["train", "--preset", "labtop"], "did you mean laptop?"),
        (["export", "RUN", "--formats", "onx"], "did you mean onnx?"),
        (["benchmark", "ingset"], "did you mean ingest?"),
        (["train", "--weights-for", "resnet=x"], "did you mean resnet50v2?"),
        (
            ["train", "--set", "lr=0.1"],
            "such setting; did you mean scratch.learning_rate, fine_tune.learning_rate or sweep.l",
        ),
        (["train", "--set", "scratch.lr=0.1"], "did you mean scratch.learning_rate?"),
        (["train", "--set", "scratch.learning_rat=1"], "did you mean scratch.learning_rate?"),
        (
            ["train", "--set", "scrach.learning_rate=1"],
            "scrach.learning_rate: there is no such setting; did you mean scratch.learning_rate?",
        ),
        (["train", "--set", "augmentatoin=none"], "did you mean augmentation?"),
        (["train", "--set", "compute.precision=bfloat"], "did you mean bfloat16"),
        (["train", "--set", "weights.resnet50.source=none"], "did you mean resnet50v2"),
        (["train", "--set", "zzzz=1"], "zzzz: there is no such setting"),
        (["train", "--unlike-any", "1"], "--unlike-any (--help lists the flags)"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments[0], arguments[1:]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.strip().splitlines()
    assert said in line


def test_a_settings_file_with_a_mistyped_name_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("scratch: {epohcs: 3}\n")
    assert run("train", ["--config", str(file)]) == 2
    assert "scratch.epohcs: there is no such setting; did you mean scratch.epochs?" in (
        capsys.readouterr().err
    )
    file.write_text("preset: claster\n")
    assert run("train", ["--config", str(file)]) == 2
    assert "'claster'; did you mean cluster?" in capsys.readouterr().err


def test_a_mistyped_run_or_model_of_a_run_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos" / "models" / "resnet50v2").mkdir(parents=True)
    for given, meant in [("photo", "photos"), ("photos/models/resnet50", "resnet50v2")]:
        assert run("export", [str(tmp_path / given)]) == 2
        near = (tmp_path / given).with_name(meant)
        assert capsys.readouterr().err.strip().endswith(f"did you mean {near}?")
