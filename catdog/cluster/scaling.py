"""Autoscaling: the size that a cluster may grow to, and waiting until the workers fit.

Ray's autoscaler has no call that returns its limits (2.60). The launcher leaves a file on the head,
where a job started by ``ray job submit`` runs; it is read here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from catdog.cluster.private import FREE_BY_NODE
from catdog.cluster.workers import Workers

#: Ray's resources of one node, such as ``CPU``.
NodeResources = Mapping[str, float]

#: How often a wait for resources says what is missing, seconds.
TELL_EVERY_S = 30.0
#: How often nodes are asked for while one waits. Ray's autoscaler knows one request at a time, that
#: of the job that asked last.
ASK_EVERY_S = 10.0


def nodes_to_come() -> Sequence[NodeResources]:
    """All workers that Ray's launcher may start for this cluster; none where it does not scale."""
    import ray

    file = _config_of(ray.get_runtime_context().gcs_address)
    if file is None:
        return []
    try:
        config = yaml.safe_load(file.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return nodes_of(config) if isinstance(config, dict) else []


def nodes_of(config: Mapping[str, Any]) -> Sequence[NodeResources]:
    """All workers of a cluster as the launcher's ``config`` describes it, the largest first."""
    most = int(config.get("max_workers", 0))
    nodes = [
        dict(kind.get("resources") or {})
        for name, kind in config.get("available_node_types", {}).items()
        if name != config.get("head_node_type")
        for _ in range(int(kind.get("max_workers", most)))
    ]
    nodes.sort(key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), reverse=True)
    return nodes[:most]


def _config_of(cluster: str) -> Path | None:
    """The file that the autoscaler of ``cluster`` (address and port) was started with."""
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []  # none of one that is somebody else's
        if f"--gcs-address={cluster}" in words:
            for word in words:
                if word.startswith("--autoscaling-config="):
                    return Path(word.partition("=")[2]).expanduser()
    return None


def fitting(nodes: Iterable[NodeResources], each: Mapping[str, float]) -> int:
    """How many workers with the resources ``each`` fit on ``nodes``; one lives on one node."""
    return sum(
        int(min(node.get(kind, 0) // need for kind, need in each.items() if need)) for node in nodes
    )


def wait_for(workers: Workers, say: Callable[[str], None]) -> None:
    """Wait until the minimum of ``workers`` fits; every 30 s say what is missing, or who has it.

    Ray Train would wait too, in silence and for ten minutes at most.
    """
    import ray
    from ray.autoscaler.sdk import request_resources

    started = told = time.monotonic()
    asked: float | None = None
    try:
        while True:
            have = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            free = list(FREE_BY_NODE.get()().values())
            lacking = _lacking(workers, have, free)
            if not lacking:
                return
            now = time.monotonic()
            if asked is None or now - asked >= ASK_EVERY_S:
                asked = now
                # Ray is told how large the whole cluster shall be, other work included.
                taken = [
                    {kind: 1} for kind in workers.each for _ in range(_taken(kind, have, free))
                ]
                request_resources(bundles=[workers.each] * workers.min_count + taken)
            if now - told >= TELL_EVERY_S:
                told = now
                say(f"waiting for {lacking} ({now - started:.0f} s)")
            time.sleep(1)
    finally:
        if asked is not None:
            # A request outlives its driver and would keep the nodes for ever.
            request_resources(bundles=[])


def _lacking(workers: Workers, have: Sequence[NodeResources], free: Sequence[NodeResources]) -> str:
    """Why the minimum of ``workers`` does not fit on the nodes; empty if it does."""
    fit = fitting(free, workers.each)
    if fit >= workers.min_count:
        return ""
    parts = []
    for kind, need in workers.each.items():
        count, total = need * workers.min_count, _total(kind, have)
        if total < count:
            parts.append(f"the cluster to grow: {count - total} {kind} more")
        elif total - (taken := _taken(kind, have, free)) < count:
            parts.append(f"{count} {kind}: other work holds {taken} of the cluster's {total}")
    return "; ".join(parts) or f"nodes with room for {workers}: {fit} of {workers.min_count} fit"


def _total(kind: str, nodes: Iterable[NodeResources]) -> int:
    return int(sum(node.get(kind, 0) for node in nodes))


def _taken(kind: str, have: Iterable[NodeResources], free: Iterable[NodeResources]) -> int:
    return max(0, _total(kind, have) - _total(kind, free))
