"""``jobs/tune.py`` as people run it, and what ``jobs/train.py`` makes of its choice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

#: Small photos and networks; weights from a file, as there may be no network.
SMALL = ["--preset=sample", "--image-size=32", "--set=data.drawings=80", "--workers=1"]


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
    given = [f"--storage={tmp_path}", f"--weights-for=resnet50v2={weights},scale=-1..1", *SMALL]
    sweep = ["--model=resnet50v2", "--stage=head", "--name=swept", *given]
    folder = tmp_path / "swept/sweeps/resnet50v2"
    stop_at(project, "resnet50v2 probe", signal.SIGKILL, *sweep)
    fitted = (tmp_path / "swept/models/resnet50v2/probe.json").read_text()
    assert not (folder / "best.yaml").exists()

    done = run(project, "tune.py", *sweep)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(folder / "best.yaml")
    assert "setting" in done.stdout, "the ranked table"
    assert (tmp_path / "swept/models/resnet50v2/probe.json").read_text() == fitted
    table = pd.read_parquet(folder / "trials.parquet")
    assert table["val_loss"].is_monotonic_increasing
    assert sorted(table["C"]) == [1e-5, 6e-5, 4e-4, 2.5e-3, 1.6e-2, 0.1]

    best = json.loads((folder / "trials.json").read_text())["best"]
    chosen = ["--name=final", "--seeds=2"]
    trained = run(project, "train.py", f"--config={folder / 'best.yaml'}", *chosen)
    assert trained.returncode == 0, trained.stdout + trained.stderr
    rows = json.loads((tmp_path / "final/models/resnet50v2/history.json").read_text())
    assert rows[0]["phase"] == "probe"
    assert rows[0]["val_loss"] == pytest.approx(best["val_loss"], abs=1e-6)
    mistakes = tmp_path / "final/models/resnet50v2/artifacts/gradcam.parquet"
    assert len(pd.read_parquet(mistakes)), "the drawings are hard and the network is random"
    (model,) = json.loads((tmp_path / "final/report.json").read_text())["models"]
    assert model["name"] == "resnet50v2"


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
