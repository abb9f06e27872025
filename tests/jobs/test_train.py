"""``jobs/train.py`` as people run it: a process of its own, its lines, its files, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mlflow_server import Server
from tests.ports import free_port


def command(project: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(project / "jobs" / "train.py"), *arguments]


def environment() -> dict[str, str]:
    # Ray lowers its workers' priority by default; with that, tests beside others time out.
    return os.environ | {"RAY_worker_niceness": "0"}


def run(project: Path, *arguments: str, limit_s: float = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, *arguments),
        capture_output=True,
        text=True,
        timeout=limit_s,
        env=environment(),
        check=False,
    )


def history(run_dir: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run_dir / "models/base_cnn/history.json").read_text())
    return rows


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--data", "/no/such/folder"], "there is no /no/such/folder"),
        (["--models", "vgg16"], "invalid choice: 'vgg16'"),
        (["--image-size", "64"], "too small for base_cnn"),
        (["--weights-for", "inception_v3=/no.h5,scale=0..1"], "there is no file /no.h5"),
        (["--workers", "64"], "this cluster has"),
    ],
)
def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(
    project: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    done = run(project, "--storage", str(tmp_path / "runs"), *arguments, limit_s=100)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    assert expected in lines[0]


def test_a_folder_of_one_class_is_refused_before_anything_is_written(
    project: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        (photos / f"cat.{number}.jpg").write_bytes(b"not looked at yet")
    done = run(project, "--data", str(photos), "--storage", str(tmp_path / "runs"))
    assert done.returncode == 2
    assert "dog" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert len(list(photos.iterdir())) == 3


@pytest.fixture(scope="module")
def alone(project: Path, tmp_path_factory: pytest.TempPathFactory, exact: list[str]) -> Path:
    """The run of one worker that nothing disturbed."""
    storage = tmp_path_factory.mktemp("alone")
    done = run(project, f"--storage={storage}", "--name=alone", "--workers=1", "--epochs=6", *exact)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(storage / "alone/report.html")
    return storage / "alone"


def signalled(
    project: Path, line: str, number: signal.Signals, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """The job, sent a signal at the first line that holds ``line``."""
    process = subprocess.Popen(
        command(project, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    seen = []
    for text in process.stdout:
        seen.append(text)
        if line in text:
            process.send_signal(number)
            break
    rest, complaint = process.communicate(timeout=60)
    said = "".join(seen) + rest
    return subprocess.CompletedProcess(process.args, process.returncode, said, complaint)


def check_interrupted(done: subprocess.CompletedProcess[str], code: int, run_dir: Path) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("stopped; the same command continues: ")
    assert "Traceback" not in done.stderr
    record = json.loads((run_dir / "run.json").read_text())
    assert record["sessions"][-1]["outcome"] == "failed"
    assert list((run_dir / "models/base_cnn/checkpoints").glob("epoch-*.npz"))


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "mlflow", free_port())
    server.folder.mkdir()
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_workers_killed_and_interrupted_come_to_the_same_losses_as_one_left_alone(
    project: Path, tmp_path: Path, exact: list[str], alone: Path, mlflow: Server
) -> None:
    arguments = [f"--storage={tmp_path}", "--workers=2", "--epochs=6", *exact, "--name=hurt"]
    arguments += ["--track=mlflow", f"--set=tracking.uri={mlflow.uri}"]
    hurt = tmp_path / "hurt"
    killed = signalled(project, "epoch 1/6  loss", signal.SIGKILL, *arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr

    # After the first epoch that it trains itself.
    interrupted = signalled(project, "/6  loss", signal.SIGINT, *arguments)
    assert "base_cnn: going on after epoch" in interrupted.stdout
    check_interrupted(interrupted, 130, hurt)

    again = run(project, *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "base_cnn: going on after epoch" in again.stdout
    lines = interrupted.stdout + again.stdout
    assert "epoch 1/6  loss" not in lines, "an epoch was trained twice"
    for one, two in zip(history(alone), history(hurt), strict=True):
        for key in ("loss", "val_loss"):
            # Not nearly: every bit of every weight is the same (catdog/training/reproducible.py).
            assert one[key] == pytest.approx(two[key], abs=1e-12), (key, one, two)
    for folder in (alone, hurt):
        record = json.loads((folder / "run.json").read_text())
        assert record["reproducible"] == {"base_cnn": "the same bits on any number of workers"}

    check_tracked(mlflow, hurt)

    finished = run(project, *arguments, limit_s=60)
    assert finished.returncode == 0
    assert "nothing is left to do" in finished.stdout


def check_tracked(mlflow: Server, run_dir: Path) -> None:
    """MLflow has one run, of both commands: its settings, each epoch once, results and report."""
    client, tracked = mlflow.only_run("catdog")
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["scratch.dropout"] == "0.1"
    metrics = client.get_metric_history(tracked.info.run_id, "base_cnn/val_loss")
    rows = [(row["epoch"], row["val_loss"]) for row in history(run_dir)]
    assert [(metric.step, metric.value) for metric in metrics] == rows
    report = json.loads((run_dir / "report.json").read_text())
    accuracy = report["models"][0]["test"]["accuracy"]
    assert tracked.data.metrics["base_cnn/test_accuracy"] == accuracy
    page = client.download_artifacts(tracked.info.run_id, "report.html", str(run_dir.parent))
    assert Path(page).read_bytes() == (run_dir / "report.html").read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_terminated_run_says_how_to_go_on(
    project: Path, tmp_path: Path, exact: list[str]
) -> None:
    arguments = [f"--storage={tmp_path}", "--workers=1", "--epochs=50", *exact, "--name=stopped"]
    done = signalled(project, "epoch 1/50  loss", signal.SIGTERM, *arguments)
    check_interrupted(done, 143, tmp_path / "stopped")
