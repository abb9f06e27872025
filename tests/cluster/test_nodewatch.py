"""What is told of nodes while a cluster trains, from lists as ``ray.nodes()`` gives them."""

from __future__ import annotations

from typing import Any

from catdog.cluster.nodewatch import NodeWatch
from catdog.runs.messages import Message, NodeChange


def node(number: int, alive: bool = True, cpus: int = 2, cause: str = "") -> dict[str, Any]:
    return {
        "NodeID": f"n{number}",
        "NodeManagerAddress": f"10.0.0.{number}",
        "Alive": alive,
        "DeathReasonMessage": cause,
        "Resources": {"CPU": cpus} if alive else {},
    }


def watch(least: int = 1) -> tuple[NodeWatch, list[Message]]:
    told: list[Message] = []
    return NodeWatch({"CPU": 2}, least, told.append), told


def test_a_lost_node_is_told_once_with_its_cause_and_a_new_one_too() -> None:
    seen, told = watch()
    seen.look([node(1), node(2)], 0.0)
    assert told == [], "nodes that were there from the start are no news"
    for at in (2.0, 4.0):
        seen.look([node(1), node(2, alive=False, cause="\nno heartbeats\nmore")], at)
    assert told == [NodeChange("10.0.0.2", True, "no heartbeats")]
    seen.look([node(1), node(2, alive=False), node(3)], 6.0)
    assert told[1:] == [NodeChange("10.0.0.3", False, "")]


def test_a_wait_for_nodes_is_told_every_half_minute_until_it_ends() -> None:
    seen, told = watch(least=2)
    seen.look([node(1), node(2)], 0.0)
    few = [node(1), node(2, cpus=1)]
    for at in range(1, 72):
        seen.look(few, float(at))
    lines = [message.line for message in told]
    assert [line.partition("(")[2].partition(")")[0] for line in lines] == ["30 s", "60 s"]
    assert all("1 of at least 2 workers fit" in line for line in lines)
    seen.look([node(1), node(2)], 80.0)
    seen.look(few, 81.0)
    seen.look(few, 105.0)
    assert len(told) == 2, "the clock starts anew"
