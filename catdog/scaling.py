"""What a cluster that scales may grow to: the file that Ray's launcher leaves on the head.

Ray's autoscaler knows it and has no call that tells (2.60). A job that ``ray job submit`` started
runs on the head, where the file is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

#: Ray's resources, such as ``CPU``, of one node.
Node = dict[str, float]


def nodes_to_come() -> list[Node]:
    """All worker nodes that this cluster may have at once; none where it does not scale."""
    import ray

    file = _config_of(ray.get_runtime_context().gcs_address)
    if file is None:
        return []
    try:
        return nodes_of(yaml.safe_load(file.read_text()))
    except (OSError, yaml.YAMLError):
        return []


def nodes_of(config: Mapping[str, Any]) -> list[Node]:
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
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            words = entry.read_text().split("\0")
            if f"--gcs-address={cluster}" in words:
                for word in words:
                    name, _, value = word.partition("=")
                    if name == "--autoscaling-config":
                        return Path(value).expanduser()
    return None
