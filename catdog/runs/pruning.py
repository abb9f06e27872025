"""What of a storage may be removed, and its removal: never what is in use, or not ours."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import pyarrow.fs as pafs

from catdog.errors import UserError
from catdog.runs.directory import RunDirectory
from catdog.runs.inventory import StoredRun, features_in, runs_in, sets_in, size_of
from catdog.runs.leases import lease
from catdog.storage import Location

Kind = Literal["run", "prepared set", "features"]

#: What this project writes into a run directory, and Ray into folders with a hash as their name.
OF_A_RUN = (
    *("config.yaml", "events.jsonl", "report.json", "report.html", "report.md"),
    *("data", "models", "sweeps", "artifacts", "ray"),
)
_OF_RAY = re.compile(r"[0-9a-f]{12}")
#: Of a prepared set; the manifest, by which it is recognised, goes last.
OF_A_SET = ("pixels", "photos.parquet", "rejected.parquet", "manifest.json")
#: Of features; the manifest, which says that they are complete, goes first.
OF_FEATURES = ("manifest.json", "train", "val", "test")


@dataclass(frozen=True)
class Removable:
    kind: Kind
    name: str
    root: Location
    why: str
    bytes: int


@dataclass(frozen=True)
class Pruning:
    """What may be removed, and why something else stays."""

    removable: tuple[Removable, ...]
    staying: tuple[str, ...] = ()


def plan(storage: Location, older_than_days: float, at: datetime | None = None) -> Pruning:
    """Runs that came to nothing and were left alone for long, and what no other run uses."""
    before = (at or datetime.now(UTC)) - timedelta(days=older_than_days)
    runs = runs_in(storage)
    leaving = [run for run in runs if _is_abandoned(run, before)]
    remaining = [run for run in runs if run not in leaving]
    found = [
        Removable("run", run.name, run.root, f"{run.state}, nothing more came of it", run.bytes)
        for run in leaving
    ]
    notes = [f"{run.name} is being worked on" for run in remaining if run.held]
    # A run at work that has not said yet which set it takes may take any.
    starting = [run.name for run in remaining if run.held and run.dataset() is None]
    if starting:
        notes.append(f"prepared sets and features stay: {starting[0]} may be about to use them")
        return Pruning(tuple(found), tuple(notes))
    used = {run.dataset() for run in remaining}
    found += [
        Removable("prepared set", name, root, "no run uses it", size_of(root))
        for name, root in sets_in(storage).items()
        if name not in used and not _is_link(root)
    ]
    silent = [run.name for run in remaining if run.features() is None and run.dataset()]
    if silent:
        notes.append(f"features stay: {silent[0]} does not say which it uses (an older version)")
        return Pruning(tuple(found), tuple(notes))
    named = {name for run in remaining for name in run.features() or ()}
    found += [
        Removable("features", name, root, "no run uses them", size_of(root))
        for name, root in features_in(storage).items()
        if name not in named and not _is_link(root)
    ]
    return Pruning(tuple(found), tuple(notes))


def _is_abandoned(run: StoredRun, before: datetime) -> bool:
    ours = "name" in run.record and (run.root / "config.yaml").exists() and not _is_link(run.root)
    return ours and not run.held and not run.is_done and run.changed < before


def _is_link(root: Location) -> bool:
    """What lies elsewhere and is only seen from here stays."""
    return root.is_local and root.local_path.is_symlink()


def remove(pruning: Pruning, storage: Location, say: Callable[[str], None]) -> Iterator[Removable]:
    """Remove what was planned; yields what is gone.

    A run is held while it is removed. What has come into use since the plan was made stays.
    """
    for item in pruning.removable:
        if item.kind == "run":
            try:
                _remove_run(item.root, say)
            except UserError as error:  # somebody works on it again
                say(f"{item.name} stays: {error}")
                continue
            yield item
        elif _in_use_by_now(item, storage):
            say(f"{item.name} stays: a run uses it now")
        else:
            _remove_known(item.root, OF_A_SET if item.kind == "prepared set" else OF_FEATURES)
            yield item


def _in_use_by_now(item: Removable, storage: Location) -> bool:
    """Whether a run that began after the plan was made uses ``item``, or may."""
    for run in runs_in(storage):
        if item.name == run.dataset() or item.name in (run.features() or ()):
            return True
        if run.held and run.dataset() is None:
            return True
    return False


def _remove_run(root: Location, say: Callable[[str], None]) -> None:
    """``run.json``, by which a run is recognised, goes last, so that a removal can be repeated."""
    with lease(RunDirectory(root), say=say):
        of_ray = [name for name in root.folders() if _OF_RAY.fullmatch(name)]
        for name in (*OF_A_RUN, *of_ray, "run.json"):
            _delete(root / name)
    _remove_if_empty(root)


def _remove_known(root: Location, names: tuple[str, ...]) -> None:
    for name in names:
        _delete(root / name)
    _remove_if_empty(root)


def _delete(place: Location) -> None:
    kind = place.info().type
    if kind == pafs.FileType.Directory:
        place.delete_tree()
    elif kind != pafs.FileType.NotFound:
        place.delete()


def _remove_if_empty(root: Location) -> None:
    """What somebody else has put there stays, and its folder."""
    if root.is_local:
        with contextlib.suppress(OSError):
            root.local_path.rmdir()
    elif not any(info.type == pafs.FileType.File for info in root.list(recursive=True)):
        root.delete_tree()
