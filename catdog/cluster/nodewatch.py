"""Watch the nodes of a cluster during training: report lost nodes, and waits for resources.

Ray restarts a worker group without saying why. Here a lost node is named, and a wait for nodes is
reported every :data:`TELL_EVERY_S` seconds, so that it does not look like a hang.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from typing import Any

from catdog.cluster.scaling import fitting
from catdog.console import plural
from catdog.runs.messages import NodeChange, OnMessage, Say

#: How often the list of nodes is read, seconds.
LOOK_EVERY_S = 2.0
#: How often a wait for nodes is told, seconds.
TELL_EVERY_S = 30.0


class NodeWatch(threading.Thread):
    """Thread that reports changes of nodes until it is stopped.

    ``tell`` gets a :class:`NodeChange` for each that comes or goes, and a line now and then while
    fewer than ``least`` workers, each with the resources ``each``, would fit.
    """

    def __init__(self, each: Mapping[str, float], least: int, tell: OnMessage) -> None:
        super().__init__(name="nodes", daemon=True)
        self.each = dict(each)
        self.min_count = least
        self.tell = tell
        self._alive: dict[str, str] = {}
        self._lacking_since: float | None = None
        self._told = 0.0
        self._finished = threading.Event()

    def run(self) -> None:
        import ray

        while True:
            # A cluster in trouble may not answer; the training's own error says more then.
            with contextlib.suppress(Exception):
                self.look(ray.nodes(), time.monotonic())
            if self._finished.wait(LOOK_EVERY_S):
                return

    def finish(self) -> None:
        self._finished.set()
        self.join(timeout=10)

    def look(self, nodes: list[dict[str, Any]], now: float) -> None:
        """Compare ``nodes`` (as ``ray.nodes()`` gives them) with what was seen before."""
        alive = {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Alive"]}
        causes = {node["NodeID"]: node.get("DeathReasonMessage", "") for node in nodes}
        if self._alive:
            for node in self._alive.keys() - alive.keys():
                self._tell_node(self._alive[node], True, causes.get(node, ""))
            for node in alive.keys() - self._alive.keys():
                self._tell_node(alive[node], False, "")
        self._alive = alive
        have = [node["Resources"] for node in nodes if node["Alive"]]
        self._tell_wait(fitting(have, self.each), now)

    def _tell_node(self, address: str, lost: bool, cause: str) -> None:
        self.tell(NodeChange(address, lost, _first_line(cause)))

    def _tell_wait(self, room: int, now: float) -> None:
        if room >= self.min_count:
            self._lacking_since = None
            return
        if self._lacking_since is None:
            self._lacking_since = self._told = now
        elif now - self._told >= TELL_EVERY_S:
            self._told = now
            waited = f"{room} of at least {plural(self.min_count, 'worker')} fit"
            line = f"the training waits for nodes: {waited} ({now - self._lacking_since:.0f} s)"
            if room:
                line += f"; --set compute.min_workers={room} goes on with them"
            self.tell(Say(line))


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:200] if lines else ""
