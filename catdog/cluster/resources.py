"""Resources of a Ray cluster, and the plan of workers for a run."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import NamedTuple

from catdog.cluster.machine import BFLOAT16, NAMED_PACKAGES, cpu_flags, cpu_name
from catdog.cluster.scaling import fitting, nodes_to_come
from catdog.cluster.workers import Workers
from catdog.config import Config, Precision
from catdog.console import plural
from catdog.errors import UserError
from catdog.runs.records import Hardware

#: What Ray calls the head among a node's resources.
HEAD = "node:__internal_head__"
#: Cores of a worker, at most: with a GPU, and without.
FEEDING_CPUS, MOST_CPUS = 4, 64


class Node(NamedTuple):
    """CPU cores and GPUs of one node, and what Ray calls these, such as ``L4``."""

    cpus: int
    gpus: int
    accelerator: str = "GPU"

    @classmethod
    def of(cls, resources: Mapping[str, float]) -> Node:
        kinds = (name.partition(":") for name in resources)
        names = [kind for prefix, _, kind in kinds if prefix == "accelerator_type"]
        cpus, gpus = (int(resources.get(kind, 0)) for kind in ("CPU", "GPU"))
        return cls(cpus, gpus, *names[:1])


@dataclass(frozen=True)
class Resources:
    """CPU cores, GPUs and memory of a cluster, node by node."""

    nodes: tuple[Node, ...]
    memory_bytes: int = 0

    @classmethod
    def now(cls) -> Resources:
        """Resources of the nodes that are up."""
        return cls._of(_alive())

    @classmethod
    def at_most(cls) -> Resources:
        """Resources that the cluster may grow to, if that is more than it has."""
        alive, come = _alive(), nodes_to_come()
        grown = [*(node for node in alive if HEAD in node), *come]
        have, most = cls._of(alive), cls._of(grown)
        return most if come and (most.gpus, most.cpus) > (have.gpus, have.cpus) else have

    @classmethod
    def _of(cls, nodes: Iterable[Mapping[str, float]]) -> Resources:
        return cls(tuple(map(Node.of, nodes)), int(sum(node.get("memory", 0) for node in nodes)))

    @property
    def cpus(self) -> int:
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(node.gpus for node in self.nodes)

    def places(self, use_gpu: bool) -> int:
        """Default number of workers: one for each GPU, or for each node with cores."""
        return self.gpus if use_gpu else max(1, sum(node.cpus > 0 for node in self.nodes))

    def room(self, cpus: int, use_gpu: bool) -> int:
        """How many workers with ``cpus`` cores fit; a worker needs them on one node."""
        each = {"CPU": cpus} | ({"GPU": 1} if use_gpu else {})
        return fitting([{"CPU": node.cpus, "GPU": node.gpus} for node in self.nodes], each)

    def cpus_each(self, workers: int, use_gpu: bool) -> int:
        """CPU cores that each of ``workers`` can have; with a GPU a few are enough."""
        most = min(max(1, self.cpus // workers), FEEDING_CPUS if use_gpu else MOST_CPUS)
        return next((n for n in range(most, 1, -1) if self.room(n, use_gpu) >= workers), 1)


def _alive() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def plan_workers(config: Config, resources: Resources) -> Workers:
    """Number of workers, and the resources of each.

    GPUs where there are any (one worker each), else CPU workers that share the cores evenly. Where
    ``min_workers`` allows it, as many as the cluster has room for.

    Raises:
        UserError: more is asked for than the cluster has.
    """
    compute = config.compute
    use_gpu = compute.use_gpu if compute.use_gpu is not None else resources.gpus > 0
    if use_gpu and not resources.gpus:
        raise UserError("--use-gpu: this cluster has no GPU; leave the flag out to use its CPUs")
    most = compute.workers or resources.places(use_gpu)
    least = compute.min_workers or most
    most = max(least, most)
    if use_gpu and least > resources.gpus:
        raise UserError(
            f"--workers {least}: this cluster has {plural(resources.gpus, 'GPU')}, "
            "one for each worker"
        )
    if least > resources.cpus:
        raise UserError(f"--workers {least}: this cluster has {plural(resources.cpus, 'CPU core')}")
    if compute.xla and most > 1 and not use_gpu:
        # TensorFlow 2.21 ends in "Multiple CPU devices" where XLA clusters lie beside collectives.
        raise UserError(
            f"compute.xla: several CPU workers cannot have it (here {most}); give --workers 1, or "
            "leave it out"
        )
    cpus = compute.cpus_per_worker or resources.cpus_each(most, use_gpu)
    room = resources.room(cpus, use_gpu)
    if room < least:
        raise UserError(
            f"--workers {least} with {plural(cpus, 'CPU core')} each: this cluster has room for "
            f"{room} of them"
        )
    count = min(most, room)
    span = (least, most) if least < most else None
    return Workers.of(compute, count, cpus, use_gpu, dtype_policy(compute.precision, use_gpu), span)


def dtype_policy(asked: Precision, use_gpu: bool) -> str:
    """Keras' dtype policy for the precision asked for; ``auto`` asks the hardware."""
    if asked == "auto":
        asked = "bfloat16" if use_gpu or _cpu_has_bfloat16() else "float32"
    return "mixed_bfloat16" if asked == "bfloat16" else "float32"


def _cpu_has_bfloat16() -> bool:
    return not BFLOAT16.isdisjoint(cpu_flags())


def describe_hardware(resources: Resources) -> Hardware:
    gpus = Counter[str]()
    for node in resources.nodes:
        gpus[node.accelerator] += node.gpus
    return Hardware(
        cpu=cpu_name(),
        cpus=resources.cpus,
        memory_bytes=resources.memory_bytes,
        gpus=[f"{count} × {name}" for name, count in gpus.items() if count],
        nodes=len(resources.nodes),
    )


def versions() -> dict[str, str]:
    from catdog import __version__

    found = {"catdog": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in NAMED_PACKAGES}
