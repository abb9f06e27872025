"""What the parts share: a workplace, photos, peak memory, and backbones to compute with.

Weights are drawn at random: a forward pass costs the same whatever they are.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from catdog import console
from catdog.cluster.connection import connected
from catdog.cluster.resources import Resources, plan_workers
from catdog.cluster.workers import Workers
from catdog.config import ComputeSettings, Config, DataSettings, ModelName
from catdog.data import sample, sources
from catdog.data.images import Photo, inspect
from catdog.data.labels import CLASSES
from catdog.data.prepare import PreparedSet, prepare
from catdog.errors import UserError
from catdog.models.registry import Architecture
from catdog.storage import Location
from catdog.transfer.features import FeatureRequest


def _is_good(path: str) -> bool:
    return isinstance(inspect(Path(path).read_bytes(), 32), Photo)


@contextmanager
def workplace(given: str | None) -> Iterator[Path]:
    """A temporary folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="catdog-benchmark-", dir=given) as name:
        yield Path(name)


def repeated(data: str | None, count: int, size: int, work: Path) -> Path:
    """A folder of ``count`` files, links to the photos of ``data`` in turn, or to drawings.

    Hard links where the disk allows them: a listing then costs what it does for files. Damaged
    files are left out: ``read_images`` fails at the first.
    """
    if data is None:
        data = str(work / "drawings")
        sample.draw(Path(data), 480, 0, size)
    listing = sources.list_source(data)
    labelled = [
        (CLASSES[label], path)
        for label, path in zip(
            listing.files.column("label").to_pylist(),
            listing.files.column("path").to_pylist(),
            strict=True,
        )
        if label >= 0 and _is_good(path)
    ]
    # Cats and dogs in turn, so that any beginning has both.
    cats = [pair for pair in labelled if pair[0] == CLASSES[0]]
    dogs = [pair for pair in labelled if pair[0] == CLASSES[1]]
    labelled = [pair for both in zip(cats, dogs, strict=False) for pair in both]
    if not labelled or listing.archive or not listing.source.is_local:
        raise UserError(f"{data} is no local folder of cats and dogs")
    folder = work / f"photos-{count}"
    folder.mkdir()
    for number, (label, path) in enumerate(itertools.islice(itertools.cycle(labelled), count)):
        name = folder / f"{label}.{number}.jpg"
        try:
            os.link(path, name)
        except OSError:  # on another disk
            os.symlink(path, name)
    return folder


@dataclass(frozen=True)
class Bench:
    """Prepared photos on a local cluster.

    Attributes:
        workers: one, with all cores.
        facts: of the measurement, for the result.
    """

    dataset: PreparedSet
    storage: Location
    workers: Workers
    cores: int
    facts: dict[str, Any]

    def request(self, name: ModelName) -> FeatureRequest:
        """The frozen part of ``name``, its weights in storage."""
        import ray

        size = self.facts["image_size"]
        architecture = Architecture(name, size, size, "-1..1", dropout=0.0)
        content, hashed = ray.get(ray.remote(num_cpus=1)(_draw_weights).remote(architecture))
        target = self.storage / f"{name}.npz"
        target.write_bytes(content)
        return FeatureRequest(architecture, target.uri, hashed, self.workers.precision_of(name))


@contextmanager
def bench(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Photos, or drawings, prepared in a temporary folder; a cluster of this machine."""
    count, size = arguments.photos, arguments.image_size
    with (
        workplace(arguments.work) as work,
        console.chatter_to(work / "libraries.log"),
        connected(),
    ):
        storage = Location.of(work)
        source = arguments.data and str(repeated(arguments.data, count, size, work))
        settings = DataSettings(
            source=source, image_size=size, drawings=count, max_rejected=1.0, min_per_class=1
        )
        dataset = prepare(settings, storage, 0)
        resources = Resources.at_most()
        config = Config(preset="laptop", compute=ComputeSettings(workers=1))
        workers = plan_workers(config, resources)
        facts = {
            "photos": dataset.manifest["kept"],
            "image_size": size,
            "real_photos": arguments.data is not None,
            "precision": workers.precision,
            "cores": resources.cpus,
            "rounds": arguments.rounds,
        }
        yield Bench(dataset, storage, workers, resources.cpus, facts)


def _draw_weights(architecture: Architecture) -> tuple[bytes, str]:
    from catdog.models import registry
    from catdog.models.weights import pack

    model = registry.build(architecture)
    return pack([variable.numpy() for variable in registry.backbone_variables(model)])


@contextmanager
def peak(interval_s: float = 0.1) -> Iterator[list[int]]:
    """Watch this process and the Ray workers below it; the yielded list gets the peak in bytes.

    Counted is memory of their own (anonymous) and their part of what they share; pages of files,
    which the kernel takes back when it likes, are not.
    """
    result: list[int] = []
    stop, highest = threading.Event(), 0

    def watch() -> None:
        nonlocal highest
        while True:
            highest = max(highest, _now())
            if stop.wait(interval_s):
                return

    thread = threading.Thread(target=watch, name="memory", daemon=True)
    thread.start()
    try:
        yield result
    finally:
        stop.set()
        thread.join()
        result.append(highest)


def _now() -> int:
    this = psutil.Process()
    return sum(map(_own, [this, *filter(_is_worker, this.children(recursive=True))]))


def _is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.name().startswith("ray::")
    return False


def _own(process: psutil.Process) -> int:
    """In bytes. psutil's numbers (rss, pss, uss) have pages of files among them."""
    with contextlib.suppress(OSError):  # it has ended, or there is no /proc
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        kib = [int(line.split()[1]) for line in lines if line.startswith(("Pss_Anon", "Pss_Shmem"))]
        return sum(kib) * 1024
    return 0
