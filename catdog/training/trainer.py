"""Ray Train around the training loop.

All models of a run are trained one after the other in one worker group: starting a group
(processes, TensorFlow's import) costs 12 s on two cores, a further model in it less than one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from catdog.config import ComputeSettings
from catdog.console import plural
from catdog.errors import RunFailed, UserError
from catdog.storage import Location
from catdog.training.causes import root_cause
from catdog.training.inputs import open_inputs
from catdog.training.job import TrainingJob
from catdog.training.messages import Listener, OnMessage, on_this_node

#: Ray Train's controller looks at its workers so often. Its default of 2 s makes every epoch last
#: at least that long.
POLL_S = "0.2"

DONE = "trained.json"

#: TensorFlow's, for XLA on whatever it can compile, on CPUs too.
XLA_FLAGS = "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"

#: A training of fewer steps does not earn back what optimising its graph costs.
SHORT_STEPS = 100

#: So often a group is started in vain, a minute each time, while its nodes are missing; then the
#: training fails, for a spot node that was not replaced in ten minutes may never be.
STARTS = 10


@dataclass(frozen=True)
class Workers:
    """The worker group to train with, decided once for a run.

    Attributes:
        count: number of workers that the cluster has room for; with GPUs one each.
        cpus: CPU cores of each worker, also the threads it computes with.
        precision: Keras dtype policy, e.g. ``float32`` or ``mixed_bfloat16``.
        span: fewest and most workers, where a training goes on with what the cluster has.
        resize_every_s: how often it then looks for nodes that have joined.
    """

    count: int
    cpus: int
    use_gpu: bool
    precision: str
    max_restarts: int = 3
    stall_limit_s: int = 600
    span: tuple[int, int] | None = None
    resize_every_s: int = 60

    @classmethod
    def of(
        cls,
        settings: ComputeSettings,
        count: int,
        cpus: int,
        gpu: bool,
        policy: str,
        span: tuple[int, int] | None = None,
    ) -> Workers:
        restarts, stall_s = settings.max_restarts, settings.stall_limit_s
        return cls(count, cpus, gpu, policy, restarts, stall_s, span, settings.resize_every_s)

    @property
    def least(self) -> int:
        """How many there must be for a training to start."""
        return self.span[0] if self.span else self.count

    @property
    def each(self) -> dict[str, int]:
        """Ray's resources of one worker."""
        return {"CPU": self.cpus} | ({"GPU": 1} if self.use_gpu else {})

    def __str__(self) -> str:
        """``1 worker, 2 CPU cores each``; ``1 to 3 workers, 1 GPU each``."""
        count = plural(self.count, "worker")
        if self.span:
            count = f"{self.span[0]} to {self.span[1]} workers"
        each = "1 GPU" if self.use_gpu else plural(self.cpus, "CPU core")
        return f"{count}, {each} each"


def is_done(job: TrainingJob) -> bool:
    """Whether ``job`` was trained already, to as many epochs as are asked for now.

    Raises:
        UserError: its folder holds a training with other settings.
    """
    facts = read_done(job)
    if facts is None:
        return False
    if facts["identity"] != job.identity:
        raise UserError(
            f"{job.output} holds {job.name} trained with other settings; give another --name"
        )
    return bool(facts["epochs_asked"] >= job.settings.epochs)


def read_done(job: TrainingJob) -> dict[str, Any] | None:
    try:
        facts: dict[str, Any] = (Location.of(job.output) / DONE).read_json()
    except FileNotFoundError:
        return None
    return facts


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
    """The ``TensorflowTrainer`` for ``jobs``; ``messages`` is the queue that rank 0 tells to.

    ``elastic`` trains with as many workers of ``workers.span`` as the cluster has, nodes that are
    lost and nodes that join included. Trials of a sweep share the cluster and keep their number.
    """
    import ray.train
    from ray.train.tensorflow import TensorflowTrainer

    from catdog.training.backend import ClusterSpecConfig

    class Interruptible(TensorflowTrainer):
        def _register_sigint_handler(self, controller: Any) -> None:
            """Ctrl-C raises in the driver as everywhere; Ray's handler would end it with 0 or 1."""

    return Interruptible(
        train_on_worker,
        train_loop_config={"jobs": list(jobs), "workers": workers, "messages": messages},
        tensorflow_config=ClusterSpecConfig(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers.span if elastic and workers.span else workers.count,
            elastic_resize_monitor_interval_s=workers.resize_every_s,
            use_gpu=workers.use_gpu,
            resources_per_worker=workers.each,
        ),
        run_config=run_config,
    )


