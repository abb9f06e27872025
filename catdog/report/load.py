"""A run directory's files as one typed structure, whatever is missing or damaged.

A report is wanted most where a run failed, so nothing here is required beyond the directory being
a run's. What cannot be read becomes a line in :attr:`Run.problems`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field

from catdog.errors import UserError
from catdog.evaluation.metrics import Array
from catdog.report import recovered
from catdog.report.wording import redacted
from catdog.runs import records
from catdog.storage import Location

T = TypeVar("T")
R = TypeVar("R", bound=records.Record)

#: The columns that are read of a run's tables.
PREDICTIONS = "uri split label logit logit_tta"
PHOTOS = "uri label near_duplicate_of held_back width height brightness sharpness"
REJECTED = "uri reason detail thumbnail"


class Predictions(NamedTuple):
    """One model on one split: ``uris``, ``labels`` (0, 1), ``logits``, all (n,), ordered by URI.

    ``mirrored`` is the mean logit of each picture and its mirror image.
    """

    uris: Array
    labels: Array
    logits: Array
    mirrored: Array


class Overlay(NamedTuple):
    """A photo and its Grad-CAM heatmap, JPEG bytes each (empty: none)."""

    thumbnail: bytes
    heatmap: bytes


@dataclass(frozen=True, eq=False)
class SeedFiles:
    """A repeat of a model's training with another seed."""

    seed: int
    facts: records.Model
    test: Predictions | None


@dataclass(frozen=True, eq=False)
class ModelFiles:
    """What a run wrote about one model; all of it may be missing."""

    name: str
    facts: records.Model
    history: list[records.Epoch]
    val: Predictions | None
    test: Predictions | None
    overlays: dict[str, Overlay]
    seeds: tuple[SeedFiles, ...]
    exports: dict[str, records.Export] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Run:
    """One run directory in memory. Tables are empty where their file is missing."""

    root: Location
    config: dict[str, Any]
    record: records.Run
    events: list[records.Event]
    manifest: records.Manifest
    rejected: pd.DataFrame
    photos: pd.DataFrame
    models: tuple[ModelFiles, ...]
    thumbnails: dict[str, bytes]
    sweeps: dict[str, records.Sweep]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.record.name or self.root.name

    def restarts(self, model: str | None = None) -> list[records.Event]:
        """Of the training of ``model``, or of all."""
        told = (event for event in self.events if event.event == "restart")
        return [event for event in told if model in (None, event.model)]


def load(root: Location) -> Run:
    """Read all that a report needs from the run directory ``root``.

    Raises:
        UserError: there is nothing at ``root``, or it is not a run directory.
    """
    if not root.exists():
        raise UserError(f"there is no run at {root}; give the folder that holds run.json")
    if not (root / "run.json").exists() and not (root / "config.yaml").exists():
        raise UserError(
            f"{root} is not a run directory: it holds neither run.json nor config.yaml; "
            "give <storage>/<name> as the job printed it"
        )
    reader = _Reader(root)
    tree = reader.read("config.yaml", yaml.safe_load, None)
    config = tree if isinstance(tree, dict) else {}
    events = reader.read("events.jsonl", _events, list[records.Event]())
    return Run(
        root=root,
        config=redacted(config),
        record=reader.record("run.json", records.Run),
        events=events,
        manifest=reader.record("data/manifest.json", records.Manifest),
        rejected=reader.table("data/rejected.parquet", REJECTED),
        photos=reader.table("data/photos.parquet", PHOTOS),
        models=tuple(_model(reader, name, events) for name in _model_names(root, config)),
        thumbnails=reader.pictures("artifacts/thumbnails.parquet", "thumbnail"),
        sweeps=_sweeps(reader, events),
        problems=reader.problems,
    )


