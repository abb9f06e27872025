"""What stops the data stage, each in one line for the user: before, and after all is seen."""

from __future__ import annotations

from catdog.config import DataSettings
from catdog.data import sources
from catdog.data.labels import CLASSES
from catdog.data.verdicts import Account
from catdog.errors import UserError
from catdog.storage import Location


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


def check_account(account: Account, settings: DataSettings) -> None:
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
