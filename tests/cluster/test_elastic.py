"""A training with a range of workers follows the nodes of its cluster."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import make_job, train_here, write_rows

from .conftest import NODE, node_of_a_training_worker
from .elastic_job import EPOCHS


class Job:
    """The driver's process, and what it has told so far."""

    def __init__(self, project: Path, folder: Path, environment: dict[str, str]) -> None:
        self.told: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.elastic_job", str(folder)],
            cwd=project,
            env=environment
            | {
                "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "1",
                # A notice is heard at once, and not after some 5 s.
                "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.5",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until(self, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next message that fits."""
        assert self.process.stdout is not None
        other = []
        for line in self.process.stdout:
            if not line.startswith("{"):
                other.append(line)
                continue
            self.told.append(json.loads(line))
            if fits(self.told[-1]):
                return self.told[-1]
        raise AssertionError(f"never told; {self.told[-3:]} {''.join(other[-30:])}")

    def epochs(self) -> list[dict[str, Any]]:
        return [message["row"] for message in self.told if message["kind"] == "EpochEnded"]

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def give_notice(cluster: Any, node: Any, seconds: int) -> None:
    """What a cloud tells of a spot machine, by Ray's own command."""
    command = [
        *(
            str(Path(sys.executable).with_name("ray")),
            "drain-node",
            "--address",
            cluster.address,
            "--node-id",
            node.node_id,
        ),
        *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
        *("--deadline-remaining-seconds", str(seconds)),
    ]
    subprocess.run(command, check=True, capture_output=True)


def has_workers(count: int) -> Callable[[dict[str, Any]], bool]:
    return lambda message: message.get("workers") == count


def is_epoch(message: dict[str, Any]) -> bool:
    return message["kind"] == "EpochEnded"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_workers_come_and_go_with_their_nodes_and_the_result_is_that_of_one(
    project: Path, tmp_path: Path, three_nodes: Any, environment_of: dict[str, str]
) -> None:
    write_rows(tmp_path)
    job = Job(project, tmp_path, environment_of)
    try:
        job.until(has_workers(3))
        job.until(is_epoch)
        three_nodes.remove_node(node_of_a_training_worker(three_nodes), allow_graceful=False)
        job.until(has_workers(2))
        three_nodes.add_node(**NODE)
        # Ray looks for nodes that have joined every 20 s.
        job.until(has_workers(3))
        nodes = [message for message in job.told if message["kind"] == "NodeChange"]
        assert [node["lost"] for node in nodes] == [True, False], "each is told once"
        job.until(is_epoch)
        node = node_of_a_training_worker(three_nodes)
        give_notice(three_nodes, node, seconds=5)
        warning = job.until(lambda message: message["kind"] == "Say")
        three_nodes.remove_node(node, allow_graceful=False)
        resumed = job.until(lambda message: message["kind"] == "Resumed")
        job.until(is_epoch)
    finally:
        job.end()

    said = re.match(
        r"a node will be taken away in \d s; "
        r"base_cnn has a checkpoint at step (?P<step>\d+) of epoch (?P<epoch>\d+)$",
        warning["line"],
    )
    assert said, warning
    assert resumed["workers"] == 2
    # Until the node is gone it trains on, and may come to the end of that epoch.
    promised = int(said["epoch"]) - 1, int(said["step"])
    assert promised <= (resumed["epoch"], resumed["step"]) <= (promised[0] + 1, 0)

    rows = job.epochs()
    assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1)), "twice or not at all"
    alone = train_here(make_job(tmp_path, "alone", dropout=0.0, epochs=EPOCHS), len(rows))
    for ours, theirs in zip(rows, alone, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            # The weights are the same to the last bit; the sum over ranks has another order.
            assert ours[key] == pytest.approx(getattr(theirs, key), abs=1e-12), (key, ours, theirs)
