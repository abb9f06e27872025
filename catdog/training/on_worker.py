"""What every worker does: all models of a run one after the other, in one process.

TensorFlow is imported late: its threads and XLA are set before.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from catdog.errors import UserError
from catdog.retrying import retried
from catdog.storage import Location
from catdog.training.inputs import open_inputs
from catdog.training.job import DONE, TrainingJob, is_done
from catdog.training.workers import Workers, strategy

if TYPE_CHECKING:
    from catdog.training.progress import Rank

#: TensorFlow's, for XLA on whatever it can compile, on CPUs too.
XLA_FLAGS = "--tf_xla_auto_jit=2 --tf_xla_cpu_global_jit"

#: A training of fewer steps does not earn back what optimising its graph costs.
SHORT_STEPS = 100


def train_on_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Runs on every worker: all jobs in order. Returns what a retry could not mend, if anything."""
    import ray.train

    workers: Workers = config["workers"]
    _prepare_process(workers, xla=any(job.xla for job in config["jobs"]))
    from catdog.training.preemption import Notices
    from catdog.training.progress import Rank, TrainingDiverged
    from catdog.training.watchdog import Watchdog

    context = ray.train.get_context()
    messages = config["messages"]
    # Shards of a bucket are fetched here, which may take longer than a worker may hang.
    for job in config["jobs"]:
        if not is_done(job):
            open_inputs(job)
    with Watchdog(workers.stall_limit_s) as watchdog:
        rank = Rank(
            rank=context.get_world_rank(),
            world_size=context.get_world_size(),
            strategy=strategy(workers, context.get_world_size()),
            tell=messages.put_nowait if messages is not None else lambda message: None,
            report=ray.train.report,
            watchdog=watchdog,
            warned=Notices.of_ray_train(),
        )
        for job in config["jobs"]:
            if is_done(job):
                continue
            try:
                _train_one(job, rank, workers.precision)
            except (TrainingDiverged, UserError) as error:
                return {"failure": str(error)}
            if len(config["jobs"]) > 1:
                # A barrier: nobody looks for the next job's files before rank 0 has written these.
                ray.train.report({"trained": job.name})
    return {}


def _train_one(job: TrainingJob, rank: Rank, precision: str) -> None:
    """Train ``job``; the first rank tells of it and writes down that it is done."""
    import keras

    from catdog.training.backend import hosts
    from catdog.training.loop import train_model

    about = {"model": job.name, "phase": job.phase}
    if rank.is_chief:
        start = {**about, "workers": rank.world_size, "nodes": hosts()}
        rank.tell({"kind": "start", **start})
    # It forgets the policy too.
    keras.backend.clear_session()
    keras.config.set_dtype_policy(precision)
    _set_graph_optimisation(job)
    facts = train_model(job, rank)
    if rank.is_chief:
        facts |= {"identity": job.identity, "epochs_asked": job.settings.epochs}
        done = Location.of(job.output) / DONE
        retried(partial(done.write_json, facts), done, f"writing {DONE}", rank.say)
        rank.tell({"kind": "trained", **about, "facts": facts})


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
