"""Combine the verdicts on all files: duplicates, splits, held-back photos, and the tables.

Arrays in, tables out; nothing is decoded here but the few pairs whose hashes meet.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catdog.data.decoding import REASONS
from catdog.data.duplicates import groups_of, near_pairs
from catdog.data.labels import CLASSES
from catdog.data.splits import SPLITS, TEST

#: Files of each reason that are named where the job stops.
EXAMPLES = 3
#: (file numbers) → digest of the upright pixels at full size, or None, for each
PixelDigests = Callable[[list[int]], list[bytes | None]]
#: (labels, perceptual hashes) of photos → the split of each
SplitRule = Callable[[NDArray[np.int8], NDArray[np.uint64]], NDArray[np.int8]]


@dataclass
class FileOutcomes:
    """What became of every file. Arrays have one value a file, in the listing's order."""

    verdicts: dict[str, NDArray[Any]]
    labels: NDArray[np.int8]
    uris: NDArray[np.object_]
    split: NDArray[np.int8]  # -1 for a rejected file
    held_back: NDArray[np.bool_]
    near: NDArray[np.int64]  # number of a nearly equal kept photo, or -1

    @property
    def kept(self) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = self.verdicts["reason"] == None  # noqa: E711 (elementwise)
        return mask

    @property
    def usable(self) -> NDArray[np.bool_]:
        return self.kept & ~self.held_back

    def rejected(self) -> dict[str, int]:
        """Number of files by reason, in the order of the checks."""
        reasons = self.verdicts["reason"]
        counts = {reason: int((reasons == reason).sum()) for reason in REASONS}
        return {reason: count for reason, count in counts.items() if count}

    def splits(self) -> dict[str, dict[str, int]]:
        """Photos of each split and class that training and evaluation see."""
        usable = self.usable
        return {
            name: {
                animal: int((usable & (self.split == s) & (self.labels == c)).sum())
                for c, animal in enumerate(CLASSES)
            }
            for s, name in enumerate(SPLITS)
        }

    def contents(self) -> str:
        """Names what training and evaluation see: files' bytes and labels, split by split.

        Neither the photos' places nor their times are in it: the same files, copied anew, have
        the same name.
        """
        hashed = hashlib.sha256()
        for split in range(len(SPLITS)):
            rows = np.flatnonzero(self.usable & (self.split == split))
            hashed.update(f"{len(rows)} rows".encode())
            hashed.update(b"".join(self.verdicts["digest"][rows]))
            hashed.update(self.labels[rows].tobytes())
        return hashed.hexdigest()[:12]

    def flags(self) -> dict[str, int]:
        """Number of kept photos by flag."""
        marked = [f for text in self.verdicts["flags"][self.kept] for f in text.split(",") if f]
        return dict(sorted(Counter(marked).items()))

    def examples(self, count: int = EXAMPLES) -> dict[str, list[str]]:
        """The first files of each reason, with their detail."""
        found: dict[str, list[str]] = {}
        for reason in self.rejected():
            places = np.flatnonzero(self.verdicts["reason"] == reason)[:count]
            details = self.verdicts["detail"]
            found[reason] = [f"{self.uris[i]}  {details[i] or ''}".rstrip() for i in places]
        return found


def account_of(
    verdicts: pa.Table, files: pa.Table, digests: PixelDigests, rule: SplitRule
) -> FileOutcomes:
    """Find duplicates, assign splits and hold back near-duplicates, once all files are known.

    Args:
        verdicts: one row a file, in any order.
        files: the listing.
        digests: computes the digests of pixels where hashes meet.
        rule: splits the photos that are kept.
    """
    ordered = verdicts.sort_by("index")
    arrays = {name: _array(ordered.column(name)) for name in ordered.column_names}
    count = len(files)
    account = FileOutcomes(
        verdicts=arrays,
        labels=files.column("label").to_numpy(),
        uris=np.array(files.column("uri").to_pylist(), dtype=object),
        split=np.full(count, -1, np.int8),
        held_back=np.zeros(count, bool),
        near=np.full(count, -1, np.int64),
    )
    _reject_equal(account, digests)
    photos = np.flatnonzero(account.kept)
    account.split[photos] = rule(account.labels[photos], arrays["hash"][photos].astype(np.uint64))
    _hold_back(account)
    return account


