"""``jobs/train.py`` as people run it: a process of its own, its lines, its files, its exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
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
def whole(
    project: Path, tmp_path_factory: pytest.TempPathFactory, exact: list[str]
) -> list[dict[str, Any]]:
    """The epochs of a run of two workers that nothing disturbed."""
    storage = tmp_path_factory.mktemp("whole")
    done = run(project, f"--storage={storage}", "--name=whole", "--workers=2", "--epochs=4", *exact)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().splitlines()[-1] == str(storage / "whole/report.html")
    return history(storage / "whole")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_and_two_workers_come_to_the_same_losses(
    project: Path, tmp_path: Path, exact: list[str], whole: list[dict[str, Any]]
) -> None:
    arguments = [f"--storage={tmp_path}", "--name=one", "--workers=1", "--epochs=4", *exact]
    done = run(project, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    for one, two in zip(history(tmp_path / "one"), whole, strict=True):
        for key in ("loss", "val_loss"):
            # Not nearly: every bit of every weight is the same (catdog/training/reproducible.py).
            assert one[key] == pytest.approx(two[key], abs=1e-12), (key, one, two)
    record = json.loads((tmp_path / "one/run.json").read_text())
    assert record["reproducible"] == {"base_cnn": "the same bits on any number of workers"}


@pytest.fixture
def mlflow(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "mlflow", free_port())
    server.folder.mkdir()
    server.start()
    yield server
    server.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_killed_run_goes_on_and_ends_like_one_that_was_never_stopped(
    project: Path,
    tmp_path: Path,
    exact: list[str],
    whole: list[dict[str, Any]],
    mlflow: Server,
) -> None:
    arguments = [f"--storage={tmp_path}", "--workers=2", "--epochs=4", *exact, "--name=killed"]
    arguments += ["--track=mlflow", f"--set=tracking.uri={mlflow.uri}"]
    killed = subprocess.Popen(
        command(project, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    assert killed.stdout is not None
    for line in killed.stdout:
        if "epoch 2/4  loss" in line:
            killed.send_signal(signal.SIGKILL)
            break
    killed.wait(timeout=60)
    killed.stdout.close()
    time.sleep(10)  # the local cluster ends some seconds after its driver

    again = run(project, *arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "base_cnn: going on after epoch" in again.stdout
    assert "epoch 1/4  loss" not in again.stdout, "an epoch was trained twice"
    for one, other in zip(whole, history(tmp_path / "killed"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-6)

    check_tracked(mlflow, tmp_path / "killed")

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
@pytest.mark.parametrize(
    "signal_, code, workers", [(signal.SIGINT, 130, 2), (signal.SIGTERM, 143, 1)]
)
def test_an_interrupted_run_says_how_to_go_on(
    project: Path,
    tmp_path: Path,
    exact: list[str],
    signal_: signal.Signals,
    code: int,
    workers: int,
) -> None:
    arguments = [f"--storage={tmp_path}", f"--workers={workers}", "--epochs=50", *exact]
    arguments += ["--name=stopped"]
    process = subprocess.Popen(
        command(project, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/50  loss" in line:
            process.send_signal(signal_)
            break
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == code, complaint
    assert complaint.strip().splitlines()[-1].startswith("stopped; the same command continues: ")
    assert "Traceback" not in complaint
    record = json.loads((tmp_path / "stopped" / "run.json").read_text())
    assert record["sessions"][-1]["outcome"] == "failed"
    assert (tmp_path / "stopped/models/base_cnn/checkpoints/epoch-0001.npz").is_file()
