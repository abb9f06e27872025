"""The report's charts, each from results to one SVG with its description in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Literal, TypeAlias

import numpy as np
from markupsafe import Markup

from catdog.evaluation import intervals, metrics
from catdog.report.results import ModelResult
from catdog.report.slices import Dimension
from catdog.report.svg import Plot, Point, percent_tick, series, series_marker, ticks
from catdog.report.wording import percent, plural, title, visible
from catdog.runs.records import Epoch

Measured: TypeAlias = Literal["accuracy", "loss"]

PHASE_NAMES = {"scratch": "from scratch", "probe": "probe", "finetune": "fine-tuning"}


def training_range(models: Sequence[ModelResult], what: Measured) -> tuple[float, float]:
    """One y range for all models, so that their curves can be compared by eye.

    A few wild first losses would flatten everything else: the top is the 98th percentile.
    """
    values = [
        value
        for model in models
        for row in model.files.history
        for value in _measures(row, what)
        if math.isfinite(value)
    ]
    if not values:
        return (0.0, 1.0)
    low, high = min(values), float(np.quantile(values, 0.98))
    room = 0.06 * (high - low) or 0.05
    return low - room, high + room


def _measures(row: Epoch, what: Measured) -> tuple[float, float]:
    """Of an epoch, on training and on validation."""
    return (row.accuracy, row.val_accuracy) if what == "accuracy" else (row.loss, row.val_loss)


def training_curve(
    model: ModelResult, what: Measured, y_range: tuple[float, float], index: int
) -> Markup:
    """``what`` (``accuracy`` or ``loss``) over all epochs: training dashed, validation solid.

    Phases are bands, the best epoch a ring, restarts dotted lines.
    """
    rows = model.files.history
    plot = Plot((0.5, len(rows) + 0.5), y_range)
    low, high = y_range
    bands = phases(rows)
    for number, (phase, first, last) in enumerate(bands):
        plot.band(first - 0.5, last + 0.5, phase, f"phase p{number % 2}")
    form = percent_tick if what == "accuracy" else "{:g}".format
    plot.y_axis("accuracy, %" if what == "accuracy" else "loss, nats", ticks(low, high, 4), form)
    plot.x_axis("epoch", [t for t in ticks(1, len(rows), 6) if t == int(t)] or [1])
    for event in model.run.restarts(model.name):
        # The job restarts training, not the probe before it, and says which epoch was safe.
        first = _position(rows, rows[-1].phase, 1) or 1
        plot.vertical(min(first - 0.5 + event.epoch, len(rows)), "restart")
    for side, style in enumerate(("train", f"val {series(index)}")):
        values = [_measures(row, what)[side] for row in rows]
        plot.line([(i, min(high, max(low, value))) for i, value in enumerate(values, 1)], style)
    best = _best(model)
    if best:
        value = _measures(rows[best - 1], what)[1]
        if math.isfinite(value):
            plot.mark(best, min(high, max(low, value)), "circle", "best", f"best epoch: {best}")
    return plot.svg(_curve_words(model, what, best))


def _curve_words(model: ModelResult, what: Measured, best: int | None) -> str:
    rows = model.files.history
    last = _measures(rows[-1], what)[1]
    end = f"validation ends at {last:.3f}" if math.isfinite(last) else "no validation at the end"
    names = ", then ".join(phase for phase, _, _ in phases(rows))
    kept = f"; the best epoch is number {best}" if best else ""
    return f"{title(model.name)}: {what} of {plural(len(rows), 'epoch')} ({names}); {end}{kept}."


def phases(rows: Sequence[Epoch]) -> list[tuple[str, int, int]]:
    """(name, first, last) of each phase in turn; positions count from 1 over all phases."""
    numbered = groupby(enumerate(rows, 1), key=lambda item: item[1].phase)
    found = []
    for phase, group in numbered:
        positions = [position for position, _ in group]
        found.append((PHASE_NAMES.get(phase, visible(phase)), positions[0], positions[-1]))
    return found


def _best(model: ModelResult) -> int | None:
    """Position of the kept epoch among all epochs, from 1."""
    best = model.files.facts.best
    return _position(model.files.history, best.phase, best.epoch)


def _position(rows: Sequence[Epoch], phase: str, epoch: int) -> int | None:
    for position, row in enumerate(rows, 1):
        if (row.phase, row.epoch) == (phase, epoch):
            return position
    return None


def roc(models: Sequence[ModelResult], styles: dict[str, int], corner: float = 1.0) -> Markup:
    """ROC curves of all models; with a ``corner`` of 0.25 the upper left of the square, larger."""
    plot = Plot((0, corner), (1 - corner, 1), height=330)
    at = [corner * part / 5 for part in range(6)]
    plot.y_axis("dogs found, %", [1 - value for value in at], percent_tick)
    plot.x_axis("cats called dogs, %", at, percent_tick)
    if corner == 1:
        plot.line([(0, 0), (1, 1)], "chance")
    words = []
    for model in models:
        test, files = model.test, model.files.test
        if test is None or files is None or test.auc is None:
            continue
        false, true = metrics.roc_curve(files.labels, files.logits)
        points = [(float(x), float(y)) for x, y in zip(false, true, strict=True)]
        plot.line(_within(points, corner), series(styles[model.key]))
        words.append(f"{title(model.name)} {test.auc:.3f}")
    part = "ROC curves" if corner == 1 else "Upper left corner of the ROC curves"
    return plot.svg(f"{part}. Area under the curve: {', '.join(words)}.")


def _within(points: Sequence[Point], corner: float) -> list[Point]:
    """The stretch of a rising curve that lies in the upper left corner, cut at its edges."""
    if corner == 1:
        return list(points)
    cut: list[Point] = []
    for (x0, y0), (x1, y1) in pairwise(points):
        start = max(0.0, (1 - corner - y0) / (y1 - y0) if y1 > y0 else 0.0)
        end = min(1.0, (corner - x0) / (x1 - x0) if x1 > x0 else 1.0)
        if y1 >= 1 - corner and x0 <= corner and start <= end:
            cut += [(x0 + s * (x1 - x0), y0 + s * (y1 - y0)) for s in (start, end)]
    return cut


def reliability(model: ModelResult) -> Markup:
    """Share of dogs over the probability given, before and after temperature scaling.

    A marker's size grows with the photos in its bin; the last series has Wilson's intervals, for a
    bin of two photos is no evidence of anything.
    """
    plot = Plot((0, 1), (0, 1), height=330)
    at = [0, 0.25, 0.5, 0.75, 1]
    files, test = model.files.test, model.test
    if files is None or test is None:
        return Markup()
    plot.y_axis("really dogs, %", at, percent_tick)
    plot.x_axis("probability of dog given, %", at, percent_tick)
    plot.line([(0, 0), (1, 1)], "chance")
    kinds = {"before": metrics.reliability(files.labels, files.logits)}
    words = f"calibration error {percent(test.ece)} as trained"
    if model.calibration is not None:
        scaled = files.logits / model.calibration.temperature.value
        kinds["after"] = metrics.reliability(files.labels, scaled)
        words += f", {percent(model.calibration.ece)} after temperature scaling"
    whiskers = list(kinds)[-1]
    for style, bins in kinds.items():
        for part in bins:
            if style == whiskers:
                ends = intervals.wilson(round(part.dogs * part.n), part.n)
                plot.interval(part.probability, ends.low, ends.high, style)
            _bin_mark(plot, part, style, max(each.n for each in bins))
    return plot.svg(f"{title(model.name)}: reliability diagram, {words}.")


def _bin_mark(plot: Plot, part: metrics.Bin, style: str, most: int) -> None:
    hint = (
        f"{plural(part.n, 'photo')} at {percent(part.probability, 0)}: {percent(part.dogs, 0)} dogs"
    )
    marker = "circle" if style == "after" else "square"
    radius = 2.5 + 3 * math.sqrt(part.n / most)
    plot.mark(part.probability, part.dogs, marker, style, hint, radius=radius)


def slice_chart(dimension: Dimension, styles: dict[str, int]) -> Markup:
    """Accuracy with its interval in each bin of one property, models side by side."""
    n = len(dimension.bins)
    lows = [cell.interval.low for part in dimension.bins for cell in part.cells.values()]
    bottom = math.floor(10 * min([*lows, 0.9])) / 10
    plot = Plot((0.5, n + 0.5), (bottom, 1.0))
    plot.y_axis("accuracy, %", ticks(bottom, 1.0, 4), percent_tick)
    names = {float(i): part.name for i, part in enumerate(dimension.bins, 1)}
    plot.x_axis(dimension.unit, names, lambda value: names[value])
    words = []
    for i, part in enumerate(dimension.bins, 1):
        middle = (len(part.cells) - 1) / 2
        for place, (key, cell) in enumerate(part.cells.items()):
            shift, index = 13 * (place - middle), styles[key]
            plot.interval(i, cell.interval.low, cell.interval.high, series(index), shift)
            hint = f"{title(key)}, {part.name}: {percent(cell.accuracy)} of {cell.n}"
            plot.mark(i, cell.accuracy, series_marker(index), series(index), hint, shift=shift)
            words.append(hint)
    return plot.svg(f"Accuracy by {dimension.title}. {'; '.join(words)}.")
