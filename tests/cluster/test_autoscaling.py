"""A cluster that scales from zero: Ray's autoscaler, with raylets on this machine for nodes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from ray.util import get_node_ip_address

from catdog.cluster.resources import Node, Resources, plan_workers
from catdog.cluster.scaling import nodes_of
from catdog.presets import cluster
from tests.ports import free_ports, wait_until_open

RAY = str(Path(sys.executable).with_name("ray"))
COMMANDS = [
    *("cluster_synced_files", "initialization_commands", "setup_commands"),
    *("head_setup_commands", "worker_setup_commands"),
    *("head_start_ray_commands", "worker_start_ray_commands"),
]
#: What the cluster may grow to: its head has no core.
MOST = 2


@pytest.fixture
def scaling_cluster() -> Iterator[dict[str, str]]:
    """The environment for a cluster that adds nodes of one core when they are asked for."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    port, agent, client = free_ports(3)
    address = f"{get_node_ip_address()}:{port}"
    config = {
        # What Ray's launcher would have filled in.
        **{key: {} for key in ("auth", "file_mounts")},
        **{key: [] for key in COMMANDS},
        "upscaling_speed": 1.0,
        "cluster_name": "catdog-test",
        "max_workers": MOST,
        "idle_timeout_minutes": 10,
        "provider": {
            "type": "fake_multinode",
            "use_node_id_as_ip": True,
            "disable_launch_config_check": True,
            "disable_node_updaters": True,
            "gcs_address": address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
            "core": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": MOST},
        },
        "head_node_type": "ray.head.default",
    }
    (folder / "scaling.json").write_text(json.dumps(config))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "RAY_FAKE_CLUSTER": "1",
        "RAY_worker_niceness": "0",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    command = [
        *(RAY, "start", "--head", "--block", "--num-cpus=0", "--include-dashboard=false"),
        *(f"--port={port}", f"--dashboard-agent-listen-port={agent}", f"--temp-dir={folder}"),
        *(f"--ray-client-server-port={client}", "--object-store-memory=200000000"),
        f"--autoscaling-config={folder / 'scaling.json'}",
    ]
    log = (folder / "head.log").open("w")
    head = psutil.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
    try:
        wait_until_open(port, head, folder / "head.log")
        yield os.environ | {"RAY_ADDRESS": address, "RAY_worker_niceness": "0"}
    finally:
        # The autoscaler's nodes are processes below it.
        with suppress(psutil.NoSuchProcess):
            below = head.children(recursive=True)
            head.terminate()
            for process in psutil.wait_procs([head, *below], timeout=3)[1]:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        head.wait()
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def test_what_the_launchers_files_allow_is_what_a_job_may_plan_with(project: Path) -> None:
    for file in ("cluster.yaml", "docs/cluster-gcp.yaml"):
        nodes = nodes_of(yaml.safe_load((project / file).read_text()))
        sizes = [Node(int(node["CPU"]), int(node.get("GPU", 0))) for node in nodes]
        resources = Resources((Node(0, 0), *sizes))
        assert [node["CPU"] for node in nodes] == 8 * [8] + 8 * [16], file
        assert [node.get("GPU", 0) for node in nodes] == 8 * [1] + 8 * [0]
        gpus = plan_workers(cluster(), resources)
        assert (gpus.count, gpus.cpus, gpus.use_gpu) == (8, 4, True)
        asked = cluster().compute.model_copy(update={"workers": 4, "use_gpu": False})
        cores = plan_workers(cluster().model_copy(update={"compute": asked}), resources)
        assert (cores.count, cores.cpus) == (4, 16), "no node has more"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_job_starts_on_a_cluster_without_a_core_and_is_held_to_its_limit(
    project: Path, tmp_path: Path, scaling_cluster: dict[str, str], exact: list[str]
) -> None:
    def run(workers: int) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(sys.executable, "jobs/train.py", *exact, f"--storage={tmp_path}"),
                *("--name=scaled", f"--workers={workers}", "--epochs=1"),
                "--set=compute.reproducible=false",
            ],
            cwd=project,
            capture_output=True,
            text=True,
            env=scaling_cluster,
            timeout=300,
            check=False,
        )

    refused = run(MOST + 1)
    assert refused.returncode == 2, refused.stdout + refused.stderr
    assert f"this cluster has {MOST} CPU cores" in refused.stderr
    done = run(MOST)
    assert done.returncode == 0, done.stdout + done.stderr
    history = json.loads((tmp_path / "scaled/models/base_cnn/history.json").read_text())
    assert [row["epoch"] for row in history] == [1]
    lines = (tmp_path / "scaled/events.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert any(event.get("workers") == MOST for event in events), events