class _Reader:
    """Reads files below ``root``; a damaged one is a problem noted, a missing one is a default."""

    def __init__(self, root: Location) -> None:
        self.root = root
        self.problems: list[str] = []

    def read(self, path: str, parse: Callable[[bytes], T], missing: T) -> T:
        target = self.root
        for part in path.split("/"):
            target = target / part
        try:
            return parse(target.read_bytes())
        except FileNotFoundError:
            return missing
        except (ValueError, TypeError, KeyError, OSError, yaml.YAMLError, pa.ArrowException) as err:
            self.problems.append(f"{path} could not be read ({type(err).__name__}) and is left out")
            return missing

    def record(self, path: str, kind: type[R]) -> R:
        """What a JSON file holds of a record; one of defaults where there is nothing of it."""
        return self._fitted(path, kind, self.read(path, json.loads, None))

    def history(self, path: str) -> list[records.Epoch]:
        rows = self.read(path, json.loads, None)
        return self._fitted(path, _History, {"rows": rows}).rows

    def _fitted(self, path: str, kind: type[R], tree: object) -> R:
        found, misfits = kind.fitted(redacted(tree))
        if misfits:
            names = ", ".join(misfits)
            self.problems.append(f"{path} holds values of another kind, left out: {names}")
        return found

    def table(self, path: str, columns: str) -> pd.DataFrame:
        """A Parquet file; empty where it is missing or lacks one of ``columns``."""
        frame = self.read(path, _parquet, pd.DataFrame())
        wanted = columns.split()
        return frame if set(wanted) <= set(frame) else pd.DataFrame(columns=wanted, dtype=object)

    def pictures(self, path: str, column: str) -> dict[str, bytes]:
        """JPEG bytes by URI."""
        table = self.table(path, f"uri {column}")
        return dict(zip(table["uri"], table[column], strict=True))


def _parquet(raw: bytes) -> pd.DataFrame:
    return pq.read_table(pa.BufferReader(raw)).to_pandas()  # type: ignore[no-any-return]


class _History(records.Record):
    """``history.json``, which is a list."""

    rows: list[records.Epoch] = Field([])


def _events(raw: bytes) -> list[records.Event]:
    """Of a JSON-lines file; a last line cut off by a kill is passed over."""
    events = []
    for line in raw.decode("utf-8", "replace").splitlines():
        try:
            tree = json.loads(line)
        except ValueError:
            continue
        # An event of another kind than ours is nothing that a reader needs to hear about.
        events.append(records.Event.fitted(redacted(tree))[0])
    return events


def _model_names(root: Location, config: dict[str, Any]) -> list[str]:
    """Models that were asked for, in order; without settings those that left files."""
    asked = config.get("models")
    if not isinstance(asked, list):
        return list((root / "models").folders())
    return list(dict.fromkeys(str(name) for name in asked))


def _model(reader: _Reader, name: str, events: list[records.Event]) -> ModelFiles:
    base = f"models/{name}"
    table = reader.table(f"{base}/predictions.parquet", PREDICTIONS)
    overlays = f"{base}/artifacts/gradcam.parquet"
    shown, heat = (reader.pictures(overlays, column) for column in ("thumbnail", "heatmap"))
    return ModelFiles(
        name=name,
        facts=reader.record(f"{base}/model.json", records.Model),
        history=reader.history(f"{base}/history.json") or recovered.history(events, name),
        val=_predictions(reader, table, "val", name),
        test=_predictions(reader, table, "test", name),
        overlays={uri: Overlay(shown[uri], heat[uri]) for uri in shown},
        seeds=_seeds(reader, name),
        exports=reader.record(f"{base}/exports.json", records.Exports).formats,
    )


def _seeds(reader: _Reader, name: str) -> tuple[SeedFiles, ...]:
    seeds = []
    for folder in (reader.root / "models" / name / "seeds").folders():
        if not folder.isdigit():
            continue
        base = f"models/{name}/seeds/{folder}"
        table = reader.table(f"{base}/predictions.parquet", PREDICTIONS)
        facts = reader.record(f"{base}/model.json", records.Model)
        label = f"{name}, seed {folder}"
        seeds.append(SeedFiles(int(folder), facts, _predictions(reader, table, "test", label)))
    return tuple(sorted(seeds, key=lambda repeat: repeat.seed))


def _predictions(reader: _Reader, table: pd.DataFrame, split: str, who: str) -> Predictions | None:
    """Rows of ``split``, each photo once; ``None`` where there are none that can be used."""
    rows = table[table["split"] == split].drop_duplicates("uri").sort_values("uri")
    if rows.empty:
        return None
    logits, mirrored = (rows[key].to_numpy(np.float64) for key in ("logit", "logit_tta"))
    if bad := int((~np.isfinite(logits + mirrored)).sum()):
        reader.problems.append(
            f"{who}: {bad} of {len(rows)} {split} predictions are not numbers; "
            "its results are left out"
        )
        return None
    labels = rows["label"].to_numpy(np.int64)
    return Predictions(rows["uri"].to_numpy(object), labels, logits, mirrored)


def _sweeps(reader: _Reader, events: list[records.Event]) -> dict[str, records.Sweep]:
    found = {}
    for folder in (reader.root / "sweeps").folders():
        sweep = reader.record(f"sweeps/{folder}/trials.json", records.Sweep)
        found[folder] = sweep if sweep.trials else recovered.sweep(events)
    return {folder: sweep for folder, sweep in found.items() if sweep.trials}
