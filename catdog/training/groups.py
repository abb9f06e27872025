"""How a group of Ray Train's workers starts: what it reserves, and its cluster specification.

A placement group that nobody removes keeps its CPUs and GPUs, and what comes next waits for ever:
it is given back also where Ray Train does not.
"""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train.backend import Backend, BackendConfig
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from catdog.cluster import private

_ControllerCallback: Any = private.CONTROLLER_CALLBACK.get()
_WorkerGroup: Any = private.WORKER_GROUP.get()


class Trainer(DataParallelTrainer):
    """Ray Train's, without the actor that hands out shards of its datasets: rows are read by
    :mod:`catdog.data.feed`, and that actor takes 3 s of a core at every start of a group.
    """

    def _create_default_callbacks(self) -> list[Any]:
        made, unused = super()._create_default_callbacks(), private.DATASETS_CALLBACK.get()
        return [callback for callback in made if not isinstance(callback, unused)]


class CleanStart(_ControllerCallback):
    """A group whose worker is lost while it starts is dissolved, and another one is started.

    Without it Ray Train (2.60) keeps the placement group of such a group: the next attempt waits
    for CPUs that the last one holds. And it takes the loss of a worker in the second in which the
    training is handed over for a failure of its own, which it does not repeat.
    """

    def __init__(self, board: Any, group: int) -> None:
        self.board, self.group = board, group

    def after_controller_start(self, train_run_context: Any) -> None:
        # So that an interrupted driver can end it, from whose thread Ray Train hears no Ctrl-C.
        controller = ray.get_runtime_context().current_actor
        ray.get(self.board.controlled_by.remote(self.group, controller))
        private.CONTROLLER.get().worker_group_cls = _CleanlyStartedGroup


class _CleanlyStartedGroup(_WorkerGroup):
    def _start(self) -> None:
        try:
            super()._start()
        except Exception as error:
            if self.has_started():
                private.shut_down(self)
            if isinstance(error, RayActorError):
                told = f"a worker was lost while its group started: {error}"
                raise private.STARTUP_FAILED.get()(told) from error
            raise


@dataclass
class ClusterSpecConfig(BackendConfig):
    """Tells each worker the addresses of all and its own index (``TF_CONFIG``).

    Ray's own ``TensorflowConfig`` lives in a package whose import imports TensorFlow, so its
    controller process would import it too: 5 s of every start on two cores.
    """

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
