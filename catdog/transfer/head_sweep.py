"""A sweep of the head: trials of seconds in actors that live as long as the sweep.

Each actor holds one CPU and the kept features, which it loads once. A trial that fails, or whose
actor is killed, is recorded and the sweep goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from catdog.config import FineTuneSettings
from catdog.errors import RunFailed
from catdog.transfer.features import FeatureSet
from catdog.transfer.head import HeadData, train_head
from catdog.transfer.search import Point
from catdog.transfer.trials import OnRecord, TrialStore

#: An actor that does not start within so long has no core to start on; the others do without.
START_S = 60.0


@dataclass(frozen=True)
class HeadTask:
    """What the trials have in common.

    Attributes:
        settings_of: the whole settings of a point.
        batch_size: global, as in training.
    """

    features: FeatureSet
    settings_of: Callable[[Point], FineTuneSettings]
    batch_size: int
    seed: int


def sweep_heads(task: HeadTask, trial_store: TrialStore, actors: int, on_record: OnRecord) -> None:
    """Run what is missing of the sweep's trials on ``actors`` actors.

    ``on_record`` is called with the record of every trial that ends.

    Raises:
        RunFailed: no actor can be started.
    """
    waiting = trial_store.missing()
    pool = _Pool(task.features, min(actors, len(waiting)))
    try:
        while waiting or pool.running:
            while waiting and pool.has_room:
                key = waiting.pop(0)
                point = trial_store.point(key)
                pool.start(key, point, task.settings_of(point), task.batch_size, task.seed)
            trial, rows, error = pool.next_end()
            status = "failed" if error else "finished"
            seconds = time.monotonic() - trial.started
            on_record(trial_store.close(trial.key, trial.point, rows, seconds, status, error))
    finally:
        pool.close()


@dataclass(frozen=True)
class _Running:
    key: str
    point: Point
    actor: Any
    started: float


@dataclass
class _Pool:
    """Actors with at most one trial each; one that dies is replaced."""

    features: FeatureSet
    size: int
    idle: list[Any] = field(default_factory=list)
    running: dict[Any, _Running] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import ray

        asked = {(actor := self._actor()).ready.remote(): actor for _ in range(self.size)}
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=START_S)
        if not ready:  # other work has all cores
            ready, late = ray.wait(late)
        for answer in late:
            ray.kill(asked[answer])
        self.idle = [asked[answer] for answer in ready]
        self.size = len(self.idle)
        for actor in self.idle:
            _await_ready(actor)

    @property
    def has_room(self) -> bool:
        return len(self.running) < self.size

    def start(
        self, key: str, point: Point, settings: FineTuneSettings, batch_size: int, seed: int
    ) -> None:
        actor = self.idle.pop()
        result = actor.train.remote(settings, batch_size, seed)
        self.running[result] = _Running(key, point, actor, time.monotonic())

    def next_end(self) -> tuple[_Running, list[dict[str, Any]], str | None]:
        """The next trial that ends, its rows, and why it failed where it did."""
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        done, _ = ray.wait(list(self.running), num_returns=1)
        trial = self.running.pop(done[0])
        try:
            rows = ray.get(done[0])
        except RayTaskError as error:
            self.idle.append(trial.actor)
            return trial, [], _one_line(error)
        except RayActorError:
            self._replace()
            return trial, [], "its process ended: killed, or out of memory"
        self.idle.append(trial.actor)
        return trial, rows, None

    def _replace(self) -> None:
        """Another actor for one that died; where its node is gone, the others do without."""
        import ray

        fresh = self._actor()
        alone = self.size == 1
        ready, _ = ray.wait([fresh.ready.remote()], timeout=None if alone else START_S)
        if ready:
            _await_ready(fresh)
            self.idle.append(fresh)
        else:
            ray.kill(fresh)
            self.size -= 1

    def close(self) -> None:
        import ray

        for actor in [*self.idle, *(trial.actor for trial in self.running.values())]:
            ray.kill(actor)

    def _actor(self) -> Any:
        import ray

        return ray.remote(num_cpus=1)(HeadTrainer).remote(self.features)


class HeadTrainer:
    """Trains heads one after the other on features that it loads once."""

    def __init__(self, features: FeatureSet) -> None:
        self.data = HeadData.load(features)

    def ready(self) -> bool:
        return True

    def train(self, settings: FineTuneSettings, batch_size: int, seed: int) -> list[dict[str, Any]]:
        return train_head(self.data, settings, batch_size, seed)


def _await_ready(actor: Any) -> None:
    import ray
    from ray.exceptions import RayActorError

    try:
        ray.get(actor.ready.remote())
    except RayActorError as error:
        raise RunFailed(f"the sweep's actors do not start: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(cause).__name__
