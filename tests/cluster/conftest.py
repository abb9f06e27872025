"""Real clusters on this machine: several raylets, each a node of one core."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

#: What a node of the clusters has.
NODE = {"num_cpus": 1, "object_store_memory": 200_000_000}


@pytest.fixture
def three_nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A ``ray.cluster_utils.Cluster`` of a head and two nodes; its processes end with the test."""
    from ray.cluster_utils import Cluster

    # Ray's sockets lie in this folder and their paths may have 107 characters at most.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    # Read by the head: a node that is gone is missed after some 5 s, not 15.
    for name, value in (("period_ms", "1000"), ("timeout_ms", "3000"), ("failure_threshold", "4")):
        monkeypatch.setenv(f"RAY_health_check_{name}", value)
    # A group that was to start on a lost node tries elsewhere after so long, not after 60 s.
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    head = {**NODE, "include_dashboard": False, "temp_dir": folder}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def environment_of(three_nodes: Any) -> dict[str, str]:
    """The environment in which a command uses the cluster."""
    return os.environ | {"RAY_ADDRESS": three_nodes.address}


def nodes_of_training_workers(cluster: Any) -> list[Any]:
    """The nodes that run one of Ray Train's workers at this moment."""
    return [node for node in cluster.list_all_nodes() if _trains(node)]


def node_of_a_training_worker(cluster: Any) -> Any:
    """A node that is not the head and runs one of Ray Train's workers."""
    for node in cluster.worker_nodes:
        if _trains(node):
            return node
    raise AssertionError("no training worker outside the head")


def _trains(node: Any) -> bool:
    raylet = node.all_processes["raylet"][0].process.pid
    try:
        below = psutil.Process(raylet).children(recursive=True)
        return any("ray::RayTrainWorker" in " ".join(process.cmdline()) for process in below)
    except psutil.NoSuchProcess:  # it ended while it was looked at
        return False
