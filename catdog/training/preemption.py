"""Preemption notices of the cloud, agreed on by all ranks.

Ray Train passes the notice on to its workers (``ray.train.get_preemption_info``, Ray 2.60); older
versions have none, and a node that goes costs what was trained since the last epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

#: How often to ask. The question is a meeting of all ranks, some milliseconds, and notices come
#: from 30 s (Google Cloud) to two minutes (AWS) ahead.
ASK_EVERY_S = 2.0


class Notices:
    """A line for every new notice; to be called after each step, on all ranks.

    After how many steps the next question is due is agreed on with rank 0: clocks differ, and a
    rank that asks alone would wait for ever.
    """

    def __init__(self, ask: Callable[[], Any], agree: Callable[[int], int]) -> None:
        self._ask = ask
        self._agree = agree
        self._known: set[str] = set()
        self._steps = 0
        self._due = 1
        self._asked_at = time.monotonic()

    @classmethod
    def of_ray_train(cls) -> Callable[[], str | None]:
        """In a worker of Ray Train; where that knows no notices, no question is asked."""
        import ray.train
        from ray.train.collective import broadcast_from_rank_zero

        ask = getattr(ray.train, "get_preemption_info", None)
        return cls(ask, broadcast_from_rank_zero) if ask else lambda: None

    def __call__(self) -> str | None:
        self._steps += 1
        if self._steps < self._due:
            return None
        notice = self._ask()
        now = time.monotonic()
        a_second = self._steps / max(now - self._asked_at, 1e-3)
        self._due = self._agree(max(1, round(a_second * ASK_EVERY_S)))
        self._steps, self._asked_at = 0, time.monotonic()
        return self._line(notice) if notice is not None else None

    def _line(self, notice: Any) -> str | None:
        new = set(notice.preempted_node_ids) - self._known
        if not new:
            return None
        self._known |= new
        nodes = "a node" if len(new) == 1 else f"{len(new)} nodes"
        if notice.deadline_ms is None:
            return f"{nodes} will be taken away"
        left = max(0.0, notice.deadline_ms / 1000 - time.time())
        return f"{nodes} will be taken away in {left:.0f} s"
