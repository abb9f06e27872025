"""Accuracy by slices of the photos: size, aspect ratio, brightness, sharpness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from catdog.evaluation.intervals import Interval, wilson
from catdog.evaluation.metrics import Array, correct
from catdog.report.results import ModelResult
from catdog.report.wording import DASH, significant


@dataclass(frozen=True)
class Cell:
    """One model on the photos of one bin."""

    n: int
    accuracy: float
    interval: Interval


@dataclass(frozen=True)
class Slice:
    """A bin of a property: its name, its range in words, a cell for each model's key."""

    name: str
    span: str
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Dimension:
    """A property of photos cut into bins; ``same`` says so where all photos are alike."""

    title: str
    unit: str
    bins: tuple[Slice, ...]
    same: str = ""


def dimensions(photos: pd.DataFrame, models: Sequence[ModelResult]) -> list[Dimension]:
    """Accuracies of ``models`` (of one run) by each property of ``photos``.

    Thirds of the test photos, so that each bin has enough of them; aspect by its shape.
    """
    evaluated = [model for model in models if model.files.test is not None]
    if not evaluated or photos.empty:
        return []
    known = photos.drop_duplicates("uri").set_index("uri")
    judged = {
        model.key: pd.Series(
            correct(model.files.test.labels, model.files.test.logits),
            index=model.files.test.uris,
        )
        for model in evaluated
        if model.files.test is not None
    }
    every = pd.Index([]).append([right.index for right in judged.values()]).unique()
    table = known.reindex(every)
    side = table[["width", "height"]].min(axis=1, skipna=False)
    grey, edges = 100 * table["brightness"], table["sharpness"]
    shades, focus = ("dark", "middle", "bright"), ("blurred", "middle", "sharp")
    found = [
        _thirds("size", "shorter side, pixels", ("small", "middle", "large"), side, judged),
        _aspect(table["width"] / table["height"], judged),
        _thirds("brightness", "mean brightness, % of white", shades, grey, judged),
        _thirds("sharpness", "strength of edges (Laplacian)", focus, edges, judged),
    ]
    return [dimension for dimension in found if dimension.bins or dimension.same]


def _thirds(
    title: str,
    unit: str,
    names: tuple[str, str, str],
    values: pd.Series,
    judged: dict[str, pd.Series],
) -> Dimension:
    """Bins at the terciles; where photos are too alike for three, two or none."""
    known = values.astype(float).dropna()
    if known.empty:
        return Dimension(title, unit, ())
    low, high = known.min(), known.max()
    if low == high:
        return Dimension(title, unit, (), f"All test photos have the same: {significant(low)}.")
    edges = np.unique(np.quantile(known, [0, 1 / 3, 2 / 3, 1], method="closest_observation"))
    # A bin holds what is above its lower edge; the first holds its edge as well.
    place = np.clip(np.searchsorted(edges, known.to_numpy(), side="left") - 1, 0, len(edges) - 2)
    labels = names if len(edges) == 4 else (names[0], names[2]) if len(edges) == 3 else (names[1],)
    bins = []
    for index, name in enumerate(labels):
        inside = known[place == index]
        span = f"{significant(inside.min())}{DASH}{significant(inside.max())}"
        bins.append(Slice(name, span, _cells(inside.index, judged)))
    return Dimension(title, unit, tuple(part for part in bins if part.cells))


def _aspect(ratio: pd.Series, judged: dict[str, pd.Series]) -> Dimension:
    known = ratio.astype(float).replace([np.inf, -np.inf], np.nan).dropna()
    if not known.empty and known.min() == known.max():
        alike = f"All test photos have the same: {significant(known.min())} to 1."
        return Dimension("aspect", "width to height", (), alike)
    shapes = {
        "upright": ("below 0.9 to 1", known < 0.9),
        "square": (f"0.9{DASH}1.1 to 1", (known >= 0.9) & (known <= 1.1)),
        "wide": ("above 1.1 to 1", known > 1.1),
    }
    bins = [
        Slice(name, span, _cells(known[inside].index, judged))
        for name, (span, inside) in shapes.items()
        if inside.any()
    ]
    return Dimension("aspect", "width to height", tuple(part for part in bins if part.cells))


def _cells(uris: pd.Index, judged: dict[str, pd.Series]) -> dict[str, Cell]:
    cells = {}
    for key, right in judged.items():
        inside: Array = right[right.index.isin(uris)].to_numpy()
        if inside.size:
            hits = int(inside.sum())
            cells[key] = Cell(inside.size, hits / inside.size, wilson(hits, inside.size))
    return cells
