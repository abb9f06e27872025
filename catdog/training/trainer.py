"""Ray Train around the training loop.

All models of a run are trained one after the other in one worker group: starting a group
(processes, TensorFlow's import) costs 12 s on two cores, a further model in it less than one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from catdog.errors import RunFailed
from catdog.storage import Location
from catdog.training.causes import root_cause
from catdog.training.job import TrainingJob, is_done, read_done
from catdog.training.messages import Listener, OnMessage, on_this_node
from catdog.training.on_worker import train_on_worker
from catdog.training.workers import Workers

#: Ray Train's controller looks at its workers so often. Its default of 2 s makes every epoch last
#: at least that long.
POLL_S = "0.2"

#: So often a group is started in vain, a minute each time, while its nodes are missing; then the
#: training fails, for a spot node that was not replaced in ten minutes may never be.
STARTS = 10


def train(
    jobs: Sequence[TrainingJob], workers: Workers, folder: Location, on_message: OnMessage
) -> list[dict[str, Any]]:
    """Train ``jobs`` in order in one worker group; what is done already is not done again.

    ``on_message`` is called in the driver with what rank 0 tells: dicts with a ``kind`` of
    ``start``, ``stepped`` (once a model), ``step``, ``epoch``, ``resume``, ``trained`` or ``say``;
    and of nodes that came or went, with the kind ``node``.

    Returns:
        Facts for each job, in order.

    Raises:
        RunFailed: a worker failed more often than allowed, or the loss is not finite.
    """
    if not all(is_done(job) for job in jobs):
        _fit(jobs, workers, folder, on_message)
    facts = [read_done(job) for job in jobs]
    return [fact for fact in facts if fact is not None]


def _fit(
    jobs: Sequence[TrainingJob], workers: Workers, folder: Location, on_message: OnMessage
) -> None:
    import ray.train
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.util.queue import Queue

    from catdog.training.nodewatch import NodeWatch

    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
    messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": on_this_node()})
    listener = Listener(messages, on_message)
    listener.start()
    # Through the queue, so that one thread alone talks to the driver.
    watch = NodeWatch(workers.each, workers.least, messages.put_nowait)
    watch.start()
    try:
        result = make_trainer(
            jobs,
            workers,
            ray.train.RunConfig(
                name="train",
                **folder.for_ray(),
                failure_config=ray.train.FailureConfig(
                    max_failures=workers.max_restarts, controller_failure_limit=STARTS
                ),
            ),
            messages,
            elastic=True,
        ).fit()
    except TrainingFailedError as error:
        raise RunFailed(root_cause(error, workers.max_restarts)) from error
    finally:
        watch.finish()
        listener.finish()
        messages.shutdown()
    if isinstance(result.return_value, dict) and "failure" in result.return_value:
        raise RunFailed(result.return_value["failure"])


def make_trainer(
    jobs: Sequence[TrainingJob],
    workers: Workers,
    run_config: Any,
    messages: Any = None,
    *,
    elastic: bool = False,
) -> Any:
    """Ray's trainer for ``jobs``; ``messages`` is the queue that rank 0 tells to.

    The class below Ray's ``TensorflowTrainer``, which adds no more than a default for the backend,
    and whose package imports TensorFlow: 7 s of every start in a driver that has no use for it.

    ``elastic`` trains with as many workers of ``workers.span`` as the cluster has, nodes that are
    lost and nodes that join included. Trials of a sweep share the cluster and keep their number.
    """
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from catdog.training.backend import ClusterSpecConfig
    from catdog.training.groups import CleanStart

    class Interruptible(DataParallelTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ctrl-C raises in the driver as everywhere; Ray's handler would end it with 0 or 1."""

    return Interruptible(
        train_on_worker,
        train_loop_config={"jobs": list(jobs), "workers": workers, "messages": messages},
        backend_config=ClusterSpecConfig(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.span if elastic and workers.span else workers.count,
            elastic_resize_monitor_interval_s=workers.resize_every_s,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.each,
        ),
        run_config=replace(run_config, callbacks=[*(run_config.callbacks or ()), CleanStart()]),
    )
