"""The loop of a worker: take tasks from the board until there are no more.

TensorFlow is imported late: its threads and XLA are set before.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from catdog.cluster.numerics import use_onednn
from catdog.cluster.workers import Workers
from catdog.errors import UserError
from catdog.runs.messages import Message, Started, Trained
from catdog.runs.records import Epoch
from catdog.storage.retrying import retried
from catdog.training.inputs import open_inputs
from catdog.training.job import TrainingJob, is_done

if TYPE_CHECKING:
    from catdog.training.progress import Rank

#: TensorFlow's, for XLA on whatever it can compile, on CPUs too.
XLA_FLAGS = "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"

#: A training of fewer steps does not earn back what optimising its graph costs.
SHORT_STEPS = 100


def hosts() -> list[str]:
    """On a worker: the addresses of the nodes of all workers, by rank; empty outside a group."""
    spec = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses: list[str] = spec.get("cluster", {}).get("worker", [])
    return [address.rpartition(":")[0].strip("[]") for address in addresses]


def work(config: dict[str, Any]) -> None:
    """Runs on every worker of a group, in step with the others."""
    import ray
    import ray.train

    workers: Workers = config["workers"]
    board, group = config["board"], config["group"]
    _prepare_process(workers, xla=config["xla"])
    from catdog.training.preemption import Notices
    from catdog.training.progress import Rank, TrainingDiverged
    from catdog.training.watchdog import Watchdog

    context = ray.train.get_context()
    world_size, number = context.get_world_size(), context.get_world_rank()
    distribution = strategy(workers, world_size)
    warned = Notices.of_ray_train()

    def tell(message: Message) -> None:
        ray.get(board.tell.remote(message))  # waited for, so that they stay in order

    kept: dict[str, Any] = {}
    last = None
    while (taken := ray.get(board.take.remote(group, last))) is not None:
        last = taken.ticket
        rank = Rank(
            rank=number,
            world_size=world_size,
            strategy=distribution,
            tell=_unheard if taken.followed else tell,
            report=partial(_report, board, taken.ticket, number) if taken.followed else _goes_on,
            watchdog=Watchdog(workers.stall_limit_s),
            warned=warned,
            kept=kept,
        )
        try:
            result = taken.task.run(rank)
        except (TrainingDiverged, UserError) as error:
            # All ranks raise it alike, and would again.
            ray.get(board.failed.remote(taken.ticket, str(error)))
        else:
            ray.get(board.finished.remote(taken.ticket, number, world_size, result))


def _unheard(message: Message) -> None:
    """Epochs of a trial are told by the sweep."""


def _goes_on(row: Epoch) -> bool:
    return True


def _report(board: Any, ticket: int, number: int, row: Epoch) -> bool:
    """An epoch of a trial; whether it goes on, the same on all ranks."""
    import ray

    told = row if number == 0 else None
    return bool(ray.get(board.decision.remote(ticket, row.epoch, told)))


@dataclass(frozen=True)
class TrainTask:
    """Train ``job`` with the dtype policy ``precision``, unless that is done."""

    job: TrainingJob
    precision: str

    def run(self, rank: Rank) -> None:
        """Rank 0 tells of it and writes down that it is done."""
        if is_done(self.job):
            return
        if self.job.phase == "probe":
            self._save_probe(rank)
            return
        # Shards of a bucket are fetched here, which may take longer than a worker may hang.
        open_inputs(self.job)
        with rank.watchdog:
            self._train(rank)

    def _save_probe(self, rank: Rank) -> None:
        """The frozen backbone with the head of the probe, which took no step."""
        import keras

        from catdog.training.loop import save_probe

        if rank.is_chief:
            keras.backend.clear_session()
            keras.config.set_dtype_policy(self.precision)
            self.job.done.write_json(save_probe(self.job, rank).as_json())

    def _train(self, rank: Rank) -> None:
        import keras

        from catdog.training.loop import train_model

        job = self.job
        if rank.is_chief:
            rank.tell(Started(job.title, job.phase, rank.world_size, hosts()))
        keras.config.set_dtype_policy(self.precision)
        _set_graph_optimisation(job)
        result = train_model(job, rank)
        if rank.is_chief and result is not None:
            done, tree = job.done, result.as_json()
            retried(partial(done.write_json, tree), done, f"writing {done.name}", rank.say)
            rank.tell(Trained(job.title, result))


def _prepare_process(workers: Workers, *, xla: bool) -> None:
    """Threads as many as the worker's cores; without it every worker takes the whole machine."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    use_onednn()
    if xla:
        # XLA compiles what lies between collectives; jit_compile could not hold those of
        # synchronised batch normalisation. Read when TensorFlow is imported.
        os.environ["TF_XLA_FLAGS"] = " ".join((os.environ.get("TF_XLA_FLAGS", ""), XLA_FLAGS))
    with _quick_import():
        import tensorflow as tf
    tf.config.threading.set_intra_op_parallelism_threads(workers.cpus)
    tf.config.threading.set_inter_op_parallelism_threads(max(2, workers.cpus))


@contextmanager
def _quick_import() -> Iterator[None]:
    """TensorFlow is imported in 4.5 s of a core, not in 6.5.

    Keras imports scikit-learn for wrappers that nobody uses here; and Python's collector goes
    through the modules again and again, later too unless they are frozen.
    """
    without = "sklearn" not in sys.modules
    if without:
        sys.modules["sklearn"] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if without:
            del sys.modules["sklearn"]


def _set_graph_optimisation(job: TrainingJob) -> None:
    """TensorFlow's graph optimiser costs a backbone 5 to 10 s and saves 7 % of a step."""
    import tensorflow as tf

    photos = len(open_inputs(job)[0])
    steps = job.settings.epochs * photos // job.batch_size
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": steps < SHORT_STEPS})


def strategy(workers: Workers, world_size: int) -> Any:
    """``tf.distribute.MultiWorkerMirroredStrategy`` over the ``world_size`` workers there are."""
    import tensorflow as tf

    # A lone worker needs no server; and as a cluster of one its CPU would have two names, which
    # XLA in TensorFlow 2.21 refuses ("Multiple CPU devices").
    lone = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({}), num_accelerators={"GPU": int(workers.use_gpu)}
    )
    return tf.distribute.MultiWorkerMirroredStrategy(
        cluster_resolver=lone if world_size == 1 else None,
        communication_options=communication(workers),
    )


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
