"""Real clusters on this machine: several raylets, each a node of one core."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil
import pytest


@pytest.fixture
def three_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` of a head and two nodes; its processes end with the test."""
    from ray.cluster_utils import Cluster

    # Ray's sockets lie in this folder and their paths may have 107 characters at most.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    options = {"num_cpus": 1, "object_store_memory": 200_000_000}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**options, "include_dashboard": False, "temp_dir": folder},
    )
    try:
        for _ in range(2):
            cluster.add_node(**options)
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment_of(three_nodes: Any) -> dict[str, str]:
    """The environment in which a command uses the cluster."""
    return os.environ | {"RAY_ADDRESS": three_nodes.address}


def node_of_a_training_worker(cluster: Any) -> Any:
    """A node that is not the head and runs one of Ray Train's workers."""
    for node in cluster.worker_nodes:
        raylet = node.all_processes["raylet"][0].process.pid
        for process in psutil.Process(raylet).children(recursive=True):
            if "ray::RayTrainWorker" in " ".join(process.cmdline()):
                return node
    raise AssertionError("no training worker outside the head")
