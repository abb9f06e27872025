"""Preflight: check that all nodes have the same package versions and see the same storage.

Otherwise a difference shows after minutes, as an import error on one of many workers or as a
missing checkpoint.
"""

from __future__ import annotations

import contextlib
import platform
import uuid
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from catdog.errors import UserError
from catdog.storage import Location
from catdog.storage.access import explained

#: Packages that must be on every node, and in the same version.
NEEDED = (
    *("ray", "tensorflow", "keras", "pyarrow", "numpy", "pillow"),
    *("opencv-python-headless", "simplejpeg", "pydantic", "pandas", "scikit-learn"),
)


def check_nodes(storage: Location) -> None:
    """Ask every node of the cluster; nothing to do where there is one alone.

    Raises:
        UserError: a node lacks a package or has another version of it, cannot be asked, or does
            not see what the driver writes to ``storage`` (or the driver what the node writes).
    """
    import ray

    alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if len(alive) < 2:
        return
    folder = storage / f".nodes-{uuid.uuid4().hex[:12]}"
    (folder / "driver").write_text(folder.name)
    try:
        told, expected = _ask(folder, alive), _facts()
        problems = [
            f"node {alive[node]}: {problem}"
            for node, facts in told.items()
            for problem in _differences(expected, facts["versions"])
        ]
        apart = {
            alive[node]: facts["problem"]
            for node, facts in told.items()
            if not (folder / node).exists() or facts["token"] != folder.name
        }
    finally:
        with contextlib.suppress(OSError):
            folder.delete_tree()
    problems += _apart(storage, apart)
    if problems:
        raise UserError(problems[0], details=tuple(problems[1:]))


def _ask(folder: Location, alive: dict[str, str]) -> dict[str, dict[str, Any]]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=2)(_look)
    asked = {
        node: look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
        ).remote(folder.uri, node)
        for node in alive
    }
    told = {}
    for node, answer in asked.items():
        try:
            told[node] = ray.get(answer, timeout=120)
        except ray.exceptions.RayError as error:
            cause = str(error).strip().splitlines()[-1]
            raise UserError(f"node {alive[node]} cannot run the job: {cause}") from error
    return told


def _look(folder: str, node: str) -> dict[str, Any]:
    """On the node: what is installed, and what the driver wrote; leaves a file of its own."""
    place, token, problem = Location.of(folder), "", ""
    try:
        token = (place / "driver").read_text()
        (place / node).write_text(node)
    except FileNotFoundError:
        pass  # it sees another storage under that name
    except OSError as error:
        problem = explained(place.parent, str(error))
    return {"token": token, "problem": problem, "versions": _facts()}


def _apart(storage: Location, problems: dict[str, str]) -> list[str]:
    """Lines about nodes that do not see the driver's files: address and why, where one is known."""
    elsewhere = f"{storage} is not the driver's {storage}"
    lines = [f"node {node}: {problem or elsewhere}" for node, problem in problems.items()]
    if "" in problems.values():
        lines.append("--storage must be one that all nodes share: a mounted folder or s3://…")
    return lines


def _facts() -> dict[str, str]:
    found = {"Python": ".".join(platform.python_version_tuple()[:2])}
    for name in NEEDED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def _differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    return [
        f"{name} {there} and not {expected[name]}" if there else f"{name} is not installed"
        for name, there in found.items()
        if there != expected[name]
    ]
