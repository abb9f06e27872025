"""A training that is hurt ends like one that was not, or says what is wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from .conftest import EPOCHS, send_to_one_worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def losses(facts: dict[str, Any]) -> list[tuple[float, float]]:
    return [(row["loss"], row["val_loss"]) for row in facts["history"]]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """Kept by the first test that trains without a disturbance."""
    return {}


def expected(undisturbed: dict[str, Any], tiny_job: Any, fit: Any) -> list[tuple[float, float]]:
    if not undisturbed:
        facts, watched = fit(tiny_job("undisturbed"))
        assert watched.epochs() == list(range(1, EPOCHS + 1))
        undisturbed["losses"] = losses(facts)
    return undisturbed["losses"]


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGSTOP], ids=["killed worker", "hung worker"]
)
def test_a_lost_worker_costs_part_of_an_epoch_and_nothing_else(
    undisturbed: dict[str, Any],
    tiny_job: Callable[..., Any],
    fit: Callable[..., Any],
    number: signal.Signals,
) -> None:
    whole = expected(undisturbed, tiny_job, fit)
    facts, watched = fit(tiny_job(f"hurt-{number.name}"), {2: send_to_one_worker(number)})
    assert losses(facts) == whole, "to the last bit"
    assert facts["train"]["restarts"] == 1
    assert watched.epochs() == list(range(1, EPOCHS + 1)), "an epoch was trained twice"


def test_a_damaged_newest_checkpoint_costs_one_epoch(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    fit(tiny_job("damaged", epochs=3))
    newest = tmp_path / "damaged" / "checkpoints" / "epoch-0003.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    facts, watched = fit(tiny_job("damaged", epochs=4))
    assert watched.epochs() == [3, 4]
    assert any("epoch 3 cannot be used" in line for line in watched.lines())
    assert len(facts["history"]) == 4


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_best(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    from catdog.errors import RunFailed

    with pytest.raises(RunFailed, match=r"the loss is .* \(step \d+, learning rate .*\); try a"):
        fit(tiny_job("diverges", learning_rate=1e30, clip_norm=None))


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(
    small_disk: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    from catdog.errors import RunFailed
    from catdog.training.checkpoints import decode

    def fill() -> None:
        with suppress(OSError), (small_disk / "other").open("wb") as file:
            while True:
                file.write(bytes(1 << 20))

    with pytest.raises(RunFailed, match="No space left on device"):
        fit(tiny_job(str(small_disk / "model")), {2: fill}, max_restarts=1)
    kept = sorted((small_disk / "model" / "checkpoints").glob("epoch-*.npz"))
    assert decode(kept[-1].read_bytes()).meta["epoch"] == len(kept) == 2
