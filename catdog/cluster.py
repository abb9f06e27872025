"""Ray: connecting, what the cluster has, and what a run may use of it."""

from __future__ import annotations

import os
import platform
import signal
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from catdog.config import Config, Precision
from catdog.console import plural, say
from catdog.errors import RunFailed, UserError
from catdog.scaling import fitting, nodes_to_come
from catdog.training.trainer import POLL_S
from catdog.training.workers import Workers

#: Seconds for a head to take a connection, and between lines about one that answers nothing.
REACH_S, ANSWER_S = 10.0, 10.0

#: What Ray calls the head among a node's resources.
HEAD = "node:__internal_head__"
#: Cores of a worker, at most: with a GPU, and without.
FEEDING_CPUS, MOST_CPUS = 4, 64

#: Packages whose versions make a result.
NAMED_PACKAGES = ("ray", "tensorflow", "keras", "pyarrow", "numpy")


@contextmanager
def connected() -> Iterator[None]:
    """A Ray cluster: that of ``RAY_ADDRESS``, else one that this machine runs, else a new one here.

    ``RAY_ADDRESS=local`` asks for a new one whatever runs.

    Raises:
        UserError: none can be reached there.
        RunFailed: none could be started here.
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
    _join(address)
    # Ray's own handler would end this process on the spot.
    signal.signal(signal.SIGTERM, on_sigterm)
    _quiet_ray()
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str | None) -> None:
    import ray

    _check_reachable(address)
    try:
        with _told_while_waiting(address):
            ray.init(
                address=address,
                include_dashboard=False if address in (None, "local") else None,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        # Of another version, with another token, or gone while its address is still known.
        raise UserError(f"no Ray cluster can be joined: {_in_one_line(error)}") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Ray's own way to say that its processes did not come up, on a machine that is too busy.
        raise RunFailed(f"Ray does not start: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _check_reachable(address: str | None) -> None:
    """Ray itself tries for minutes, in silence."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", "local", or none
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({cause}): "
            "start one (ray start --head), correct the address, or RAY_ADDRESS=local for one of "
            "this command's own"
        ) from error


@contextmanager
def _told_while_waiting(address: str | None) -> Iterator[None]:
    """Behind an open port may be something else, for which Ray waits for minutes, in silence."""
    joined = threading.Event()

    def tell() -> None:
        waited = 0.0
        while not joined.wait(ANSWER_S) and ":" in (address or ""):
            waited += ANSWER_S
            say(
                f"RAY_ADDRESS={address} has not answered for {waited:.0f} s; a head listens at "
                "6379 if nothing else was chosen, its dashboard at 8265"
            )

    teller = threading.Thread(target=tell, name="joining", daemon=True)
    teller.start()
    try:
        yield
    finally:
        joined.set()
        teller.join()


def _quiet_ray() -> None:
    """Ray's own progress tables and notes do not bury the lines of the run."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)


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
    """What there is to compute with, node by node."""

    nodes: tuple[Node, ...]
    memory_bytes: int = 0

    @classmethod
    def now(cls) -> Resources:
        """Of the nodes that are there."""
        return cls._of(_alive())

    @classmethod
    def at_most(cls) -> Resources:
        """What the cluster may grow to, where that is more than it has."""
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
        """Workers where nobody says how many: one for each GPU, or for each node with cores."""
        return self.gpus if use_gpu else max(1, sum(node.cpus > 0 for node in self.nodes))

    def room(self, cpus: int, use_gpu: bool) -> int:
        """How many workers of so many cores fit; one lives on one node."""
        each = {"CPU": cpus} | ({"GPU": 1} if use_gpu else {})
        return fitting([{"CPU": node.cpus, "GPU": node.gpus} for node in self.nodes], each)

    def cpus_each(self, workers: int, use_gpu: bool) -> int:
        """Cores that each of so many workers can have; beside a GPU they only feed it."""
        most = min(max(1, self.cpus // workers), FEEDING_CPUS if use_gpu else MOST_CPUS)
        return next((n for n in range(most, 1, -1) if self.room(n, use_gpu) >= workers), 1)


def _alive() -> list[Mapping[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


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
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def describe_hardware(resources: Resources) -> dict[str, Any]:
    gpus = Counter[str]()
    for node in resources.nodes:
        gpus[node.accelerator] += node.gpus
    return {
        "cpu": _cpu_name(),
        "cpus": resources.cpus,
        "memory_bytes": resources.memory_bytes,
        "gpus": [f"{count} × {name}" for name, count in gpus.items() if count],
        "nodes": len(resources.nodes),
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
