"""A pool of worker groups on a real cluster."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from catdog.cluster.workers import Workers
from catdog.errors import RunFailed, UserError
from catdog.runs.messages import Say
from catdog.storage import Location
from catdog.training.pool import WorkerPool


@dataclass(frozen=True)
class Who:
    """Tells and returns which process and rank this is."""

    def run(self, rank: Any) -> tuple[int, int]:
        rank.tell(Say(f"rank {rank.rank}"))
        return os.getpid(), rank.rank


@dataclass(frozen=True)
class Breaks:
    """A task that fails: by the user's mistake, or by a process that is killed the first time."""

    mark: Path | None = None

    def run(self, rank: Any) -> int:
        if self.mark is None:
            raise UserError("it cannot be done")
        if rank.rank == 0 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_tasks_share_processes_and_a_crashed_group_is_replaced(
    cluster: None, tmp_path: Path
) -> None:
    import ray

    told: list[Any] = []
    workers = Workers(1, 1, False, "float32", max_restarts=1)
    with WorkerPool(workers, Location.of(tmp_path / "ray"), told.append) as pool:
        assert not pool.is_up
        first, second = pool.run([Who(), Who()])
        assert first == second
        assert [message.line for message in told] == ["rank 0"] * 2
        assert pool.is_up
        with pytest.raises(RunFailed, match="it cannot be done"):
            pool.run([Breaks(), Who()])
        assert pool.run([Who()]) == [first], "a mistake costs no process"
        (survivor,) = pool.run([Breaks(tmp_path / "mark")])[0]
        assert survivor != first[0][0]
        pool.rest()
        assert not pool.is_up
        assert ray.available_resources()["CPU"] == 2


class Unstartable(WorkerPool):
    def _fit(self, group: int, restarts: int) -> None:
        raise ValueError("nothing to start it with")


@pytest.mark.timeout(60)
def test_a_group_that_cannot_be_started_fails_its_tasks_and_those_that_follow(
    cluster: None, tmp_path: Path
) -> None:
    workers = Workers(1, 1, False, "float32", max_restarts=0)
    with Unstartable(workers, Location.of(tmp_path / "ray"), lambda message: None) as pool:
        for _ in range(2):
            with pytest.raises(RunFailed, match="ValueError: nothing to start it with"):
                pool.run([Who()])
