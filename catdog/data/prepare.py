"""``prepare`` makes or finds the prepared set of a source.

::

    <storage>/datasets/<fingerprint>/
        pixels/               shards of raw pixels (catdog.data.shards)
        photos.parquet        one row for each kept photo: its split, its row of a shard
        rejected.parquet      one row for each rejected file
        manifest.json         counts, shards; written last: with it the set is complete

The fingerprint names the source's listing and the settings that change the outcome, so the same
photos are prepared once. Trainings and features refer to :attr:`~PreparedSet.identity` instead, a
hash of the photos' bytes: if photos are copied, only the preparation is repeated.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import simplejpeg

from catdog.config import DataSettings, digest
from catdog.data import sample, sources
from catdog.data.checks import Outcome, check_classes, check_outcome, check_room, room
from catdog.data.graph import Progress, full_disk_told, pixel_digests, run
from catdog.data.inspection import THUMBNAILS, Plan
from catdog.data.shards import Rows, open_rows, read_rows
from catdog.data.splits import Split, split_photos
from catdog.data.staging import StagingFolder
from catdog.data.unpacking import unpacked
from catdog.data.verdicts import FileOutcomes, account_of, photos_table, rejected_table
from catdog.storage import Location
from catdog.storage.retrying import retried

#: Changes whenever the same photos would be prepared differently.
FORMAT = 3


@dataclass(frozen=True)
class Survey:
    """What a source holds, from its listing alone; ``classes`` has cat, dog and unknown."""

    source: str
    sample: bool
    files: int
    classes: dict[str, int]
    bytes: int
    needed_bytes: int
    fingerprint: str | None


@dataclass(frozen=True)
class PreparedSet:
    """A complete prepared set; small, and may be sent to workers, which open the rows."""

    root: Location
    manifest: dict[str, Any]

    @property
    def identity(self) -> str:
        """Names the rows by what is in them, wherever the photos lay and whenever they came."""
        facts = self.manifest
        return digest([facts["format"], facts["image_size"], facts["contents"]])

    def rows(self, split: Literal["train", "val", "test"]) -> Rows:
        """The rows of a split, without duplicates and held-back photos, in the listing's order."""
        photos = _read_parquet(
            self.root / "photos.parquet",
            ["shard", "row"],
            filters=[("split", "=", split), ("held_back", "=", False)],
        )
        shards = {shard["number"]: shard for shard in self.manifest["shards"]}
        of, row = (photos.column(name).to_numpy() for name in ("shard", "row"))
        opened = np.unique(of)
        counts = [shards[number]["rows"] for number in opened.tolist()]
        starts = np.cumsum([0, *counts])
        return open_rows([self.root / shards[n]["file"] for n in opened.tolist()]).select(
            starts[np.searchsorted(opened, of)] + row
        )

    def photos(self) -> pa.Table:
        return _read_parquet(self.root / "photos.parquet")

    def rejected(self) -> pa.Table:
        return _read_parquet(self.root / "rejected.parquet")


def survey(settings: DataSettings, seed: int) -> Survey:
    """List the source; nothing is decoded.

    Raises:
        UserError: no such place, no files, no class found, or one class only.
    """
    if settings.source is None:
        classes = sample.plan(settings.drawings)
        total = sum(classes.values())
        return Survey(
            "built-in drawings",
            True,
            total,
            classes,
            total * 6_000,
            room(total, settings.image_size),
            None,
        )
    listing = sources.list_source(settings.source)
    counts = listing.counts()
    check_classes(listing, counts)
    unpacked = listing.bytes() if listing.archive else 0
    return Survey(
        str(listing.source),
        False,
        len(listing.files),
        counts,
        listing.bytes(),
        room(len(listing.files), settings.image_size) + unpacked,
        fingerprint_of(listing, settings),
    )


