"""Trainings as tasks of a pool of worker groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from catdog.cluster.workers import Workers
from catdog.storage import Location
from catdog.training.job import TrainingJob, is_done, read_done
from catdog.training.messages import OnMessage
from catdog.training.on_worker import TrainTask
from catdog.training.pool import WorkerPool


def train(
    jobs: Sequence[TrainingJob], workers: Workers, folder: Location, on_message: OnMessage
) -> list[dict[str, Any]]:
    """Train ``jobs`` in a group of their own; see :func:`train_in`."""
    if all(is_done(job) for job in jobs):
        return facts_of(jobs)
    xla = any(job.xla for job in jobs)
    with WorkerPool(workers, folder, on_message, elastic=True, xla=xla) as pool:
        return train_in(pool, jobs)


def train_in(pool: WorkerPool, jobs: Sequence[TrainingJob]) -> list[dict[str, Any]]:
    """Train ``jobs``, in order on each group; what is done already is not done again.

    Returns:
        Facts for each job, in order.

    Raises:
        RunFailed: a worker failed more often than allowed, or the loss is not finite.
    """
    precision_of = pool.workers.precision_of
    pool.run([TrainTask(job, precision_of(job.name)) for job in jobs if not is_done(job)])
    return facts_of(jobs)


def facts_of(jobs: Sequence[TrainingJob]) -> list[dict[str, Any]]:
    facts = [read_done(job) for job in jobs]
    return [fact for fact in facts if fact is not None]
