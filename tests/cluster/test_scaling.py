"""Room for workers, from lists of nodes as Ray gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from catdog.cluster import scaling
from catdog.cluster.scaling import _lacking, fitting, nodes_of, nodes_to_come
from catdog.cluster.workers import Workers

WORKERS = Workers(count=2, cpus=2, use_gpu=False, precision="float32")


def cores(*counts: float) -> list[dict[str, float]]:
    return [{"CPU": count} for count in counts]


def test_a_worker_lives_on_one_node() -> None:
    assert fitting(cores(3, 1, 4), {"CPU": 2}) == 3
    assert fitting([{"CPU": 16}, {"CPU": 2, "GPU": 2}], {"CPU": 2, "GPU": 1}) == 1
    assert fitting([], {"CPU": 1}) == 0


@pytest.mark.parametrize(
    "have, free, lacking",
    [
        (cores(2, 2), cores(2, 2), ""),
        (cores(2), cores(2), "the cluster to grow: 2 CPU more"),
        (cores(2, 2), cores(2, 0.5), "4 CPU: other work holds 2 of the cluster's 4"),
        (cores(3, 3), cores(3, 1), "nodes with room for 2 workers, 2 CPU cores each: 1 of 2 fit"),
    ],
)
def test_what_lacks_is_said(
    have: list[dict[str, float]], free: list[dict[str, float]], lacking: str
) -> None:
    assert _lacking(WORKERS, have, free) == lacking


def test_there_are_never_more_nodes_than_the_cluster_may_have() -> None:
    kinds = {
        "head": {"resources": {"CPU": 2}},
        "small": {"resources": {"CPU": 4}, "max_workers": 5},
        "large": {"resources": {"CPU": 8}},
    }
    config = {"max_workers": 3, "head_node_type": "head", "available_node_types": kinds}
    assert nodes_of(config) == 3 * [{"CPU": 8}]
    assert nodes_of({}) == []


@pytest.mark.parametrize("text", ["", "- a list", "{broken", "\udcff"])
@pytest.mark.usefixtures("cluster")
def test_a_launchers_file_that_cannot_be_read_tells_of_no_nodes(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    monkeypatch.setattr(scaling, "_config_of", lambda cluster: file)
    assert nodes_to_come() == []