def prepare(
    settings: DataSettings,
    storage: Location,
    seed: int,
    on_progress: Progress | None = None,
    owner: str | None = None,
) -> PreparedSet:
    """Prepare the photos, or find them prepared. Ray must be initialised.

    Args:
        storage: where ``datasets/`` (and ``drawings/``) lie.
        seed: of the built-in drawings; the splits depend on no seed.
        on_progress: called with (files done, files in all).
        owner: who prepares once at a time; what its killed attempts left in a bucket is removed.

    Raises:
        UserError: as :func:`survey`; or too many files rejected, too few photos of a class, a
            split without a class, not enough disk.
    """
    started = time.monotonic()
    source, drawn = settings.source, settings.source is None
    if source is None:
        source = sample.drawn(storage, settings.drawings, seed, settings.image_size).uri
    listing = sources.list_source(source)
    check_classes(listing, listing.counts())
    fingerprint = fingerprint_of(listing, settings)
    done = find(storage, fingerprint)
    if done is not None:
        outcome = Outcome.of_tables(done.manifest, done.photos(), done.rejected())
        check_outcome(outcome, settings)
        if on_progress:
            on_progress(done.manifest["files"], done.manifest["files"])
        return done
    check_room(listing, settings, storage)
    with StagingFolder(storage / "datasets", fingerprint, owner) as attempt:
        listing = unpacked(listing, attempt.scratch)
        plan = Plan(
            listing.bases,
            attempt.root,
            settings.image_size,
            attempt.suffix,
            # The report shows a few; from thousands of blocks one each is more than enough.
            max(1, THUMBNAILS * 64 // max(64, len(listing.files) // 128)),
        )
        with full_disk_told(storage):
            verdicts = run(listing, plan, on_progress or (lambda done, total: None))
        rule = partial(
            split_photos, val_fraction=settings.val_fraction, test_fraction=settings.test_fraction
        )
        account = account_of(verdicts, listing.files, pixel_digests(listing), rule)
        check_outcome(Outcome.of(account), settings)
        manifest = _manifest(account, plan) | {
            "fingerprint": fingerprint,
            "source": "built-in drawings" if drawn else str(listing.source),
            "sample": drawn,
            "contents": account.contents(),
            "image_size": settings.image_size,
            "format": FORMAT,
        }
        seconds = time.monotonic() - started
        manifest |= {
            "seconds": round(seconds, 3),
            "images_per_second": round(len(listing.files) / seconds, 1),
        }
        _write_tables(account, plan, attempt.root)
        # Another attempt may have been faster; what is there and damaged gives way.
        attempt.publish(manifest, lambda: find(storage, fingerprint) is not None)
    found = find(storage, fingerprint)
    assert found is not None, f"{fingerprint} was published and is not there"
    return found


def find(storage: Location, fingerprint: str) -> PreparedSet | None:
    """The complete prepared set of this fingerprint, or ``None``.

    A set whose shards are missing or shorter than the manifest says (a machine that lost power) is
    not complete.
    """
    root = storage / "datasets" / fingerprint
    try:
        manifest = (root / "manifest.json").read_json()
    except FileNotFoundError:
        return None
    sizes = {
        info.path.removeprefix(root.path.rstrip("/") + "/"): info.size
        for info in root.list(recursive=True)
        if info.type == pafs.FileType.File
    }
    if any(sizes.get(shard["file"]) != shard["bytes"] for shard in manifest["shards"]):
        return None
    return PreparedSet(root, manifest)


def fingerprint_of(listing: sources.Listing, settings: DataSettings) -> str:
    """Names the listing and the settings that change what is prepared."""
    return digest(
        {
            "format": FORMAT,
            "listing": listing.digest,
            "image_size": settings.image_size,
            "fractions": [settings.val_fraction, settings.test_fraction],
        }
    )


def _manifest(account: FileOutcomes, plan: Plan) -> dict[str, Any]:
    written = account.verdicts["shard"][account.verdicts["shard"] >= 0]
    shards = []
    for number, rows in zip(
        *(a.tolist() for a in np.unique(written, return_counts=True)), strict=True
    ):
        file = plan.shard(number)
        size = (plan.root / file).info().size
        shards.append({"number": number, "file": file, "rows": rows, "bytes": size})
    return {
        "files": len(account.labels),
        "kept": int(account.kept.sum()),
        "held_back": int(account.held_back.sum()),
        "rejected": account.rejected(),
        "splits": account.splits(),
        "flags": account.flags(),
        "near_duplicates": int((account.kept & (account.near >= 0)).sum()),
        "shards": shards,
    }


def _write_tables(account: FileOutcomes, plan: Plan, root: Location) -> None:
    import pyarrow.parquet as pq

    thumbnails = _thumbnails(account, plan)
    for name, table in (
        ("photos.parquet", photos_table(account)),
        ("rejected.parquet", rejected_table(account, thumbnails, THUMBNAILS)),
    ):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        (root / name).write_bytes(sink.getvalue().to_pybytes())


def _thumbnails(account: FileOutcomes, plan: Plan) -> dict[int, bytes]:
    """Pictures of duplicates and conflicts, from the pixels that were written."""
    of, places = account.verdicts, defaultdict(list)
    for reason in ("label_conflict", "duplicate"):
        for place in np.flatnonzero(of["reason"] == reason)[:THUMBNAILS].tolist():
            places[int(of["shard"][place])].append(place)
    found, side = {}, min(96, plan.image_size)
    for shard, here in places.items():
        rows = read_rows(plan.root / plan.shard(shard), of["row"][here].tolist())
        for place, pixels in zip(here, rows, strict=True):
            small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
            found[place] = bytes(simplejpeg.encode_jpeg(small, quality=80))
    return found


def _read_parquet(file: Location, columns: list[str] | None = None, **options: Any) -> pa.Table:
    """A table, or some of its columns, of which alone the bytes are read."""
    import pyarrow.parquet as pq

    def read() -> pa.Table:
        # A folder named a=b above it is no partition.
        filesystem = file.filesystem
        return pq.read_table(
            file.path, columns=columns, filesystem=filesystem, partitioning=None, **options
        )

    return retried(read, file)


__all__ = ["PreparedSet", "Split", "Survey", "find", "fingerprint_of", "prepare", "survey"]
