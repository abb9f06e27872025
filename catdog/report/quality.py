"""The report's section on data: rejected photos, duplicates, label conflicts, held-back photos."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pandas as pd

from catdog.report.load import Run
from catdog.report.photos import CLASSES, data_uri
from catdog.report.wording import file_name, visible

#: Rows shown of each list; the whole of it lies in the run directory's ``data/`` folder.
MOST_PICTURES, MOST_ROWS = 18, 40


@dataclass(frozen=True)
class Rejected:
    name: str
    uri: str
    reason: str
    detail: str
    image: str


@dataclass(frozen=True)
class NearDuplicate:
    """A photo nearly equal to another; ``conflict`` says that their labels differ."""

    name: str
    label: str
    other: str
    other_label: str
    held_back: bool

    @property
    def conflict(self) -> bool:
        return self.label != self.other_label


@dataclass(frozen=True)
class Quality:
    """Data quality of one run; the counts are of all photos, the lists are cut.

    ``rejected`` come with pixels first; ``flags`` counts what inspection remarked on kept photos.
    """

    reasons: dict[str, int]
    files: int | None
    kept: int | None
    held_back: int | None
    splits: dict[str, dict[str, int]]
    pictures: tuple[Rejected, ...]
    others: tuple[Rejected, ...]
    rejected: int
    doubles: tuple[NearDuplicate, ...]
    doubled: int
    conflicts: int
    flags: dict[str, int]


def inspect(run: Run) -> Quality:
    """Collect the view of ``run``'s data; missing files leave their parts empty."""
    manifest = run.manifest
    reasons = manifest.rejected
    pictures, others = _rejected(run.rejected)
    doubles = _doubles(run.photos)
    return Quality(
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
        files=manifest.files,
        kept=manifest.kept,
        held_back=manifest.held_back,
        splits=manifest.splits,
        pictures=tuple(pictures[:MOST_PICTURES]),
        others=tuple((pictures[MOST_PICTURES:] + others)[:MOST_ROWS]),
        rejected=sum(reasons.values()),
        doubles=tuple(doubles[:MOST_ROWS]),
        doubled=len(doubles),
        conflicts=sum(double.conflict for double in doubles),
        flags=manifest.flags,
    )


def _rejected(table: pd.DataFrame) -> tuple[list[Rejected], list[Rejected]]:
    """Rejected files with and without pixels, one of each reason in turn so that all are seen."""
    turn = table.groupby("reason").cumcount()
    rows = table.assign(turn=turn).sort_values(["turn", "reason"], kind="stable")
    pictures: list[Rejected] = []
    others: list[Rejected] = []
    for row in rows.to_dict("records"):
        thumbnail = row.get("thumbnail")
        # Beyond what is shown no picture needs encoding.
        wanted = isinstance(thumbnail, bytes) and len(pictures) < MOST_PICTURES
        image = data_uri(thumbnail) if wanted and isinstance(thumbnail, bytes) else ""
        uri, detail = str(row["uri"]), row.get("detail")
        item = Rejected(
            name=file_name(uri),
            uri=visible(uri),
            reason=visible(str(row["reason"])),
            detail=_short(detail) if isinstance(detail, str) else "",
            image=image,
        )
        (pictures if image else others).append(item)
    return pictures, others


def _short(detail: str) -> str:
    """A reason's details with the last part of each path in them, for folders are long."""
    return visible(re.sub(r"(?:[a-z0-9]+:/)?/\S*/(?=\S)", "", detail))[:160]


def _doubles(photos: pd.DataFrame) -> list[NearDuplicate]:
    """Near duplicates, those with contradicting labels first."""
    labels = dict(zip(photos["uri"], photos["label"], strict=True))
    rows = photos[photos["near_duplicate_of"].notna()]
    found = [
        NearDuplicate(
            name=file_name(row["uri"]),
            label=CLASSES[row["label"]],
            other=file_name(row["near_duplicate_of"]),
            other_label=CLASSES[labels[row["near_duplicate_of"]]],
            held_back=row["held_back"],
        )
        for row in rows.to_dict("records")
    ]
    return sorted(found, key=lambda double: not double.conflict)
