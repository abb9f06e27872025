"""Ray: connecting, what the cluster has, and what a run may use of it."""

from __future__ import annotations

import math
import os
import platform
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catdog.config import Config, Precision
from catdog.console import plural
from catdog.errors import UserError
from catdog.scaling import nodes_to_come
from catdog.training.trainer import POLL_S
from catdog.training.workers import Workers

#: How often a wait for resources says what is missing, seconds.
TELL_EVERY_S = 30.0

#: A head that does not take a connection within so long, seconds, is not there.
REACH_S = 10.0
OWN_CLUSTER = "RAY_ADDRESS=local makes one of this command's own"

#: Packages whose versions make a result.
NAMED_PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "numpy")


@contextmanager
def connected() -> Iterator[None]:
    """A Ray cluster: that of ``RAY_ADDRESS``, else one that this machine runs, else a new one here.

    ``RAY_ADDRESS=local`` asks for a new one whatever runs.

    Raises:
        UserError: none can be reached there.
    """
    import ray

    # Read by Ray Train in the driver and handed on to its controllers.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Tune's older reporter is the one that can be silent.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if ray.is_initialized():  # somebody else's, as in tests
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS") or None
    _check_reachable(address)
    try:
        ray.init(
            address=address,
            include_dashboard=False if address in (None, "local") else None,
            log_to_driver=False,
            logging_level="ERROR",
        )
    except (ConnectionError, RuntimeError) as error:
        # Of another version, with another token, or gone while its address is still known.
        cause = " ".join(str(error).split())[:300]
        raise UserError(f"no Ray cluster can be joined: {cause} ({OWN_CLUSTER})") from error
    # Ray's own handler would end this process on the spot.
    signal.signal(signal.SIGTERM, on_sigterm)
    _quiet_ray()
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Ray itself tries for minutes, in silence."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", "local", or none
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except OSError as error:
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({error.strerror or error}): "
            f"start one (ray start --head), correct the address, or {OWN_CLUSTER}"
        ) from error


def _quiet_ray() -> None:
    """Ray's own progress tables and notes do not bury the lines of the run."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class Resources:
    """What the cluster has, or may scale to where that is more.

    Attributes:
        node_cpus: CPU cores of each node.
        nodes: how many there are now.
    """

    node_cpus: tuple[int, ...]
    gpus: int
    nodes: int
    memory_bytes: int

    @classmethod
    def of_cluster(cls) -> Resources:
        import ray

        alive = [node for node in ray.nodes() if node["Alive"]]
        have = [node["Resources"] for node in alive]
        come = nodes_to_come()
        most = have if _sum(have, "CPU") >= _sum(come, "CPU") else come
        return cls(
            node_cpus=tuple(int(node.get("CPU", 0)) for node in most),
            gpus=max(_sum(have, "GPU"), _sum(come, "GPU")),
            nodes=len(alive),
            memory_bytes=_sum(have, "memory"),
        )

    @property
    def cpus(self) -> int:
        return sum(self.node_cpus)

    @property
    def working_nodes(self) -> int:
        """Nodes that have cores; a head may have none."""
        return sum(cores > 0 for cores in self.node_cpus) or self.nodes

    def cpus_each(self, workers: int) -> int:
        """Cores that each of so many workers can have; one lives on one node."""
        even = max(1, self.cpus // workers)
        return next((cpus for cpus in range(even, 1, -1) if self.fitting(cpus) >= workers), 1)

    def fitting(self, cpus: int) -> int:
        """Workers of so many cores for which there is room."""
        return sum(cores // cpus for cores in self.node_cpus)


def _sum(nodes: Iterable[Mapping[str, float]], kind: str) -> int:
    return int(sum(node.get(kind, 0) for node in nodes))


def wait_for(workers: Workers, say: Callable[[str], None]) -> None:
    """Wait until the least ``workers`` have room; every 30 s say what lacks, or who has it.

    Ray Train would wait too, in silence and for ten minutes at most.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    wanted = {kind: need * workers.least for kind, need in workers.each.items()}
    started = told = time.monotonic()
    asked = False
    try:
        while lacking := _lacking(wanted, ray.cluster_resources(), ray.available_resources()):
            if not asked:
                asked = True
                # Of a whole cluster, so what others hold is asked for as well.
                others = [{kind: 1} for kind in wanted for _ in range(_taken(kind))]
                request_resources(bundles=[workers.each] * workers.least + others)
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                say(f"waiting for {lacking} ({told - started:.0f} s)")
            time.sleep(1)
    finally:
        if asked:
            # A request outlives its driver and would keep the nodes for ever.
            request_resources(bundles=[])


def _taken(kind: str) -> int:
    """How many of a resource are in use, on the whole cluster."""
    import ray

    held = ray.cluster_resources().get(kind, 0) - ray.available_resources().get(kind, 0)
    return max(0, math.ceil(held))


def _lacking(
    wanted: Mapping[str, int], have: Mapping[str, float], free: Mapping[str, float]
) -> str:
    """What of ``wanted`` is not free, with the reason; empty where there is room."""
    parts = []
    for kind, count in wanted.items():
        total, left = int(have.get(kind, 0)), int(free.get(kind, 0))
        if total < count:
            parts.append(f"the cluster to grow: {count - total} {kind} more")
        elif left < count:
            parts.append(
                f"{count} {kind}: other work holds {total - left} of the cluster's {total}"
            )
    return "; ".join(parts)


def plan_workers(config: Config, resources: Resources) -> Workers:
    """How many workers with what each.

    GPUs where there are any (one worker each), else CPU workers that share the cores evenly. Where
    ``min_workers`` allows it, as many as the cluster has room for.

    Raises:
        UserError: more is asked for than the cluster has.
    """
    compute = config.compute
    use_gpu = compute.use_gpu if compute.use_gpu is not None else resources.gpus > 0
    if use_gpu and not resources.gpus:
        raise UserError("--use-gpu: this cluster has no GPU; leave the flag out to use its CPUs")
    most = compute.workers or (resources.gpus if use_gpu else resources.working_nodes)
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
    # With GPUs a worker's cores only feed it.
    cpus = compute.cpus_per_worker or min(resources.cpus_each(most), 4 if use_gpu else 64)
    fitting = min(resources.fitting(cpus), resources.gpus if use_gpu else most)
    count = min(most, max(least, fitting))
    span = (least, most) if least < most else None
    return Workers.of(compute, count, cpus, use_gpu, dtype_policy(compute.precision, use_gpu), span)


def dtype_policy(asked: Precision, use_gpu: bool) -> str:
    """Keras' dtype policy for the precision asked for; ``auto`` asks the hardware."""
    if asked == "auto":
        asked = "bfloat16" if use_gpu or _cpu_has_bfloat16() else "float32"
    return "mixed_bfloat16" if asked == "bfloat16" else "float32"


def _cpu_has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def describe_hardware(resources: Resources) -> dict[str, Any]:
    return {
        "cpu": _cpu_name(),
        "cpus": resources.cpus,
        "memory_bytes": resources.memory_bytes,
        "gpus": resources.gpus,
        "nodes": resources.nodes,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def versions() -> dict[str, str]:
    from catdog import __version__

    found = {"catdog": __version__, "python": platform.python_version()}
    return found | {name: version(name) for name in NAMED_PACKAGES}
