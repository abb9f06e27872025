"""Exceptions as Ray Train hands them over, told in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def failing(how: str) -> Callable[[], None]:
    """A function that travels by value: the workers cannot import this module."""

    def lacks_a_module() -> None:
        import no_such_module  # noqa: F401

    def says_much() -> None:
        raise ValueError("a first line\nthe last line, which says it\n  [[{{node gradient}}]]\n")

    return {"import": lacks_a_module, "value": says_much}[how]


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "how, restarts, expected",
    [
        ("import", 0, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("value", 2, "ValueError: the last line, which says it (after 2 restarts)"),
    ],
)
def test_an_exception_on_a_worker_is_told_with_its_type(
    tmp_path: Path, cluster: None, how: str, restarts: int, expected: str
) -> None:
    import ray.train
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from catdog.training.causes import root_cause

    trainer = DataParallelTrainer(
        failing(how),
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(name="fails", storage_path=str(tmp_path)),
    )
    with pytest.raises(TrainingFailedError) as caught:
        trainer.fit()
    assert root_cause(caught.value, restarts) == f"training failed on a worker: {expected}"
