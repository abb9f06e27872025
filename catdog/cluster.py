"""Ray: connecting, what the cluster has, and what a run may use of it."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from catdog.config import Config, Precision
from catdog.console import plural
from catdog.errors import UserError
from catdog.training.trainer import POLL_S
from catdog.training.workers import Workers

#: How often a wait for resources says what is missing, seconds.
TELL_EVERY_S = 30.0

#: Packages whose versions make a result.
NAMED_PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "numpy")


@contextmanager
def connected() -> Iterator[None]:
    """A Ray cluster: that of ``RAY_ADDRESS``, else one that this machine runs, else a new one here.

    ``RAY_ADDRESS=local`` asks for a new one whatever runs.
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
    ray.init(
        address=address,
        include_dashboard=False if address in (None, "local") else None,
        log_to_driver=False,
        logging_level="ERROR",
    )
    # Ray's own handler would end this process on the spot.
    signal.signal(signal.SIGTERM, on_sigterm)
    _quiet_ray()
    try:
        yield
    finally:
        ray.shutdown()


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
    """What the cluster has, or may scale to where that is more."""

    cpus: int
    gpus: int
    nodes: int
    memory_bytes: int
    #: CPU cores of each node that is alive.
    node_cpus: tuple[int, ...] = ()

    @classmethod
    def of_cluster(cls) -> Resources:
        import ray
        from ray._private.state import state

        total = ray.cluster_resources()
        # Known where an autoscaler told it; Ray has no public call for it.
        limit = state.get_max_resources_from_cluster_config() or {}
        alive = [node for node in ray.nodes() if node["Alive"]]
        return cls(
            cpus=int(max(total.get("CPU", 0), limit.get("CPU", 0))),
            gpus=int(max(total.get("GPU", 0), limit.get("GPU", 0))),
            nodes=len(alive),
            memory_bytes=int(total.get("memory", 0)),
            node_cpus=tuple(int(node["Resources"].get("CPU", 0)) for node in alive),
        )

    def cpus_each(self, workers: int) -> int:
        """Cores that each of so many workers can have; one lives on one node."""
        even = max(1, self.cpus // workers)
        if sum(self.node_cpus) < self.cpus:  # of nodes that may come nothing is known
            return even
        return next((cpus for cpus in range(even, 1, -1) if self.fitting(cpus) >= workers), 1)

    def fitting(self, cpus: int) -> int:
        """Workers of so many cores for which there is room."""
        if sum(self.node_cpus) < self.cpus:
            return self.cpus // cpus
        return sum(cores // cpus for cores in self.node_cpus)


def wait_for(workers: Workers, say: Callable[[str], None]) -> None:
    """Wait until the cluster has what the least ``workers`` need; say what lacks every 30 s."""
    import ray
    from ray.autoscaler.sdk import request_resources

    each = workers.each
    started = told = time.monotonic()
    asked = False
    while True:
        have = ray.cluster_resources()
        missing = {
            kind: need * workers.least - int(have.get(kind, 0)) for kind, need in each.items()
        }
        lacking = ", ".join(f"{count} {kind}" for kind, count in missing.items() if count > 0)
        if not lacking:
            break
        if not asked:
            asked = True
            request_resources(bundles=[each] * workers.least)
        if time.monotonic() - told >= TELL_EVERY_S:
            told = time.monotonic()
            say(f"waiting for the cluster to grow: {lacking} more ({told - started:.0f} s)")
        time.sleep(1)
    if asked:
        # A request outlives its driver and would keep the nodes for ever.
        request_resources(bundles=[])


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
    nodes = sum(cores > 0 for cores in resources.node_cpus) or resources.nodes
    most = compute.workers or (resources.gpus if use_gpu else nodes)
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
