"""A pool of Ray Train worker groups that stay up and run one task after the other.

Starting a group (a controller, processes, TensorFlow's import) costs 12 s on two cores, a further
model in it less than one. So models, their evaluation and the trials of a sweep share groups. A
group whose worker is lost or raises is dropped; another one takes up its task.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

from catdog.cluster.connection import POLL_S
from catdog.cluster.workers import Workers
from catdog.errors import RunFailed
from catdog.runs.messages import Message, OnMessage
from catdog.runs.records import Training
from catdog.storage import Location
from catdog.training.board import Listener, on_this_node
from catdog.training.causes import root_cause, was_lost
from catdog.training.job import TrainingJob, is_done, read_done
from catdog.training.on_worker import TrainTask, work

#: So often a group is started in vain, a minute each time, while its nodes are missing; then the
#: training fails, for a spot node that was not replaced in ten minutes may never be.
STARTS = 10

#: How long an interrupted command waits for its threads.
INTERRUPTED_S = 30.0


class Task(Protocol):
    """What all ranks of a group do together."""

    def run(self, rank: Any) -> Any:
        """Called on every rank with its :class:`catdog.training.progress.Rank`; what it returns
        travels to the driver.
        """


class Runner(Protocol):
    """Runs tasks on ``workers``: a :class:`WorkerPool`, or a stand-in for it in one process."""

    workers: Workers

    def run(self, tasks: Sequence[Any]) -> list[list[Any]]: ...


@dataclass
class WorkerPool:
    """Up to ``size`` groups of ``workers``; each starts with the first task that lacks one.

    Attributes:
        folder: for Ray Train's own files.
        on_message: called in the driver, in one thread, with what rank 0 tells.
        elastic: train with as many workers of ``workers.span`` as the cluster has, nodes that are
            lost and nodes that join included.
        xla: compile with XLA, which is decided when a process starts.
    """

    workers: Workers
    folder: Location
    on_message: OnMessage
    size: int = 1
    elastic: bool = False
    xla: bool = False
    board: Any = None
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        # Whole before the threads start: importing it in two threads at once fails in the middle.
        import ray
        import ray.train

        from catdog.training.board import Board

        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
        # On the driver's node, as it would be lost with another one.
        options = {"num_cpus": 0, "max_concurrency": 10_000, "scheduling_strategy": on_this_node()}
        self.board = ray.remote(Board).options(**options).remote()
        self._listener = Listener(self.board, self.on_message)
        self._listener.start()
        self._threads = [
            threading.Thread(target=self._serve, args=(group,), name=f"group-{group}", daemon=True)
            for group in range(self.size)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            ray.get(self.board.end.remote())
            interrupted = kind is not None and not issubclass(kind, Exception)
            if interrupted:  # Ctrl-C does not wait for what the groups are at
                for controller in ray.get(self.board.controllers.remote()):
                    ray.kill(controller)
            # A thread that asks Ray for something after its shutdown would end the process.
            for thread in self._threads:
                thread.join(timeout=INTERRUPTED_S if interrupted else None)
            self._listener.finish()
            ray.kill(self.board)
        except RayError:  # the cluster is gone
            return

    @property
    def is_up(self) -> bool:
        """Whether a group runs and holds its cores."""
        import ray

        return bool(ray.get(self.board.is_up.remote()))

    def run(self, tasks: Sequence[Task]) -> list[list[Any]]:
        """What each task came to on each of its ranks; the tasks are taken in order.

        Raises:
            RunFailed: one of them failed; those that had not begun are dropped.
        """
        import ray

        tickets = [ray.get(self.board.submit.remote(task)) for task in tasks]
        results = []
        for ticket in tickets:
            result, failure = ray.get(self.board.outcome.remote(ticket))
            if failure is not None:
                ray.get(self.board.drop_waiting.remote())
                raise RunFailed(failure)
            results.append(result)
        self._listener.flush()
        return results

    def rest(self) -> None:
        """End the groups when they have finished, so that others may use their cores."""
        import ray

        ray.get(self.board.rest.remote())

    def _serve(self, group: int) -> None:
        """The thread of a group: starts it when there is something to do, again after a crash."""
        import ray
        from ray.exceptions import RayError
        from ray.train import TrainingFailedError

        try:
            while ray.get(self.board.wanted.remote(group)):
                cause, lost = None, False
                # Ray Train restarts an elastic group itself: what it has asked of the cluster's
                # resources would be kept from another group for minutes.
                restarts = self.workers.max_restarts if self.elastic else 0
                try:
                    self._fit(group, restarts)
                except TrainingFailedError as error:
                    cause, lost = root_cause(error, restarts), was_lost(error)
                except RayError:
                    raise
                except Exception as error:
                    # A thread that died here would leave its tasks waiting for ever.
                    cause = f"{type(error).__name__}: {error}"
                left = self.workers.max_restarts - restarts
                ray.get(self.board.group_ended.remote(group, cause, lost, left))
        except RayError:  # the cluster is gone; the main thread's own error says so
            return

    def _fit(self, group: int, restarts: int) -> None:
        import ray
        import ray.train

        from catdog.cluster.nodewatch import NodeWatch

        def tell(message: Message) -> None:
            ray.get(self.board.tell.remote(message))

        watch = NodeWatch(self.workers.each, self.workers.min_count, tell)
        if group == 0:  # one is enough
            watch.start()
        try:
            self._trainer(
                group,
                ray.train.RunConfig(
                    name=f"group-{group}",
                    **self.folder.for_ray(),
                    failure_config=ray.train.FailureConfig(
                        max_failures=restarts, controller_failure_limit=STARTS
                    ),
                ),
            ).fit()
        finally:
            if watch.is_alive():
                watch.finish()

    def _trainer(self, group: int, run_config: Any) -> Any:
        """The class below Ray's ``TensorflowTrainer``, which adds no more than a default for the
        backend, and whose package imports TensorFlow: 7 s of every start in a driver that has no
        use for it.
        """
        import ray.train

        from catdog.training.groups import CleanStart, ClusterSpecConfig, Trainer

        workers = self.workers
        return Trainer(
            work,
            train_loop_config={
                "workers": workers, "board": self.board, "group": group, "xla": self.xla,
            },
            backend_config=ClusterSpecConfig(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers.span if self.elastic and workers.span else workers.count,
                elastic_resize_monitor_interval_s=workers.resize_every_s,
                use_gpu=workers.use_gpu,
                resources_per_worker=workers.each,
            ),
            run_config=replace(run_config, callbacks=[CleanStart(self.board, group)]),
        )  # fmt: skip


def train(
    jobs: Sequence[TrainingJob], workers: Workers, folder: Location, on_message: OnMessage
) -> list[Training]:
    """Train ``jobs`` in a group of their own; see :func:`train_in`."""
    if all(is_done(job) for job in jobs):
        return results_of(jobs)
    xla = any(job.xla for job in jobs)
    with WorkerPool(workers, folder, on_message, elastic=True, xla=xla) as pool:
        return train_in(pool, jobs)


def train_in(pool: WorkerPool, jobs: Sequence[TrainingJob]) -> list[Training]:
    """Train ``jobs``, in order on each group; what is done already is not done again.

    Returns:
        What each job came to, in order.

    Raises:
        RunFailed: a worker failed more often than allowed, or the loss is not finite.
    """
    precision_of = pool.workers.precision_of
    pool.run([TrainTask(job, precision_of(job.name)) for job in jobs if not is_done(job)])
    return results_of(jobs)


def results_of(jobs: Sequence[TrainingJob]) -> list[Training]:
    return [done for job in jobs if (done := read_done(job)) is not None]
