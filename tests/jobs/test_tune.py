"""``jobs/tune.py`` as people run it, and what ``jobs/train.py`` makes of its choice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

#: Small photos and networks; weights from a file, as there may be no network.
SMALL = ["--preset=sample", "--image-size=32", "--set=data.drawings=120", "--workers=1"]
EXACT = [
    "--set=compute.precision=float32",
    "--set=sweep.dropout=[0.0]",
    "--set=fine_tune.dropout=0",
]


def command(project: Path, job: str, *arguments: str) -> list[str]:
    return [sys.executable, str(project / "jobs" / job), *arguments]


def environment() -> dict[str, str]:
    # Ray lowers its workers' priority by default; with that, tests beside others time out.
    return os.environ | {"RAY_worker_niceness": "0"}


def run(
    project: Path, job: str, *arguments: str, limit_s: float = 400
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, job, *arguments),
        capture_output=True,
        text=True,
        timeout=limit_s,
        env=environment(),
        check=False,
    )


def stop_at(project: Path, line: str, number: signal.Signals, *arguments: str) -> tuple[int, str]:
    """Start tune.py, signal it at the first line that holds ``line``; (exit code, output)."""
    process = subprocess.Popen(
        command(project, "tune.py", *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    seen, sent = [], False
    for text in process.stdout:
        seen.append(text)
        if line in text and not sent:
            process.send_signal(number)
            sent = True
    code = process.wait(timeout=60)
    process.stdout.close()
    return code, "".join(seen)


def times(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (folder / "trials").glob("*.json")}


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "--model"),
        (["--model", "base_cnn"], "invalid choice"),
        (["--model", "resnet50v2", "--trials", "0"], "1 or more"),
        (["--model", "resnet50v2", "--set", "sweep.dropout=[2]"], "less than 1"),
        (["--model", "resnet50v2", "--set", "sweep.depth=[2]"], "there is no such setting"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(
    project: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    done = run(project, "tune.py", "--storage", str(tmp_path / "runs"), *arguments, limit_s=100)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert expected in lines[0]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_sweep_of_the_head_goes_on_and_train_takes_its_choice(
    project: Path, tmp_path: Path, weights: Path
) -> None:
    given = [
        f"--storage={tmp_path}",
        f"--weights-for=resnet50v2={weights},scale=-1..1",
        *SMALL,
        *EXACT,
    ]
    # Trials and epochs enough for a sweep that can be met at work.
    sweep = ["--model=resnet50v2", "--stage=head", "--trials=16", "--name=swept"]
    sweep += [*given, "--set=sweep.head_epochs=100"]
    folder = tmp_path / "swept/sweeps/resnet50v2"
    stop_at(project, "trial 001", signal.SIGKILL, *sweep)
    killed = times(folder)
    assert 0 < len(killed) < 16
    assert not (folder / "best.yaml").exists()
    time.sleep(10)  # the local cluster ends some seconds after its driver

    done = run(project, "tune.py", *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(folder / "best.yaml")
    assert "setting" in done.stdout, "the ranked table"
    assert killed.items() < times(folder).items(), "a finished trial was run again"
    assert len(times(folder)) == 16
    table = pd.read_parquet(folder / "trials.parquet")
    assert table["val_accuracy"].is_monotonic_decreasing

    best = json.loads((folder / "trials.json").read_text())["best"]
    trial = json.loads((folder / "trials" / f"{best['id']}.json").read_text())
    trained = run(
        project,
        "train.py",
        f"--config={folder / 'best.yaml'}",
        "--name=final",
        "--set=fine_tune.epochs=100",
        "--seeds=2",
    )
    assert trained.returncode == 0, trained.stdout + trained.stderr
    rows = json.loads((tmp_path / "final/models/resnet50v2/history.json").read_text())
    probe, *head = rows
    assert probe["phase"] == "probe"
    for ours, theirs in zip(trial["history"][:50], head[:50], strict=True):
        assert ours["val_loss"] == pytest.approx(theirs["val_loss"], abs=1e-4), ours["epoch"]
    other = tmp_path / "final/models/resnet50v2/seeds/1/history.json"
    assert json.loads(other.read_text())[-1]["loss"] != head[-1]["loss"], "the same seed twice"
    mistakes = pd.read_parquet(other.parent / "artifacts/gradcam.parquet")
    assert len(mistakes), "nothing explained; the drawings are hard and the network is random"
    (model,) = json.loads((tmp_path / "final/report.json").read_text())["models"]
    assert model["seeds"]["n"] == 2
    assert model["seeds"]["sd"] is not None


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_of_fine_tuning_is_interrupted_and_ends_in_a_table_and_a_choice(
    project: Path, tmp_path: Path, weights: Path
) -> None:
    pytest.importorskip("optuna")
    sweep = [
        f"--storage={tmp_path}",
        f"--weights-for=resnet50v2={weights},scale=-1..1",
        *SMALL,
        "--model=resnet50v2",
        "--search=tpe",
        "--trials=3",
        "--name=swept",
        "--set=sweep.epochs=2",
        "--set=fine_tune.augmentation.zoom=0.1",
        # The first trial augments pixels as the run does, the others start from what is kept.
        "--set=sweep.augmentation_strength=[0]",
        "--set=sweep.unfrozen_blocks=[1]",
    ]
    folder = tmp_path / "swept/sweeps/resnet50v2"
    code, output = stop_at(project, "trial 001", signal.SIGINT, *sweep)
    assert code == 130, output
    assert "the same command continues" in output
    stopped = times(folder)
    assert set(stopped) == {"000.json"}
    assert (folder / "best.yaml").exists(), "Ctrl-C ends with what there is"

    done = run(project, "tune.py", *sweep, limit_s=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stopped.items() < times(folder).items(), "a finished trial was run again"
    outcome: dict[str, Any] = json.loads((folder / "trials.json").read_text())
    assert [trial["id"] for trial in outcome["trials"]] == ["000", "001", "002"]
    assert all(trial["status"] in ("finished", "stopped") for trial in outcome["trials"])
    assert outcome["trials"][0]["epochs"] == 2, "every epoch is reported"
    assert set(outcome["trials"][1]["config"]) == {
        "learning_rate",
        "unfrozen_blocks",
        "dropout",
        "weight_decay",
        "label_smoothing",
        "augmentation_strength",
    }
    strengths = [trial["config"]["augmentation_strength"] for trial in outcome["trials"]]
    assert strengths == [1, 0, 0]
    kept = {json.loads(file.read_text())["boundary"] for file in tmp_path.glob("features/*/*.json")}
    assert kept == {"pooled_features", "conv4_block6_out"}
