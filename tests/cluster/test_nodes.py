"""The job over three nodes: the same result, a lost node, and nodes that do not fit together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from catdog.nodes import _differences

EXACT = [
    "--models=base_cnn",
    "--trials=0",
    "--set=data.drawings=240",
    "--set=compute.precision=float32",
    "--set=augmentation.horizontal_flip=false",
    "--set=augmentation.rotation=0",
    "--set=augmentation.zoom=0",
    "--set=scratch.dropout=0",
]


def train(project: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(project / "jobs" / "train.py"), *EXACT, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def model_of(run: Path) -> dict[str, Any]:
    model: dict[str, Any] = json.loads((run / "models/base_cnn/model.json").read_text())
    return model


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_worker_and_three_on_three_nodes_come_to_the_same_losses(
    project: Path, tmp_path: Path, environment_of: dict[str, str]
) -> None:
    rows = {}
    for workers in (1, 3):
        process = train(
            project,
            environment_of,
            f"--storage={tmp_path}",
            f"--name=w{workers}",
            f"--workers={workers}",
            "--epochs=2",
            "--set=compute.cpus_per_worker=1",
        )
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        rows[workers] = json.loads(
            (tmp_path / f"w{workers}/models/base_cnn/history.json").read_text()
        )
    for one, three in zip(rows[1], rows[3], strict=True):
        for key in ("loss", "val_loss"):
            assert one[key] == pytest.approx(three[key], abs=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_outlives_one_of_its_nodes(
    project: Path, tmp_path: Path, three_nodes: Any, environment_of: dict[str, str]
) -> None:
    from .conftest import node_of_a_training_worker

    arguments = [f"--storage={tmp_path}", "--name=run", "--workers=2", "--epochs=6"]
    process = train(project, environment_of, *arguments)
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if "epoch 2/6" in line:
            three_nodes.remove_node(node_of_a_training_worker(three_nodes), allow_graceful=False)
    assert process.wait(timeout=60) == 0, "".join(seen)
    process.stdout.close()
    epochs = [line.split()[2] for line in seen if line.startswith("base_cnn epoch")]
    assert epochs == [f"{epoch}/6" for epoch in range(1, 7)], "an epoch was trained twice"
    assert model_of(tmp_path / "run")["train"]["restarts"] == 1
    assert (tmp_path / "run" / "report.html").is_file()


def test_versions_that_differ_and_packages_that_lack_are_named() -> None:
    driver = {"Python": "3.11", "keras": "3.15.0", "pillow": "12.0"}
    node = {"Python": "3.12", "keras": "", "pillow": "12.0"}
    assert _differences(driver, node) == ["Python 3.12 and not 3.11", "keras is not installed"]
    assert _differences(driver, driver) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_storage_that_the_nodes_do_not_share_is_refused(
    tmp_path: Path, environment_of: dict[str, str], project: Path
) -> None:
    """The driver runs in a mount namespace of its own, where another disk lies on the storage."""
    storage = tmp_path / "storage"
    storage.mkdir()
    script = (
        f"mount -t tmpfs tmpfs {storage} && exec {sys.executable} {project / 'jobs/train.py'} "
        f"{' '.join(EXACT)} --storage={storage} --workers=2"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        capture_output=True,
        text=True,
        env=environment_of,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"needs a mount namespace: {done.stderr.strip()}")
    assert done.returncode == 2, done.stderr
    assert "is not the driver's" in done.stderr.splitlines()[0]
    assert "a mounted folder or s3://" in done.stderr


WAITER = """
import ray
from catdog import cluster
from catdog.training.trainer import Workers
cluster.TELL_EVERY_S = 1.0
with cluster.connected():
    workers = Workers(count=4, cpus=1, use_gpu=False, precision="float32")
    cluster.wait_for(workers, lambda line: print(line, flush=True))
    print("has", int(ray.cluster_resources()["CPU"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_cluster_that_is_too_small_is_waited_for_aloud(
    project: Path, three_nodes: Any, environment_of: dict[str, str]
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WAITER],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment_of,
    ) as process:
        assert process.stdout is not None
        assert "waiting for the cluster to grow: 1 CPU more" in process.stdout.readline()
        three_nodes.add_node(num_cpus=1, object_store_memory=200_000_000)
        assert process.stdout.read().splitlines()[-1] == "has 4"
    assert process.returncode == 0
