"""What the workers tell the driver, through a queue that is an actor on the driver's node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

OnMessage = Callable[[dict[str, Any]], None]


def on_this_node() -> Any:
    """A scheduling strategy: on the driver's node, as an actor elsewhere would be lost with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class Listener(threading.Thread):
    """Hands the workers' messages to the driver, in order, until told to finish."""

    def __init__(self, messages: Any, on_message: OnMessage) -> None:
        super().__init__(name="training-messages", daemon=True)
        self.messages = messages
        self.on_message = on_message
        self.finished = threading.Event()

    def run(self) -> None:
        from ray.util.queue import Empty

        while True:
            try:
                self.on_message(self.messages.get(timeout=0.3))
            except Empty:
                if self.finished.is_set():
                    return

    def finish(self) -> None:
        self.finished.set()
        self.join(timeout=30)
