"""A sweep as the report shows it: its trials, a chart for each setting that was tried, failures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from catdog.evaluation.intervals import holm, rank_correlation
from catdog.report.facts import code, setting, sweep_words
from catdog.report.load import Run
from catdog.report.svg import Plot, marker_swatch, percent_tick, series, series_marker, ticks
from catdog.report.wording import percent, plural, visible
from catdog.runs.records import Setting, Trial

#: Fewer trials have no rank correlation worth a word.
FEWEST_TRIALS = 5
#: So many values that are tried again and again are written one beside the other.
MOST_NAMES = 5


class _Tried(NamedTuple):
    """A setting's value in a trial, and what the trial came to."""

    value: Setting
    accuracy: float
    trial: Trial


@dataclass(frozen=True)
class SettingView:
    """What one setting did: a chart, and whether chance would do as well."""

    title: str
    chart: Markup
    words: str


@dataclass(frozen=True)
class SweepView:
    """A sweep as shown: trials best first and failed ones last, and charts.

    ``markers`` explain the charts: a marker for each number of unfrozen blocks. ``failures`` are
    pairs of a trial and its cause.
    """

    run: Run
    model: str
    trials: list[Trial]
    best: str | None
    keys: list[str]
    by_setting: list[SettingView]
    by_epoch: Markup | None
    markers: list[tuple[Markup, str]]
    any_stopped: bool
    failures: list[tuple[str, str]]
    words: str


def sweep_view(run: Run, name: str, price: float | None) -> SweepView:
    """The sweep over ``name``; ``price`` an hour, where it was given."""
    sweep = run.sweeps[name]
    best = sweep.best.id if sweep.best else None

    def place(trial: Trial) -> tuple[bool, bool, float]:
        return trial.has_failed, trial.id != best, -(trial.val_accuracy or -1.0)

    trials = sorted(sweep.trials, key=place)
    kinds = _block_kinds(trials)
    return SweepView(
        run=run,
        model=name,
        trials=trials,
        best=best,
        keys=list(dict.fromkeys(key for trial in trials for key in trial.config)),
        by_setting=by_setting(trials, best),
        by_epoch=trial_curves(trials, best),
        markers=[
            (marker_swatch(index), f"{kind} {'block' if kind == '1' else 'blocks'} unfrozen")
            for index, kind in enumerate(kinds)
        ],
        any_stopped=any(trial.status == "stopped" for trial in trials),
        failures=[
            (visible(trial.id), visible(trial.error)) for trial in trials if trial.error is not None
        ],
        words=sweep_words(run, sweep, price),
    )


def by_setting(trials: Sequence[Trial], best: str | None) -> list[SettingView]:
    """A chart for each setting of which two values or more came to a result."""
    tried: dict[str, list[_Tried]] = {}
    for trial in trials:
        if trial.val_accuracy is not None and not trial.has_failed:
            for key, value in trial.config.items():
                tried.setdefault(key, []).append(_Tried(value, trial.val_accuracy, trial))
    varied = {
        key: points
        for key, points in tried.items()
        if len({_rank(point.value) for point in points}) > 1
    }
    found = {
        key: rank_correlation(
            [_rank(point.value) for point in points], [point.accuracy for point in points]
        )
        for key, points in varied.items()
        if len(points) >= FEWEST_TRIALS
    }
    corrected = dict(zip(found, holm([pair.p for pair in found.values()]), strict=True))
    return [
        SettingView(
            code(key),
            _chart(key, points, _block_kinds(trials), best),
            _association(found[key].rho, corrected[key], len(points), len(found))
            if key in found
            else "Too few trials to tell what it did.",
        )
        for key, points in varied.items()
    ]


def _association(rho: float, p: float, trials: int, settings: int) -> str:
    """What the ranks of a setting and of the accuracy have in common, and what chance would do."""
    shown = f"{round(rho, 2) + 0.0:+.2f}".replace("-", "−")
    words = f"Rank correlation {shown} over {plural(trials, 'trial')}, p = {p:.2g}"
    if settings > 1:
        words += f" corrected for {plural(settings, 'setting')} (Holm)"
    return words + (": chance alone does as much." if p > 0.05 else ".")


def _rank(value: Setting) -> float:
    """Of a setting's value: numbers as they are, ``all`` (blocks) above every number."""
    return float(value) if isinstance(value, (int, float)) else math.inf


