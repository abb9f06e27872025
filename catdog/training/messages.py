"""What the workers tell the driver, through a queue that is an actor on the driver's node."""

from __future__ import annotations

import contextlib
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
    """Hands the workers' messages to the driver, in order, until told to finish.

    It waits in the queue's actor and does not ask again and again: on a small machine whatever
    wakes up takes a core from the training.
    """

    def __init__(self, messages: Any, on_message: OnMessage) -> None:
        super().__init__(name="training-messages", daemon=True)
        self.messages = messages
        self.on_message = on_message

    def run(self) -> None:
        from ray.exceptions import RayError

        while True:
            try:
                message = self.messages.get()
            except RayError:  # the cluster is gone; the training's own error says so
                return
            if message is None:
                return
            # A line of the log that the disk did not take; workers keep the epochs.
            with contextlib.suppress(OSError):
                self.on_message(message)

    def finish(self) -> None:
        """What was put until now is still handed over."""
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            self.messages.put(None)
        self.join(timeout=30)
