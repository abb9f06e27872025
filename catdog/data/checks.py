"""What stops the data stage, each in one line for the user: before, and after all is seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from catdog.config import DataSettings
from catdog.data import sources
from catdog.data.labels import CLASSES
from catdog.data.verdicts import EXAMPLES, FileOutcomes
from catdog.errors import UserError
from catdog.storage import Location

_NUMBERED = tuple(enumerate(CLASSES))


def check_classes(listing: sources.Listing, counts: dict[str, int]) -> None:
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


def room(files: int, image_size: int) -> int:
    return files * (3 * image_size**2 + 512) + (1 << 20)


def check_room(listing: sources.Listing, settings: DataSettings, storage: Location) -> None:
    free = storage.free_bytes()
    needed = room(len(listing.files), settings.image_size)
    needed += listing.bytes() if listing.archive else 0
    if free is not None and needed > free:
        raise UserError(
            f"not enough disk under {storage}: the prepared photos need {needed / 2**30:.2f} GiB "
            f"and {free / 2**30:.2f} GiB are free; give another --storage or a smaller --image-size"
        )


@dataclass(frozen=True)
class Outcome:
    """What a preparation came to, as far as it may be too little.

    ``examples`` are a few files of each reason; ``kept`` counts good photos by class, ``splits``
    those of each split and class that training and evaluation see.
    """

    files: int
    rejected: dict[str, int]
    examples: dict[str, list[str]]
    kept: dict[str, int]
    splits: dict[str, dict[str, int]]

    @classmethod
    def of(cls, account: FileOutcomes) -> Outcome:
        kept = {name: int((account.kept & (account.labels == i)).sum()) for i, name in _NUMBERED}
        files, rejected = len(account.labels), account.rejected()
        return cls(files, rejected, account.examples(), kept, account.splits())

    @classmethod
    def of_tables(cls, manifest: dict[str, Any], photos: pa.Table, rejected: pa.Table) -> Outcome:
        """That of a set which was prepared before, perhaps with other limits."""
        labels = photos.column("label").to_numpy()
        kept = {name: int((labels == i).sum()) for i, name in _NUMBERED}
        examples: dict[str, list[str]] = {}
        columns = (rejected.column(name).to_pylist() for name in ("reason", "uri", "detail"))
        for reason, uri, detail in zip(*columns, strict=True):
            if len(known := examples.setdefault(reason, [])) < EXAMPLES:
                known.append(f"{uri}  {detail or ''}".rstrip())
        splits = manifest["splits"]
        return cls(manifest["files"], manifest["rejected"], examples, kept, splits)


def check_outcome(outcome: Outcome, settings: DataSettings) -> None:
    rejected, files = outcome.rejected, outcome.files
    reasons = tuple(
        line
        for reason, count in rejected.items()
        for line in (f"{reason}: {count}", *(f"    {name}" for name in outcome.examples[reason]))
    )
    labelled = files - rejected.get("no_label", 0)
    bad = sum(rejected.values()) - rejected.get("no_label", 0)
    if bad > settings.max_rejected * labelled:
        raise UserError(
            f"{bad} of {labelled} files were rejected ({bad / labelled:.0%}), more than the "
            f"{settings.max_rejected:.0%} allowed; look at the reasons, or raise --max-rejected",
            details=reasons,
        )
    for name, count in outcome.kept.items():
        if count < settings.min_per_class:
            raise UserError(
                f"{count} good photos of a {name} are left, fewer than {settings.min_per_class}; "
                "give more photos",
                details=reasons,
            )
    for split, classes in outcome.splits.items():
        for name, count in classes.items():
            if not count:
                raise UserError(
                    f"the {split} split has no {name}: its photos are too few that differ, and no "
                    "photo nearly equal to a test photo is used elsewhere; give more photos",
                    details=reasons,
                )
