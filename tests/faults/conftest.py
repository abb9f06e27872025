"""Trainings of the tiny job under Ray Train, watched from the driver."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from catdog.runs.messages import EpochEnded, Message, Say
from tests.tiny import make_job, write_rows


@dataclass
class Watched:
    """What rank 0 told, and something to do when it tells of an epoch's end, or says a line."""

    after_epoch: dict[int, Callable[[], Any]] = field(default_factory=dict)
    on_line: Callable[[], Any] = lambda: None
    told: list[Message] = field(default_factory=list)

    def __call__(self, message: Message) -> None:
        self.told.append(message)
        if isinstance(message, EpochEnded):
            self.after_epoch.pop(message.row.epoch, lambda: None)()
        if isinstance(message, Say):
            self.on_line()

    def epochs(self) -> list[int]:
        return [message.row.epoch for message in self.told if isinstance(message, EpochEnded)]

    def lines(self) -> list[str]:
        return [message.line for message in self.told if isinstance(message, Say)]


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
    """Makes a job on rows of its own: ``tiny_job(output, **settings)``."""
    write_rows(tmp_path)
    return partial(make_job, tmp_path)


@dataclass
class Standing:
    """A group of two workers for the trainings that it outlives; each has its own listener."""

    pool: Any
    listening: list[Watched]

    def fit(self, job: Any, watched: Watched) -> Any:
        from catdog.training.pool import train_in

        self.listening[:] = [watched]
        return train_in(self.pool, [job])[0]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> Iterator[Standing]:
    """Starts with the first training that asks for it."""
    from catdog.storage import Location
    from catdog.training.pool import WorkerPool

    listening: list[Watched] = []
    folder = Location.of(tmp_path_factory.mktemp("standing"))

    def hear(message: dict[str, Any]) -> None:
        listening[0](message)

    with WorkerPool(two_workers(), folder, hear, elastic=True) as pool:
        yield Standing(pool, listening)


def two_workers(**options: Any) -> Any:
    from catdog.cluster.workers import Workers

    return Workers(count=2, cpus=1, use_gpu=False, precision="float32", **options)


@pytest.fixture
def fit(tmp_path: Path, standing: Standing) -> Callable[..., Any]:
    """Trains a job on two workers: facts of it, and what was told on the way.

    ``stays`` says that the group outlives it: such trainings share one.
    """
    from catdog.storage import Location
    from catdog.training.pool import train

    def run(
        job: Any,
        after_epoch: dict[int, Callable[[], Any]] | None = None,
        on_line: Callable[[], Any] = lambda: None,
        *,
        stays: bool = False,
        **options: Any,
    ) -> Any:
        watched = Watched(dict(after_epoch or {}), on_line)
        if stays:
            return standing.fit(job, watched), watched
        standing.pool.rest()
        workers = two_workers(**options)
        name = str(tmp_path / f"ray-{Path(job.output.partition('?')[0]).name}")
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
