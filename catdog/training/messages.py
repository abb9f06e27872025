"""What the workers tell the driver, through the board, an actor on the driver's node."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

OnMessage = Callable[[dict[str, Any]], None]

#: The kind of a message that nobody but the listener hears.
FLUSH = "flush"


def on_this_node() -> Any:
    """A scheduling strategy: on the driver's node, as an actor elsewhere would be lost with it."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


class Listener(threading.Thread):
    """Hands the workers' messages to the driver, in order, until told to finish.

    It waits in the board's actor and does not ask again and again: on a small machine whatever
    wakes up takes a core from the training.
    """

    def __init__(self, board: Any, on_message: OnMessage) -> None:
        super().__init__(name="training-messages", daemon=True)
        self.board = board
        self.on_message = on_message
        self._flushed = threading.Semaphore(0)

    def run(self) -> None:
        import ray
        from ray.exceptions import RayError

        while True:
            try:
                message = ray.get(self.board.next_message.remote())
            except RayError:  # the cluster is gone; the training's own error says so
                return
            if message is None:
                return
            if message["kind"] == FLUSH:
                self._flushed.release()
                continue
            # A line of the log that the disk did not take; workers keep the epochs.
            with contextlib.suppress(OSError):
                self.on_message(message)

    def flush(self) -> None:
        """Waits until what was told until now is handed over."""
        import ray

        ray.get(self.board.tell.remote({"kind": FLUSH}))
        self._flushed.acquire(timeout=30)

    def finish(self) -> None:
        """What was told until now is still handed over."""
        import ray
        from ray.exceptions import RayError

        with contextlib.suppress(RayError):
            ray.get(self.board.tell.remote(None))
        self.join(timeout=30)
