"""The job over three nodes: the same result, nodes that do not fit together, and a sweep."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest

from catdog.cluster.nodes import _apart, _differences, _look
from catdog.storage import Location
from tests.store import KEYS, s3_server
from tests.tiny import write_rows

from .conftest import NODE, nodes_of_training_workers


def start(
    project: Path, environment: dict[str, str], *arguments: str, stdin: int | None = None
) -> subprocess.Popen[str]:
    """Python with ``arguments``, in the project's folder; its lines come through one pipe."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=project,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def weights_of(run: Path, model: str) -> list[np.ndarray]:
    """All arrays of the saved model, in the order of their names."""
    arrays: list[np.ndarray] = []
    with zipfile.ZipFile(run / f"models/{model}/model.keras") as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(
            lambda _, item: arrays.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return arrays


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_worker_and_three_on_three_nodes_come_to_the_same_losses_and_weights(
    project: Path, tmp_path: Path, environment_of: dict[str, str], exact: list[str]
) -> None:
    """Six steps; the same with both backbones takes ten minutes and was tried by hand."""
    runs = {workers: tmp_path / f"w{workers}" for workers in (1, 3)}
    for workers, folder in runs.items():
        process = start(
            project,
            environment_of,
            "jobs/train.py",
            *exact,
            f"--storage={tmp_path}",
            f"--name={folder.name}",
            f"--workers={workers}",
            "--epochs=2",
            "--set=compute.cpus_per_worker=1",
        )
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
    one, three = (
        json.loads((folder / "models/base_cnn/history.json").read_text())
        for folder in runs.values()
    )
    for row, other in zip(one, three, strict=True):
        for key in ("loss", "val_loss"):
            assert row[key] == pytest.approx(other[key], abs=1e-12)
    arrays = [weights_of(folder, "base_cnn") for folder in runs.values()]
    assert arrays[0]
    for array, other in zip(*arrays, strict=True):
        np.testing.assert_array_equal(array, other)


def test_versions_that_differ_and_packages_that_lack_are_named() -> None:
    driver = {"Python": "3.11", "keras": "3.15.0", "pillow": "12.0"}
    node = {"Python": "3.12", "keras": "", "pillow": "12.0"}
    assert _differences(driver, node) == ["Python 3.12 and not 3.11", "keras is not installed"]
    assert _differences(driver, driver) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_storage_that_the_nodes_do_not_share_is_refused(
    tmp_path: Path, environment_of: dict[str, str], project: Path, exact: list[str]
) -> None:
    """The driver runs in a mount namespace of its own, where another disk lies on the storage."""
    storage = tmp_path / "storage"
    storage.mkdir()
    script = (
        f"mount -t tmpfs tmpfs {storage} && exec {sys.executable} {project / 'jobs/train.py'} "
        f"{' '.join(exact)} --storage={storage} --workers=2"
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


def test_a_node_that_may_not_use_the_storage_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    # A store that looks at keys and knows none.
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as store:
        found = _look(store.uri("runs/.nodes-x"), "node")
    assert found["token"] == ""
    assert found["problem"].startswith("the store refuses s3://bucket/runs to these credentials")


def test_where_the_reason_is_known_no_other_storage_is_asked_for() -> None:
    place = Location.of("/shared")
    assert _apart(place, {}) == []
    assert _apart(place, {"a": "the disk is read-only"}) == ["node a: the disk is read-only"]
    elsewhere = _apart(place, {"a": "", "b": "the disk is read-only"})
    assert elsewhere[0] == "node a: /shared is not the driver's /shared"
    assert elsewhere[2].startswith("--storage must be one that all nodes share")


WAITER = """
import ray
from catdog.cluster import scaling
from catdog.cluster.connection import connected
from catdog.cluster.workers import Workers
scaling.TELL_EVERY_S = 1.0
with connected():
    workers = Workers(count=4, cpus=1, use_gpu=False, precision="float32")
    scaling.wait_for(workers, lambda line: print(line, flush=True))
    print("has", int(ray.cluster_resources()["CPU"]))
"""


#: Other work: it holds two cores until its standard input ends.
HOLDER = """
import sys, ray
ray.init(log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
class Held:
    def ready(self):
        return True

held = [Held.remote() for _ in range(2)]
ray.get([actor.ready.remote() for actor in held])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_cluster_that_is_too_small_or_taken_is_waited_for_aloud(
    project: Path, three_nodes: Any, environment_of: dict[str, str]
) -> None:
    with (
        start(project, environment_of, "-c", HOLDER, stdin=subprocess.PIPE) as holder,
        start(project, environment_of, "-c", WAITER) as process,
    ):
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert process.stdout is not None
        assert "held" in holder.stdout.readline()
        waiting = "waiting for the cluster to grow: 1 CPU more"
        assert any(waiting in line for line in process.stdout), "it did not wait"
        three_nodes.add_node(**NODE)
        waiting = "waiting for 4 CPU: other work holds 2 of the cluster's 4"
        assert any(waiting in line for line in process.stdout), "it did not wait"
        holder.stdin.close()
        assert "has 4" in process.stdout.read().splitlines()
    assert process.returncode == 0


CHECKER = """
import sys
from catdog.cluster.connection import connected
from catdog.errors import UserError
from catdog.cluster.nodes import check_nodes
from catdog.storage import Location
with connected():
    try:
        check_nodes(Location.of(sys.argv[1]))
    except UserError as error:
        print(*[str(error), *error.details], sep="\\n")
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_node_with_another_keras_is_named(
    project: Path,
    tmp_path: Path,
    three_nodes: Any,
    environment_of: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where it was installed: its metadata lie first on the path of that node's workers."""
    other = tmp_path / "site-packages"
    (other / "keras-2.1.0.dist-info").mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: keras\nVersion: 2.1.0\n"
    (other / "keras-2.1.0.dist-info/METADATA").write_text(metadata)
    monkeypatch.setenv("PYTHONPATH", f"{other}:{os.environ.get('PYTHONPATH', '')}")
    three_nodes.add_node(**NODE)
    process = start(project, environment_of, "-c", CHECKER, str(tmp_path / "storage"))
    output, _ = process.communicate(timeout=100)
    (line,) = output.splitlines()
    address = r"node [\d.]+"
    assert re.fullmatch(rf"{address}: keras 2\.1\.0 and not {version('keras')}", line), output


SWEEP = """
import sys
from catdog.config import ScratchSettings
from catdog.cluster.connection import connected
from catdog.models.registry import Architecture
from catdog.storage import Location
from catdog.config.sweep import SweepSettings
from catdog.training.job import TrainingJob
from catdog.training.pool import WorkerPool
from catdog.cluster.workers import Workers
from catdog.transfer.search import Search, with_point
from catdog.transfer.sweep import sweep_fine_tuning
from catdog.transfer.trials import TrialStore

folder = Location.of(sys.argv[1])
base = ScratchSettings(epochs=8, learning_rate=1e-4)
swept = SweepSettings(epochs=8, grace_epochs=8, weight_decay=(1e-4, 1e-3))
first = {name: getattr(base, name) for name in ("learning_rate", "dropout", "weight_decay")}
trial_store = TrialStore(folder / "sweep", Search.of(swept, first, 0), 3)

def job(point, output):
    return TrainingJob(
        output=output.uri, architecture=Architecture("base_cnn", 96, 96, "-1..1", 0.2),
        phase="scratch", settings=with_point(base, point), batch_size=8, seed=0,
        dataset="", photos="", features=(folder / "rows").uri, boundary="pool4",
        reproducible=False,
    )

def tell(key, point, row):
    print("trial", key, "epoch", row.epoch, flush=True)

with connected():
    workers = Workers(count=1, cpus=1, use_gpu=False, precision="float32")
    with WorkerPool(workers, folder / "ray", lambda message: None, size=3) as pool:
        sweep_fine_tuning(job, trial_store, swept, pool, tell)
trial_store.summarise(0.0)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_over_three_nodes_outlives_one_of_them(
    project: Path, tmp_path: Path, three_nodes: Any, environment_of: dict[str, str]
) -> None:
    write_rows(tmp_path)
    process = start(project, environment_of, "-c", SWEEP, str(tmp_path))
    assert process.stdout is not None
    seen, used, removed = [], set(), False
    for line in process.stdout:
        seen.append(line)
        busy = nodes_of_training_workers(three_nodes)
        used |= {node.node_id for node in busy}
        lost = [node for node in busy if node is not three_nodes.head_node]
        if not removed and len(used) > 1 and lost:
            three_nodes.remove_node(lost[0], allow_graceful=False)
            removed = True
    whole = "".join(seen)
    assert process.wait(timeout=60) == 0, whole
    process.stdout.close()
    assert removed, f"no two nodes had trials at once: {whole}"
    outcome = json.loads((tmp_path / "sweep" / "trials.json").read_text())
    assert [trial["id"] for trial in outcome["trials"]] == ["000", "001", "002"]
    for trial in outcome["trials"]:
        assert trial["error"] is None, whole
        assert [row["epoch"] for row in trial["history"]] == list(range(1, 9)), whole
    assert pd.read_parquet(tmp_path / "sweep" / "trials.parquet")["id"].nunique() == 3
