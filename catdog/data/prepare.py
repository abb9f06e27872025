"""The data stage: photos in, a prepared set out, every file accounted for.

::

    <storage>/datasets/<fingerprint>/
        train/ val/ test/     shards of raw pixels (catdog.data.shards)
        photos.parquet        one row for each kept photo
        rejected.parquet      one row for each rejected file
        manifest.json         counts, splits, shards; written last: with it the set is complete

The fingerprint names the source's listing and the settings that change the outcome, so the same
photos are prepared once.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import simplejpeg

from catdog.config import DataSettings, digest
from catdog.data import archives, sample, sources
from catdog.data.attempts import Attempt
from catdog.data.images import pixel_digest
from catdog.data.inspection import THUMBNAILS, Plan, inspect_block
from catdog.data.labels import CLASSES, is_litter, label_of
from catdog.data.shards import Rows, open_rows
from catdog.data.splits import SPLITS, Split
from catdog.data.verdicts import Account, account_of, photos_table, rejected_table
from catdog.errors import UserError
from catdog.storage import Location

#: Changes whenever the same photos would be prepared differently.
FORMAT = 1
_DIGESTS_AT_ONCE = 64

Progress = Callable[[int, int], None]


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

    def rows(self, split: Literal["train", "val", "test"]) -> Rows:
        """The rows of a split, without duplicates and held-back photos, in the listing's order."""
        shards = self.manifest["shards"][split]
        keep, start = [], 0
        for shard in shards:
            numbers = np.arange(start, start + shard["rows"])
            keep.append(np.delete(numbers, shard["skip"]))
            start += shard["rows"]
        return open_rows([self.root / shard["file"] for shard in shards]).select(
            np.concatenate(keep)
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
            _room(total, settings.image_size),
            None,
        )
    listing = sources.list_source(settings.source)
    counts = listing.counts()
    _check_classes(listing, counts)
    unpacked = listing.bytes() if listing.archive else 0
    return Survey(
        str(listing.source),
        False,
        len(listing.files),
        counts,
        listing.bytes(),
        _room(len(listing.files), settings.image_size) + unpacked,
        fingerprint_of(listing, settings),
    )


