"""Checks that stop the data stage with one line for the user, before and after inspection."""

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
    """The counts of a preparation that may stop the job.

    ``examples`` are a few files of each reason; ``kept`` counts good photos by class, ``splits``
    those of each split and class that training and evaluation see, ``held_back`` the others.
    """

    files: int
    rejected: dict[str, int]
    examples: dict[str, list[str]]
    kept: dict[str, int]
    splits: dict[str, dict[str, int]]
    held_back: int

    @classmethod
    def of(cls, account: FileOutcomes) -> Outcome:
        kept = {name: int((account.kept & (account.labels == i)).sum()) for i, name in _NUMBERED}
        files, rejected = len(account.labels), account.rejected()
        held_back = int(account.held_back.sum())
        return cls(files, rejected, account.examples(), kept, account.splits(), held_back)

    @classmethod
    def of_tables(cls, manifest: dict[str, Any], photos: pa.Table, rejected: pa.Table) -> Outcome:
        """The outcome of a set that was prepared earlier, perhaps with other limits."""
        labels = photos.column("label").to_numpy()
        kept = {name: int((labels == i).sum()) for i, name in _NUMBERED}
        examples: dict[str, list[str]] = {}
        columns = (rejected.column(name).to_pylist() for name in ("reason", "uri", "detail"))
        for reason, uri, detail in zip(*columns, strict=True):
            if len(known := examples.setdefault(reason, [])) < EXAMPLES:
                known.append(f"{uri}  {detail or ''}".rstrip())
        splits, held_back = manifest["splits"], manifest["held_back"]
        return cls(manifest["files"], manifest["rejected"], examples, kept, splits, held_back)

    def account(self) -> dict[str, Any]:
        """The numbers as ``catdog prepare --json`` writes them."""
        return {
            "files": self.files,
            "kept": sum(self.kept.values()),
            # Operating systems' litter is not listed, and every listed file is judged.
            "ignored": 0,
            "rejected": self.rejected,
            "splits": self.splits,
            "held_back": self.held_back,
        }


class UnusablePhotos(UserError):
    """Photos that are too few or too bad to train with, after all of them were looked at."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        reasons = tuple(
            line
            for reason, count in outcome.rejected.items()
            for line in (
                f"{reason}: {count}",
                *(f"    {name}" for name in outcome.examples[reason]),
            )
        )
        super().__init__(message, details=reasons)
        self.outcome = outcome


def check_outcome(outcome: Outcome, settings: DataSettings) -> None:
    """Whether there is enough left to train with.

    Raises:
        UnusablePhotos: too many were rejected, or too few of a class are left.
    """
    rejected, files = outcome.rejected, outcome.files
    labelled = files - rejected.get("no_label", 0)
    bad = sum(rejected.values()) - rejected.get("no_label", 0)
    if bad > settings.max_rejected * labelled:
        raise UnusablePhotos(
            f"{bad} of {labelled} files were rejected ({bad / labelled:.0%}), more than the "
            f"{settings.max_rejected:.0%} allowed; look at the reasons, or raise --max-rejected",
            outcome,
        )
    for name, count in outcome.kept.items():
        if count < settings.min_per_class:
            raise UnusablePhotos(
                f"{count} good photos of a {name} are left, fewer than {settings.min_per_class}; "
                "give more photos",
                outcome,
            )
    for split, classes in outcome.splits.items():
        for name, count in classes.items():
            if not count:
                raise UnusablePhotos(
                    f"the {split} split has no {name}: its photos are too few that differ, and no "
                    "photo nearly equal to a test photo is used elsewhere; give more photos",
                    outcome,
                )