def _array(column: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_integer(column.type) and column.null_count:
        column = column.fill_null(0)
    array: NDArray[Any] = column.to_numpy()
    return array


def _reject_equal(account: FileOutcomes, digests: PixelDigests) -> None:
    """Of equal pictures the first by path stays; if they are called cat and dog, none does."""
    arrays = account.verdicts
    photos = np.flatnonzero(account.kept)
    same = _equal_groups(arrays, photos, digests)
    order = np.argsort(same, kind="stable")
    for members in np.split(photos[order], np.flatnonzero(np.diff(same[order])) + 1):
        if len(members) < 2:
            continue
        first = account.uris[members[0]]
        if len(set(account.labels[members].tolist())) > 1:
            for place in members:
                other = next(o for o in members if account.labels[o] != account.labels[place])
                _reject(arrays, place, "label_conflict", f"the same picture: {account.uris[other]}")
        else:
            for place in members[1:]:
                _reject(arrays, place, "duplicate", f"the same picture: {first}")


def _reject(arrays: dict[str, NDArray[Any]], place: int, reason: str, detail: str) -> None:
    arrays["reason"][place], arrays["detail"][place] = reason, detail


def _equal_groups(
    arrays: dict[str, NDArray[Any]], photos: NDArray[np.int64], digests: PixelDigests
) -> NDArray[np.int64]:
    """A number for each photo, equal exactly where all pixels are equal."""
    hashes = arrays["hash"][photos].astype(np.uint64)
    near = groups_of(len(photos), near_pairs(hashes))
    files: list[bytes] = arrays["digest"][photos].tolist()
    shapes = zip(arrays["width"][photos].tolist(), arrays["height"][photos].tolist(), strict=True)
    # Only photos of equal size whose hashes meet can be equal; equal files are equal pictures.
    meeting: dict[tuple[int, tuple[int, int]], dict[bytes, int]] = {}
    for position, (group, shape) in enumerate(zip(near.tolist(), shapes, strict=True)):
        meeting.setdefault((group, shape), {}).setdefault(files[position], position)
    doubtful = [p for found in meeting.values() if len(found) > 1 for p in found.values()]
    keys: dict[bytes, bytes] = {}
    for position, digest in zip(doubtful, digests(photos[doubtful].tolist()), strict=True):
        keys[files[position]] = digest or files[position]
    numbers: dict[bytes, int] = {}
    return np.array([numbers.setdefault(keys.get(f, f), len(numbers)) for f in files], np.int64)


def _hold_back(account: FileOutcomes) -> None:
    """Mark near-duplicates, and hold back those of train and val that nearly equal a test photo.

    Equal hashes are in one split; what matters are hashes that nearly meet across splits.
    """
    arrays = account.verdicts
    photos = np.flatnonzero(account.kept)
    hashes = arrays["hash"][photos].astype(np.uint64)
    split = account.split[photos]
    unique, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    account.near[photos] = np.where(
        first[inverse] != np.arange(len(photos)), photos[first[inverse]], -1
    )
    pairs = near_pairs(unique)
    held = np.full(len(unique), -1, np.int64)
    for a, b in pairs.tolist():
        for one, other in ((a, b), (b, a)):
            place = photos[first[one]]
            if account.near[place] < 0:
                account.near[place] = photos[first[other]]
            if split[first[one]] != TEST and split[first[other]] == TEST:
                held[one] = photos[first[other]]
    partner = held[inverse]
    account.held_back[photos] = partner >= 0
    account.near[photos] = np.where(partner >= 0, partner, account.near[photos])


def photos_table(account: FileOutcomes) -> pa.Table:
    """``photos.parquet``: one row for each kept photo."""
    places = np.flatnonzero(account.kept)
    of = {name: values[places] for name, values in account.verdicts.items()}
    near = [account.uris[i] if i >= 0 else None for i in account.near[places]]
    return pa.table(
        {
            "uri": pa.array(account.uris[places], pa.string()),
            "label": account.labels[places],
            "split": pa.array([SPLITS[s] for s in account.split[places]], pa.string()),
            "held_back": account.held_back[places],
            "near_duplicate_of": pa.array(near, pa.string()),
            "width": of["width"].astype(np.int32),
            "height": of["height"].astype(np.int32),
            "brightness": of["brightness"].astype(np.float32),
            "sharpness": of["sharpness"].astype(np.float32),
            "flags": pa.array(of["flags"], pa.string()),
            "note": pa.array(of["note"], pa.string()),
            "size": of["size"].astype(np.int64),
            "hash": of["hash"].astype(np.uint64),
            "shard": of["shard"].astype(np.int32),
            "row": of["row"].astype(np.int32),
        }
    )


def rejected_table(account: FileOutcomes, thumbnails: dict[int, bytes], most: int) -> pa.Table:
    """``rejected.parquet``: one row for each rejected file, at most ``most`` pictures a reason."""
    places = np.flatnonzero(~account.kept)
    reasons = account.verdicts["reason"][places]
    pictures: list[bytes | None] = []
    shown: dict[str, int] = {}
    for place, reason in zip(places.tolist(), reasons.tolist(), strict=True):
        picture = account.verdicts["thumbnail"][place] or thumbnails.get(place)
        shown[reason] = shown.get(reason, 0) + (picture is not None)
        pictures.append(picture if shown[reason] <= most else None)
    return pa.table(
        {
            "uri": pa.array(account.uris[places], pa.string()),
            "reason": pa.array(reasons, pa.string()),
            "detail": pa.array(account.verdicts["detail"][places], pa.string()),
            "size": account.verdicts["size"][places].astype(np.int64),
            "thumbnail": pa.array(pictures, pa.binary()),
        }
    )