def _chart(key: str, points: Sequence[_Tried], kinds: Sequence[str], best: str | None) -> Markup:
    """Validation accuracy over a setting; the ring is the best trial."""
    accuracies = [point.accuracy for point in points]
    room = 0.15 * (max(accuracies) - min(accuracies)) or 0.01
    y_range = min(accuracies) - room, min(1.0, max(accuracies) + room)
    plot, places = _axis(key, [point.value for point in points], y_range)
    plot.y_axis("validation accuracy, %", ticks(*y_range, 4), percent_tick)
    for value, accuracy, trial in points:
        index = kinds.index(_blocks(trial))
        at, epochs = places[_rank(value)], plural(trial.epochs, "epoch")
        hint = f"trial {trial.id}: {percent(accuracy)} at {setting(value)}, {epochs}"
        plot.mark(at, accuracy, series_marker(index), series(index), hint)
        if trial.id == best:
            plot.mark(at, accuracy, "circle", "ring", radius=8)
    told = max(points, key=lambda point: point.accuracy)
    words = f"best {percent(told.accuracy)} at {setting(told.value)}"
    return plot.svg(f"Trials by {code(key)}: {plural(len(points), 'trial')}, {words}.")


def _axis(
    key: str, tried: Sequence[Setting], y_range: tuple[float, float]
) -> tuple[Plot, dict[float, float]]:
    """A plot with its x axis, and the place of each value: by name, by logarithm, or as it is."""
    names = {_rank(value): setting(value) for value in tried}
    values = sorted(names)
    if not math.isfinite(values[-1]) or len(values) <= min(MOST_NAMES, len(tried) - 1):
        plot = Plot((0.5, len(values) + 0.5), y_range)
        texts = {float(place): names[value] for place, value in enumerate(values, 1)}
        plot.x_axis(code(key), texts, lambda place: texts[place])
        return plot, dict(zip(values, texts, strict=True))
    if values[0] > 0 and values[-1] / values[0] > 4:
        low, high = values[0] / 1.5, values[-1] * 1.5
        plot = Plot((low, high), y_range, log_x=True)
        plot.x_axis(code(key), _log_ticks(low, high), _rate_tick)
    else:
        margin = 0.06 * (values[-1] - values[0])
        plot = Plot((values[0] - margin, values[-1] + margin), y_range)
        plot.x_axis(code(key), ticks(values[0], values[-1], 5))
    return plot, dict(zip(values, values, strict=True))


def trial_curves(trials: Sequence[Trial], best: str | None) -> Markup | None:
    """Validation accuracy of each trial epoch by epoch: what was stopped, and why."""
    curves = {trial.id: [row.val_accuracy for row in trial.history] for trial in trials}
    curves = {key: values for key, values in curves.items() if any(map(math.isfinite, values))}
    longest = max(map(len, curves.values()), default=0)
    if len(curves) < 2 or longest < 2:
        return None
    known = [value for values in curves.values() for value in values if math.isfinite(value)]
    room = 0.08 * (max(known) - min(known)) or 0.01
    y_range = min(known) - room, min(1.0, max(known) + room)
    plot = Plot((0.8, longest + 0.2), y_range)
    plot.y_axis("validation accuracy, %", ticks(*y_range, 4), percent_tick)
    plot.x_axis("epoch", [t for t in ticks(1, longest, 6) if t == int(t)])
    # The best is drawn last, over the others.
    for name in sorted(curves, key=lambda name: name == best):
        style = "trial kept" if name == best else "trial"
        points = [(float(epoch), value) for epoch, value in enumerate(curves[name], 1)]
        plot.line(points, style)
        shown = [point for point in points if math.isfinite(point[1])]
        plot.mark(*shown[-1], "circle", style, f"trial {name}", radius=3)
    return plot.svg(f"Validation accuracy of {plural(len(curves), 'trial')} epoch by epoch.")


def _blocks(trial: Trial) -> str:
    return str(trial.config.get("unfrozen_blocks", ""))


def _block_kinds(trials: Sequence[Trial]) -> list[str]:
    """The numbers of unfrozen blocks that were tried, one marker each."""
    return sorted({_blocks(trial) for trial in trials})


def _rate_tick(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if value < 1e-3 else f"{value:g}"


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 3) if 20 < high / low < 300 else (1,) if high / low >= 300 else (1, 2, 5)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