def train_on_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker: all jobs in order. Returns what a retry could not mend, if anything."""
    import ray.train

    workers: Workers = config["workers"]
    _prepare_process(workers, xla=any(job.xla for job in config["jobs"]))
    import keras

    from catdog.retrying import retried
    from catdog.training.backend import hosts
    from catdog.training.loop import train_model
    from catdog.training.preemption import Notices
    from catdog.training.progress import Rank, TrainingDiverged
    from catdog.training.watchdog import Watchdog

    context = ray.train.get_context()
    messages = config["messages"]
    rank = Rank(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        strategy=_strategy(workers),
        tell=messages.put_nowait if messages is not None else lambda message: None,
        report=ray.train.report,
        watchdog=Watchdog(workers.stall_limit_s),
        warned=Notices.of_ray_train(),
    )
    for job in config["jobs"]:
        if is_done(job):
            continue
        if rank.is_chief:
            start = {"model": job.name, "phase": job.phase, "workers": rank.world_size}
            rank.tell({"kind": "start", **start, "nodes": hosts()})
        keras.backend.clear_session()
        _set_graph_optimisation(job)
        keras.config.set_dtype_policy(workers.precision)
        try:
            facts = train_model(job, rank)
        except (TrainingDiverged, UserError) as error:
            return {"failure": str(error)}
        if rank.is_chief:
            facts |= {"identity": job.identity, "epochs_asked": job.settings.epochs}
            done = Location.of(job.output) / DONE
            retried(partial(done.write_json, facts), done, f"writing {DONE}", rank.say)
            rank.tell({"kind": "trained", "model": job.name, "phase": job.phase, "facts": facts})
        if len(config["jobs"]) > 1:
            # A barrier: nobody looks for the next job's files before rank 0 has written these.
            ray.train.report({"trained": job.name})
    return {}


def _prepare_process(workers: Workers, *, xla: bool) -> None:
    """Threads as many as the worker's cores; without it every worker takes the whole machine."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if xla:
        # XLA compiles what lies between collectives; jit_compile could not hold those of
        # synchronised batch normalisation. Read when TensorFlow is imported.
        os.environ["TF_XLA_FLAGS"] = " ".join((os.environ.get("TF_XLA_FLAGS", ""), XLA_FLAGS))
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(workers.cpus)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, workers.cpus))


def _set_graph_optimisation(job: TrainingJob) -> None:
    """TensorFlow's graph optimiser costs a backbone 5 to 10 s and saves 7 % of a step."""
    import tensorflow as tf

    photos = len(open_inputs(job)[0]) // job.views
    steps = job.settings.epochs * photos // job.batch_size
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": steps < SHORT_STEPS})


def _strategy(workers: Workers) -> Any:
    import tensorflow as tf

    return tf.distribute.MultiWorkerMirroredStrategy(communication_options=communication(workers))


def communication(workers: Workers) -> Any:
    """TensorFlow's options for the collectives: NCCL between GPUs, a ring between CPUs."""
    import tensorflow as tf

    implementation = tf.distribute.experimental.CommunicationImplementation
    return tf.distribute.experimental.CommunicationOptions(
        implementation=implementation.NCCL if workers.use_gpu else implementation.RING,
        # No timeout_seconds: TensorFlow 2.21 starts a sleeping thread for every collective that has
        # one (SchedNonBlockingClosureAfter), which after some thousand collectives aborts the
        # process. The watchdog is the time limit.
    )
