"""What a storage holds: its runs, prepared sets and features, recognised by their own files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.fs as pafs

from catdog.runs.directory import RunDirectory
from catdog.runs.leases import is_held
from catdog.storage import Location

#: Folders of a storage that hold no runs.
SHARED = ("datasets", "features", "weights", "drawings")
#: A run's name may have folders in it; deeper is none looked for.
DEEPEST = 3
_FINGERPRINT = re.compile(r"[0-9a-f]{12}")
_SHARD = re.compile(r"(train|val|test)/\d{8}\.arrow")


@dataclass(frozen=True)
class StoredRun:
    """A run as its files tell, without waiting for anything.

    Attributes:
        name: its path below the storage.
        record: ``run.json``.
        held: whether somebody works on it.
        changed: when something was written to it last.
        bytes: of all its files.
    """

    name: str
    root: Location
    record: dict[str, Any]
    held: bool
    changed: datetime
    bytes: int

    @property
    def state(self) -> str:
        """As ``run.json`` says, but ``interrupted`` where nobody works on what it calls running."""
        status = str(self.record.get("status", "new"))
        if self.held:
            return "running"
        return "interrupted" if status in ("running", "new") else status

    @property
    def is_done(self) -> bool:
        """Whether it came to what was asked of it: a report, or the choice of a sweep."""
        return self.state in ("finished", "tuned")

    def models(self) -> tuple[str, ...]:
        return (self.root / "models").folders()

    def best(self) -> tuple[str, float] | None:
        """Name and test accuracy of the report's best model, else of the most accurate."""
        report = _json(self.root / "report.json")
        tested = {
            str(model["name"]): float(model["test"]["accuracy"])
            for model in report.get("models", [])
            if model.get("test")
        }
        if not tested:
            return None
        named = report.get("best") or {}
        name = named.get("name") if named.get("run") == report["run"]["name"] else None
        name = name if name in tested else max(tested, key=lambda each: tested[each])
        return str(name), tested[str(name)]

    def dataset(self) -> str | None:
        """Fingerprint of the prepared set that it uses; none before there is one."""
        return _json(self.root / "data" / "manifest.json").get("fingerprint")

    def features(self) -> set[str] | None:
        """Names of the features that it uses; none where an older version did not write them."""
        named = self.record.get("features")
        return None if named is None else set(map(str, named))


def runs_in(storage: Location) -> list[StoredRun]:
    """All runs below ``storage``, sorted by name."""
    return [run for root in _run_folders(storage, DEEPEST) if (run := stored_run(root, storage))]


def stored_run(root: Location, storage: Location | None = None) -> StoredRun | None:
    """The run at ``root``; ``None`` where there is none of ours."""
    record = _json(root / "run.json")
    if "status" not in record:
        return None
    files = [info for info in root.list(recursive=True) if info.type == pafs.FileType.File]
    times = [info.mtime for info in files if info.mtime is not None]
    name = root.name if storage is None else _below(storage, root.path)
    held = is_held(RunDirectory(root))
    changed = max(times, default=datetime.now(UTC))
    return StoredRun(name, root, record, held, changed, sum(info.size for info in files))


def sets_in(storage: Location) -> dict[str, Location]:
    """Complete prepared sets of ours by fingerprint."""
    folder = storage / "datasets"
    found = {name: folder / name for name in folder.folders() if _FINGERPRINT.fullmatch(name)}
    return {
        name: root
        for name, root in found.items()
        if _json(root / "manifest.json").get("fingerprint") == name
    }


def features_in(storage: Location) -> dict[str, Location]:
    """Kept features of ours by name, complete or not: folders with nothing but their shards."""
    folder = storage / "features"
    found = {name: folder / name for name in folder.folders() if _FINGERPRINT.fullmatch(name)}
    return {name: root for name, root in found.items() if _has_only_shards(root)}


def size_of(root: Location) -> int:
    """Bytes of all files below ``root``."""
    infos = root.list(recursive=True)
    return sum(info.size for info in infos if info.type == pafs.FileType.File)


def _has_only_shards(root: Location) -> bool:
    files = [info for info in root.list(recursive=True) if info.type == pafs.FileType.File]
    names = [_below(root, info.path) for info in files]
    return bool(names) and all(n == "manifest.json" or _SHARD.fullmatch(n) for n in names)


def _run_folders(folder: Location, depth: int) -> Iterator[Location]:
    for name in folder.folders():
        below = folder / name
        if (below / "run.json").exists():  # also of a run that is called like one of SHARED
            yield below
        elif depth > 1 and not name.startswith(".") and (depth < DEEPEST or name not in SHARED):
            yield from _run_folders(below, depth - 1)


def _below(folder: Location, path: str) -> str:
    return path.removeprefix(folder.path.rstrip("/") + "/")


def _json(file: Location) -> dict[str, Any]:
    """An object of a file, empty where there is none or it is none of ours."""
    try:
        content = file.read_json()
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
