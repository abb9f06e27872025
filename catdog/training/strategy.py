"""The distribution strategy, and how its workers talk to each other."""

from __future__ import annotations

from typing import Any

from catdog.cluster.workers import Workers


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
