"""A stand-in for a pool of worker groups: tasks run in this process, rank after rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from catdog.cluster.workers import Workers
from catdog.runs.messages import Message


@dataclass
class Here:
    """Runs tasks that need no collective; ``told`` holds what rank 0 told."""

    workers: Workers = field(default_factory=lambda: Workers(1, 2, False, "float32"))
    told: list[Message] = field(default_factory=list)

    def run(self, tasks: Sequence[Any]) -> list[list[Any]]:
        from catdog.training.progress import Rank
        from catdog.training.watchdog import Watchdog

        size = self.workers.count
        return [
            [
                task.run(
                    Rank(rank, size, None, self.told.append, lambda row: True, Watchdog(600))  # type: ignore[arg-type]
                )
                for rank in range(size)
            ]
            for task in tasks
        ]