def prepare(
    settings: DataSettings,
    storage: Location,
    seed: int,
    on_progress: Progress | None = None,
) -> PreparedSet:
    """Prepare the photos, or find them prepared. Ray must be initialised.

    Args:
        storage: where ``datasets/`` (and ``drawings/``) lie.
        seed: of the built-in drawings; the splits depend on no seed.
        on_progress: called with (files done, files in all).

    Raises:
        UserError: as :func:`survey`; or too many files rejected, too few photos of a class, a
            split without a class, not enough disk.
    """
    started = time.monotonic()
    source, drawn = settings.source, settings.source is None
    if source is None:
        source = sample.drawn(storage, settings.drawings, seed, settings.image_size).uri
    listing = sources.list_source(source)
    _check_classes(listing, listing.counts())
    fingerprint = fingerprint_of(listing, settings)
    done = find(storage, fingerprint)
    if done is not None:
        if on_progress:
            on_progress(done.manifest["files"], done.manifest["files"])
        return done
    _check_room(listing, settings, storage)
    with Attempt(storage / "datasets", fingerprint) as attempt:
        listing = _unpacked(listing, attempt)
        plan = Plan(
            listing.bases,
            attempt.root,
            settings.image_size,
            settings.val_fraction,
            settings.test_fraction,
            attempt.suffix,
            # The report shows a few; from thousands of blocks one each is more than enough.
            max(1, THUMBNAILS * 64 // max(64, len(listing.files) // 128)),
        )
        with _full_disk_told(storage):
            verdicts = _run(listing, plan, on_progress or (lambda done, total: None))
        account = account_of(verdicts, listing.files, _pixel_digests(listing))
        _check_account(account, settings)
        manifest = _manifest(account, plan) | {
            "fingerprint": fingerprint,
            "source": "built-in drawings" if drawn else str(listing.source),
            "sample": drawn,
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
        attempt.publish(manifest, replace=find(storage, fingerprint) is None)
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
    shards = [shard for split in SPLITS for shard in manifest["shards"][split]]
    if any(sizes.get(shard["file"]) != shard["bytes"] for shard in shards):
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


def _check_classes(listing: sources.Listing, counts: dict[str, int]) -> None:
    if not len(listing.files):
        raise UserError(f"there are no files in {listing.source}")
    found = [name for name in CLASSES if counts[name]]
    names = "cat.0.jpg and dog.0.jpg, or folders Cat/ and Dog/"
    if not found:
        raise UserError(
            f"no class found in {listing.source}: {len(listing.files)} files, and none is named "
            f"for a cat or a dog; name them like {names}"
        )
    if len(found) == 1:
        other = next(name for name in CLASSES if name not in found)
        raise UserError(
            f"only one class in {listing.source}: {counts[found[0]]} files are a {found[0]} by "
            f"their name or folder and none is a {other}; name them like {names}"
        )


def _room(files: int, image_size: int) -> int:
    return files * (3 * image_size**2 + 512) + (1 << 20)


def _check_room(listing: sources.Listing, settings: DataSettings, storage: Location) -> None:
    free = storage.free_bytes()
    needed = _room(len(listing.files), settings.image_size)
    needed += listing.bytes() if listing.archive else 0
    if free is not None and needed > free:
        raise UserError(
            f"not enough disk under {storage}: the prepared photos need {needed / 2**30:.2f} GiB "
            f"and {free / 2**30:.2f} GiB are free; give another --storage or a smaller --image-size"
        )


def _unpacked(listing: sources.Listing, attempt: Attempt) -> sources.Listing:
    """For an archive: its members in pack files that go away with the attempt."""
    if not listing.archive:
        return listing
    place = listing.source
    info = place.filesystem.get_file_info(place.path)
    folder = attempt.scratch()
    packed, packs = archives.pack(
        place,
        info.size,
        folder,
        keep=lambda path: not is_litter(path),
        max_file_bytes=sources.MAX_FILE_BYTES,
        head_bytes=1 << 16,
        room=folder.free_bytes(),
    )
    order = sorted(range(len(packed)), key=lambda i: packed[i].path)
    found = [packed[i] for i in order]
    files = pa.table(
        {
            "uri": [f"{place}/{item.path}" for item in found],
            "base": [item.pack for item in found],
            "path": [packs[item.pack].path for item in found],
            "offset": [item.offset for item in found],
            "size": [item.size for item in found],
            "label": [label_of(item.path) for item in found],
            "problem": [item.problem for item in found],
        },
        schema=sources.FILES,
    )
    return replace(listing, files=files, bases=tuple(packs))


def _run(listing: sources.Listing, plan: Plan, on_progress: Progress) -> pa.Table:
    """The Ray Data graph: a few large blocks of file names in, verdicts out."""
    import ray

    total, done, parts = len(listing.files), 0, []
    with quiet():
        dataset = ray.data.from_arrow(list(_blocks(listing.files)))
        dataset = dataset.map_batches(
            inspect_block,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"plan": plan},
            zero_copy_batch=True,
        )
        for part in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            parts.append(part)
            done += len(part)
            on_progress(done, total)
    return pa.concat_tables(parts)


@contextlib.contextmanager
def _full_disk_told(storage: Location) -> Iterator[None]:
    """A disk that fills up although it was measured is the user's to clear, in one line."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except RayTaskError as error:
        if os.strerror(errno.ENOSPC) in str(error):  # the cause itself does not travel
            raise UserError(f"the disk of {storage} is full; free some space") from error
        raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ray Data tells its plan and progress in its own way; ours are told by ``on_progress``."""
    import ray

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


def _blocks(files: pa.Table) -> Iterator[pa.Table]:
    """Few and large, but enough for every core to have several: a slow one costs little."""
    import ray

    cores = int(ray.cluster_resources().get("CPU", 1))
    rows = min(1024, max(64, -(-len(files) // (8 * cores))))
    numbered = files.append_column("index", pa.array(np.arange(len(files))))
    for number, start in enumerate(range(0, len(files), rows)):
        block = numbered.slice(start, rows).combine_chunks()
        yield block.append_column("block", pa.array(np.full(len(block), number)))


def _pixel_digests(listing: sources.Listing) -> Callable[[list[int]], list[bytes | None]]:
    """Digests of pixels at full size, computed in tasks."""

    def of(places: list[int]) -> list[bytes | None]:
        import ray

        if not places:
            return []
        task = ray.remote(_digests)
        entries = listing.files.take(pa.array(places)).to_pylist()
        pieces = range(0, len(entries), _DIGESTS_AT_ONCE)
        jobs = [task.remote(entries[i : i + _DIGESTS_AT_ONCE], listing.bases) for i in pieces]
        return [digest for job in jobs for digest in ray.get(job)]

    return of


def _digests(entries: list[dict[str, Any]], bases: tuple[Location, ...]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for entry in entries:
        where = (bases[entry["base"]], entry["path"], entry["offset"], entry["size"])
        try:
            found.append(pixel_digest(sources.read(*where)))
        except OSError:
            found.append(None)
    return found


def _check_account(account: Account, settings: DataSettings) -> None:
    rejected, files = account.rejected(), len(account.labels)
    reasons = tuple(
        line
        for reason, examples in account.examples().items()
        for line in (f"{reason}: {rejected[reason]}", *(f"    {name}" for name in examples))
    )
    labelled = files - rejected.get("no_label", 0)
    bad = sum(rejected.values()) - rejected.get("no_label", 0)
    if bad > settings.max_rejected * labelled:
        raise UserError(
            f"{bad} of {labelled} files were rejected ({bad / labelled:.0%}), more than the "
            f"{settings.max_rejected:.0%} allowed; look at the reasons, or raise --max-rejected",
            details=reasons,
        )
    for label, name in enumerate(CLASSES):
        count = int((account.kept & (account.labels == label)).sum())
        if count < settings.min_per_class:
            raise UserError(
                f"{count} good photos of a {name} are left, fewer than {settings.min_per_class}; "
                "give more photos",
                details=reasons,
            )
    for split, classes in account.splits().items():
        for name, count in classes.items():
            if not count:
                raise UserError(
                    f"the {split} split has no {name}: there are too few photos for fractions of "
                    f"{settings.val_fraction:g} and {settings.test_fraction:g}; give more photos, "
                    "or larger val_fraction and test_fraction",
                    details=reasons,
                )


def _manifest(account: Account, plan: Plan) -> dict[str, Any]:
    of, usable = account.verdicts, account.usable
    shards: dict[str, list[dict[str, Any]]] = {}
    for split, name in enumerate(SPLITS):
        shards[name] = []
        written = (of["shard"] >= 0) & (of["split"] == split)
        for number in np.unique(of["shard"][written]).tolist():
            here = np.flatnonzero(written & (of["shard"] == number))
            file = plan.shard(split, number)
            location = plan.root / file
            size = location.filesystem.get_file_info(location.path).size
            skip = sorted(of["row"][here[~usable[here]]].tolist())
            shards[name].append({"file": file, "rows": len(here), "bytes": size, "skip": skip})
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


def _write_tables(account: Account, plan: Plan, root: Location) -> None:
    import pyarrow.parquet as pq

    thumbnails = _thumbnails(account, plan)
    for name, table in (
        ("photos.parquet", photos_table(account)),
        ("rejected.parquet", rejected_table(account, thumbnails, THUMBNAILS)),
    ):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        (root / name).write_bytes(sink.getvalue().to_pybytes())


def _thumbnails(account: Account, plan: Plan) -> dict[int, bytes]:
    """Pictures of duplicates and conflicts, from the pixels that were written."""
    of, found = account.verdicts, {}
    for reason in ("label_conflict", "duplicate"):
        for place in np.flatnonzero(of["reason"] == reason)[:THUMBNAILS].tolist():
            file = plan.root / plan.shard(int(of["split"][place]), int(of["shard"][place]))
            pixels = open_rows([file]).gather([int(of["row"][place])])[0]
            side = min(96, plan.image_size)
            small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
            found[place] = bytes(simplejpeg.encode_jpeg(small, quality=80))
    return found


def _read_parquet(file: Location) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(pa.BufferReader(file.read_bytes()))


__all__ = ["PreparedSet", "Split", "Survey", "find", "fingerprint_of", "prepare", "survey"]
