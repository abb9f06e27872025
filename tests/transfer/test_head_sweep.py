"""Sweeps of the head in real actors: what fails is recorded, what is finished is not run again."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.config import FineTuneSettings
from catdog.config.sweep import SweepSettings
from catdog.data.shards import write_shard
from catdog.errors import RunFailed
from catdog.storage import Location
from catdog.transfer.features import FeatureSet
from catdog.transfer.head_sweep import HeadTask, sweep_heads
from catdog.transfer.search import Search, with_point
from catdog.transfer.trials import TrialStore

pytestmark = pytest.mark.usefixtures("cluster")

DEFAULTS = {"learning_rate": 0.01, "unfrozen_blocks": 0, "dropout": 0.2, "weight_decay": 0.01}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> FeatureSet:
    root = Location.of(tmp_path_factory.mktemp("features"))
    generator = np.random.default_rng(0)
    for split, count in (("train", 300), ("val", 80)):
        rows = generator.normal(size=(count, 16)).astype(np.float32)
        labels = (rows[:, 0] > 0).astype(np.uint8)
        names = [str(number) for number in range(count)]
        write_shard(root / split / "a.arrow", rows, labels=labels, uris=names)
    return FeatureSet(root, {"files": {"train": ["a.arrow"], "val": ["a.arrow"]}, "views": 1})


def trial_store(folder: Path, trials: int, **changes: Any) -> TrialStore:
    settings = SweepSettings(stage="head", trials=trials, **changes)
    return TrialStore(Location.of(folder), Search.of(settings, DEFAULTS, 0), trials)


def task(features: FeatureSet, epochs: int = 3) -> HeadTask:
    def settings_of(point: dict[str, Any]) -> FineTuneSettings:
        settings = with_point(FineTuneSettings(epochs=epochs), point)
        assert isinstance(settings, FineTuneSettings)
        return settings

    return HeadTask(features, settings_of, batch_size=32, seed=0)


def trainers() -> list[int]:
    """Processes below this one that are training a head, and nobody else's."""
    titles: dict[int, bytes] = {}
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                stat = (entry / "stat").read_text()
                parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])
                titles[int(entry.name)] = (entry / "cmdline").read_bytes()
    return [
        process
        for process, title in titles.items()
        if title.startswith(b"ray::HeadTrainer.train") and os.getpid() in _above(process, parents)
    ]


def _above(process: int, parents: dict[int, int]) -> list[int]:
    found = []
    while process in parents:
        process = parents[process]
        found.append(process)
    return found


@pytest.mark.timeout(180)
def test_sixteen_trials_take_seconds_and_are_all_recorded(
    features: FeatureSet, tmp_path: Path
) -> None:
    book = trial_store(tmp_path, 16)
    ended: list[dict[str, Any]] = []
    sweep_heads(task(features), book, 2, ended.append)
    assert sorted(record["id"] for record in ended) == book.ids
    assert {record["status"] for record in book.records()} == {"finished"}
    assert max(record["val_accuracy"] for record in book.records()) > 0.7


@pytest.mark.timeout(180)
def test_a_trial_whose_loss_is_not_finite_is_recorded_and_the_others_go_on(
    features: FeatureSet, tmp_path: Path
) -> None:
    book = trial_store(tmp_path, 4, head_learning_rate=(1e38, 1e38))
    sweep_heads(task(features), book, 1, lambda record: None)
    first, *others = book.records()  # the first is the settings at hand
    assert first["status"] == "finished"
    assert {record["status"] for record in others} == {"failed"}
    assert "the loss is" in others[0]["error"]
    assert others[0]["val_accuracy"] is None
    assert book.summarise(1.0)["best"]["id"] == "000"


@pytest.mark.timeout(180)
def test_a_killed_actor_costs_its_trial_alone(features: FeatureSet, tmp_path: Path) -> None:
    book = trial_store(tmp_path, 4)
    killed: list[int] = []

    def kill_one() -> None:
        while not killed:
            for process in trainers():
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
            time.sleep(0.02)

    thread = threading.Thread(target=kill_one, daemon=True)
    thread.start()
    # Long enough to be met at work.
    sweep_heads(task(features, epochs=1500), book, 1, lambda record: None)
    thread.join(timeout=10)
    assert killed
    statuses = [record["status"] for record in book.records()]
    assert statuses.count("failed") == 1, statuses
    assert statuses.count("finished") == 3
    failed = next(record for record in book.records() if record["status"] == "failed")
    assert "killed" in failed["error"]


@pytest.mark.timeout(180)
def test_an_interrupted_sweep_runs_only_what_is_missing(
    features: FeatureSet, tmp_path: Path
) -> None:
    book = trial_store(tmp_path, 6)

    def stop_after_two(record: dict[str, Any]) -> None:
        if len(book.records()) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_heads(task(features), book, 1, stop_after_two)
    before = {record["id"]: record for record in book.records()}
    assert len(before) == 2
    again: list[dict[str, Any]] = []
    sweep_heads(task(features), book, 2, again.append)
    assert not {record["id"] for record in again} & set(before)
    assert len(again) == 4
    assert [record for record in book.records() if record["id"] in before] == list(before.values())


@pytest.mark.timeout(180)
def test_trials_do_not_depend_on_how_many_run_at_once(features: FeatureSet, tmp_path: Path) -> None:
    found = []
    for actors in (1, 2):
        book = trial_store(tmp_path / str(actors), 4)
        sweep_heads(task(features), book, actors, lambda record: None)
        found.append([record["val_loss"] for record in book.records()])
    assert found[0] == found[1]


def test_features_that_cannot_be_read_are_no_trials_fault(
    features: FeatureSet, tmp_path: Path
) -> None:
    lost = FeatureSet(Location.of(tmp_path / "nowhere"), features.manifest)
    book = trial_store(tmp_path, 3)
    with pytest.raises(RunFailed, match="do not start"):
        sweep_heads(task(lost), book, 1, lambda record: None)
    assert book.missing() == book.ids
