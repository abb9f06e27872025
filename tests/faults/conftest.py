"""A training small enough to break again and again: the top of the base CNN on made-up activations."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

EPOCHS = 6


@dataclass
class Watched:
    """What rank 0 told, and something to do when it tells of the end of an epoch."""

    after_epoch: dict[int, Callable[[], Any]] = field(default_factory=dict)
    told: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, message: dict[str, Any]) -> None:
        self.told.append(message)
        if message["kind"] == "epoch" and (act := self.after_epoch.pop(message["epoch"], None)):
            act()

    def epochs(self) -> list[int]:
        return [message["epoch"] for message in self.told if message["kind"] == "epoch"]

    def lines(self) -> list[str]:
        return [message["line"] for message in self.told if message["kind"] == "say"]


def training_workers() -> list[psutil.Process]:
    """The processes of Ray Train's workers that descend from this process."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if _title(process).startswith("ray::RayTrainWorker")
    ]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""


def send_to_one_worker(number: signal.Signals, delay_s: float = 0.3) -> Callable[[], None]:
    """A function that signals the last worker some steps into the next epoch."""

    def send() -> None:
        threading.Timer(delay_s, lambda: training_workers()[-1].send_signal(number)).start()

    return send


@pytest.fixture
def tiny_job(tmp_path: Path) -> Callable[..., Any]:
    """Makes a job: 320 rows (4, 4, 256), 40 steps an epoch, :data:`EPOCHS` epochs."""
    from catdog.config import ScratchSettings
    from catdog.data.shards import write_shard
    from catdog.models.registry import Architecture
    from catdog.storage import Location
    from catdog.training.job import TrainingJob

    generator = np.random.default_rng(0)
    files: dict[str, list[str]] = {}
    for split, count in (("train", 320), ("val", 50)):
        labels = np.arange(count) % 2
        rows = generator.normal(size=(count, 4, 4, 256)).astype(np.float16)
        rows[:, :, :, :4] += labels[:, None, None, None]
        target = Location.of(str(tmp_path / "rows" / split / "0.arrow"))
        write_shard(target, rows, labels=labels, uris=[f"{n}.jpg" for n in range(count)])
        files[split] = ["0.arrow"]
    Location.of(str(tmp_path / "rows" / "manifest.json")).write_json({"files": files})

    def make(output: str, **settings: Any) -> TrainingJob:
        return TrainingJob(
            output=output if "://" in output else str(tmp_path / output),
            architecture=Architecture("base_cnn", 96, 96, "-1..1", 0.2),
            phase="scratch",
            settings=ScratchSettings(**({"epochs": EPOCHS, "learning_rate": 1e-4} | settings)),
            batch_size=8,
            seed=0,
            dataset="",
            features=str(tmp_path / "rows"),
            boundary="pool4",
        )

    return make


@pytest.fixture
def fit(tmp_path: Path, cluster: None) -> Callable[..., Any]:
    """Trains a job on two workers: facts of it, and what was told on the way."""
    from catdog.storage import Location
    from catdog.training.trainer import Workers, train

    def run(
        job: Any, after_epoch: dict[int, Callable[[], Any]] | None = None, **options: Any
    ) -> Any:
        watched = Watched(dict(after_epoch or {}))
        workers = Workers(count=2, cpus=1, use_gpu=False, precision="float32", **options)
        name = str(tmp_path / f"ray-{Path(job.output).name}")
        return train([job], workers, Location.of(name), watched)[0], watched

    return run


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 80 MB; mounting it needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs a file system of its own: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
