"""The rows that a job trains on: raw pixels, or kept activations of the frozen part."""

from __future__ import annotations

from catdog.data.prepare import PreparedSet
from catdog.data.shards import Rows, open_rows
from catdog.storage import Location
from catdog.training.job import TrainingJob


def open_dataset(uri: str) -> PreparedSet:
    """The prepared set at ``uri``, complete as it is named only when it is."""
    root = Location.of(uri)
    return PreparedSet(root, (root / "manifest.json").read_json())


def open_inputs(job: TrainingJob) -> tuple[Rows, Rows]:
    """(training rows, validation rows), memory-mapped."""
    if job.features is None:
        prepared = open_dataset(job.dataset)
        return prepared.rows("train"), prepared.rows("val")
    root = Location.of(job.features)
    manifest = (root / "manifest.json").read_json()
    opened = [
        open_rows([root / split / name for name in manifest["files"][split]])
        for split in ("train", "val")
    ]
    return opened[0], opened[1]
