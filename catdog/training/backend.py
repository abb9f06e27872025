"""The cluster specification that TensorFlow reads, set on every worker.

Ray's own ``TensorflowConfig`` lives in a package whose import imports TensorFlow, so its
controller process would import it too, one after the other with the workers: 5 s of every start on
two cores. This one does the same and imports nothing.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


@dataclass
class ClusterSpecConfig(BackendConfig):
    """Tells each worker the addresses of all and its own index (``TF_CONFIG``)."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _ClusterSpec


def _address() -> str:
    """Of this worker's node, with a port that is free now."""
    host = ray.util.get_node_ip_address()
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _set_environment(addresses: list[str], index: int) -> None:
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})


def hosts() -> list[str]:
    """On a worker: the addresses of the nodes of all workers, by rank; empty outside a group."""
    spec = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses: list[str] = spec.get("cluster", {}).get("worker", [])
    return [address.rpartition(":")[0].strip("[]") for address in addresses]


class _ClusterSpec(Backend):
    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:
        addresses = worker_group.execute(_address)
        ray.get(
            [
                worker_group.execute_single_async(
                    index, _set_environment, addresses=addresses, index=index
                )
                for index in range(len(worker_group))
            ]
        )
