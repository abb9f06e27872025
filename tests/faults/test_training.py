"""A training that is hurt ends like one that was not, or says what is wrong."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from catdog.runs.records import Training
from tests.store import s3_server
from tests.tiny import EPOCHS, evaluated_by_keras, train_here

from .conftest import send_to_one_worker

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def losses(facts: Training) -> list[tuple[float, float]]:
    return [(row.loss, row.val_loss) for row in facts.history]


def epochs_in_tensorboard(job: Any) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(f"{job.output}/tensorboard")
    reader.Reload()
    return [event.step for event in reader.Scalars("val_loss")]


@pytest.fixture(scope="module")
def undisturbed() -> dict[str, Any]:
    """Kept by the first test that trains without a disturbance."""
    return {}


def expected(undisturbed: dict[str, Any], tiny_job: Any, fit: Any) -> list[tuple[float, float]]:
    if not undisturbed:
        facts, watched = fit(tiny_job("undisturbed"), stays=True)
        assert watched.epochs() == list(range(1, EPOCHS + 1))
        undisturbed["losses"] = losses(facts)
    return undisturbed["losses"]


def test_a_store_that_is_away_for_a_while_costs_that_and_nothing_else(
    undisturbed: dict[str, Any], tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    from catdog.storage import Location

    whole = expected(undisturbed, tiny_job, fit)
    with s3_server() as store:
        uri = store.location("model").uri
        # Its client tries for 6 s before it says that something is wrong.
        facts, watched = fit(tiny_job(uri), {1: store.proxy.cut}, store.proxy.heal, stays=True)
        written = (Location.of(uri) / "tensorboard").list()
    assert losses(facts) == whole, "to the last bit"
    assert facts.train.restarts == 0
    assert len(written) == EPOCHS, "TensorBoard's files are there too"
    said = watched.lines()
    assert re.match(r"\w+ .* failed \(AWS Error .+\); trying again in 1 s$", said[0]), said
    what = said[0].partition(" failed")[0]
    assert re.match(rf"{what} succeeded after \d+ s$", said[-1]), said


def test_a_damaged_newest_checkpoint_costs_one_epoch(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    train_here(tiny_job("damaged", epochs=4), 3)
    newest = tmp_path / "damaged" / "checkpoints" / "epoch-0003.npz"
    newest.write_bytes(newest.read_bytes()[:1000])
    facts, watched = fit(tiny_job("damaged", epochs=4), stays=True)
    assert watched.epochs() == [3, 4]
    assert any("epoch 3 cannot be used" in line for line in watched.lines())
    assert len(facts.history) == 4


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_best(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    from catdog.errors import RunFailed

    with pytest.raises(RunFailed, match=r"the loss is .* \(step \d+, learning rate .*\); try a"):
        fit(tiny_job("diverges", learning_rate=1e30, clip_norm=None), stays=True)


def test_workers_that_are_killed_and_hang_cost_part_of_an_epoch_each_and_nothing_else(
    undisturbed: dict[str, Any], tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    whole = expected(undisturbed, tiny_job, fit)
    job = tiny_job("hurt")
    kill, stop = send_to_one_worker(signal.SIGKILL), send_to_one_worker(signal.SIGSTOP)
    facts, watched = fit(job, {1: kill, 3: stop})
    assert losses(facts) == whole, "to the last bit"
    assert facts.train.restarts == 2
    assert watched.epochs() == list(range(1, EPOCHS + 1)), "an epoch was trained twice"
    assert epochs_in_tensorboard(job) == watched.epochs()
    # Every row once, whatever the shares: the last batch of 15 is one of 7 and one of 8.
    best = facts.best
    assert evaluated_by_keras(job) == pytest.approx((best.val_loss, best.val_accuracy), abs=1e-6)


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
        fit(tiny_job(str(small_disk / "model")), {2: fill}, max_restarts=0)
    kept = sorted((small_disk / "model" / "checkpoints").glob("epoch-*.npz"))
    assert decode(kept[-1].read_bytes()).meta["epoch"] == len(kept) == 2


def failed(fit: Any, job: Any, **options: Any) -> str:
    """The line that a person is shown."""
    from catdog.errors import RunFailed

    with pytest.raises(RunFailed) as caught:
        fit(job, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_a_worker_that_is_killed_too_often_is_named_as_such(
    tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    kill = send_to_one_worker(signal.SIGKILL)
    line = failed(fit, tiny_job("killed"), after_epoch={1: kill, 2: kill}, max_restarts=1)
    assert line == (
        "training failed: a worker was killed (SIGKILL), perhaps out of memory (after 1 restart)"
    )


def test_a_worker_that_is_lost_while_it_is_handed_the_training_is_replaced(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    """Ray Train takes that for a failure of its own, which it does not repeat."""
    struck = tmp_path / "struck"

    def strike() -> int:
        import psutil

        process = psutil.Process()
        if process.cmdline()[0].startswith("ray::RayTrainWorker") and not struck.exists():
            struck.touch()
            process.kill()
        return 600

    class DeadlyToUnpickle(int):
        def __reduce__(self) -> Any:
            return strike, ()

    job = tiny_job("handed", epochs=1)
    # One of the settings that a worker unpickles as it is handed the training.
    facts, watched = fit(job, max_restarts=1, stall_limit_s=DeadlyToUnpickle(600))
    assert struck.exists()
    assert watched.epochs() == [1] == [row.epoch for row in facts.history]


def test_a_missing_shard_is_named_with_its_path(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    job = tiny_job("no-shard")
    shard = tmp_path / "rows" / "train" / "0.arrow"
    shard.unlink()
    line = failed(fit, job, max_restarts=0)
    assert line.startswith("training failed on a worker: FileNotFoundError: ")
    assert str(shard) in line


def test_what_one_worker_raises_is_told_and_not_what_it_does_to_the_others(
    tmp_path: Path, tiny_job: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    """Rank 0 alone writes, and a folder lies in its way."""
    taken = tmp_path / "taken" / "checkpoints" / "best-0001.npz"
    taken.mkdir(parents=True)
    line = failed(fit, tiny_job("taken"), max_restarts=0)
    assert line.startswith("training failed on a worker: IsADirectoryError: "), line
    assert str(taken) in line
