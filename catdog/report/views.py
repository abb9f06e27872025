"""The view model of the pages: charts, galleries and table rows from the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from markupsafe import Markup

from catdog.report import charts
from catdog.report.conclusion import Conclusion, name_of
from catdog.report.facts import origin_words, repeat_rows, weights_words
from catdog.report.load import Run
from catdog.report.photos import confident_mistakes, missed_by_all, most_uncertain
from catdog.report.quality import inspect
from catdog.report.results import ModelResult, Report
from catdog.report.slices import Cell, dimensions
from catdog.report.svg import series, strip, swatch
from catdog.report.sweeps import sweep_view
from catdog.report.wording import listed, plural, visible

#: What the templates name.
View: TypeAlias = dict[str, Any]


def context(report: Report, verdict: Conclusion) -> View:
    """Everything that the templates name."""
    styles = {model.key: index for index, model in enumerate(report.models)}
    ready = report.evaluated
    ordered = ready + [model for model in report.models if model not in ready]
    training = _training(ordered, styles)
    view: View = {
        "report": report,
        "verdict": verdict,
        "ordered": ordered,
        "ready_n": ready[0].test.n if ready and ready[0].test else 0,
        "same_photos": len({model.test.n for model in ready if model.test}) <= 1,
        "several": len(report.runs) > 1,
        "name": lambda model: name_of(model, report),
        "run_name": report.label,
        "swatch": lambda model: swatch(styles[model.key]),
        "weights_words": weights_words,
        "origin_words": origin_words,
        "run_title": listed([report.label(run) for run in report.runs]),
        "run_line": _run_line(report),
        "any_seeds": any(model.seeds for model in report.models),
        "any_seed_pairs": any(pair.over_seeds for pair in report.pairs),
        "training": training,
        "any_restarts": any(run.restarts() for run in report.runs),
        "exports": [(m, name, e) for m in ordered for name, e in m.files.exports.items()],
        "roc": _roc(ready, styles),
        "reliability": [(model, charts.reliability(model)) for model in ready],
        "missed": missed_by_all(ready),
        "mistakes": [(model, confident_mistakes(model)) for model in ready],
        "uncertain": most_uncertain(ready),
        "slices": _slices(report, styles),
        "quality": [(run, inspect(run)) for run in report.runs],
        "sweeps": [
            sweep_view(run, name, report.price_per_hour)
            for run in report.runs
            for name in run.sweeps
        ],
        "repeats": [(run, repeat_rows(run)) for run in report.runs],
        **_strips(report, styles),
    }
    return view | {"contents": _contents(view)}


def _run_line(report: Report) -> str:
    run = report.first
    when = (run.record.finished_at or run.record.started_at or "")[:10]
    photos = run.manifest.kept
    parts = [
        "Runs " + listed([report.label(each) for each in report.runs])
        if len(report.runs) > 1
        else f"Run {report.label(run)}",
        visible(when),
        plural(photos, "picture") if photos is not None else "",
    ]
    return " · ".join(part for part in parts if part)


def _contents(view: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sections that are there, with their short names."""
    report: Report = view["report"]
    entries = [
        ("numbers", "Results", True),
        ("cost", "Cost", True),
        ("pairs", "Pairs", bool(report.pairs)),
        ("training", "Training", bool(view["training"])),
        ("errors", "Errors", bool(report.evaluated)),
        ("calibration", "Calibration", bool(report.evaluated)),
        ("photos", "Photos", bool(report.evaluated)),
        ("slices", "Slices", bool(view["slices"])),
        ("data", "Data", True),
        ("sweep", "Sweep", bool(view["sweeps"])),
        ("repeat", "Repeat", True),
    ]
    return [(anchor, text) for anchor, text, there in entries if there]


def _strips(report: Report, styles: Mapping[str, int]) -> View:
    """Makers of the intervals drawn in tables, each kind on one scale for all rows."""
    results = [m.test for m in report.evaluated if m.test] + [e.test for e in report.ensembles]
    low = min([result.accuracy_ci95.low for result in results], default=0.0)
    scale = (max(0.0, low - 0.02), 1.0)
    ends = [end for pair in report.pairs for end in pair.result.ci95]
    span = min([*ends, 0.0]) - 0.01, max([*ends, 0.0]) + 0.01

    def of_model(model: ModelResult) -> Markup:
        assert model.test is not None
        ends = model.test.accuracy_ci95
        return strip(ends.low, model.test.accuracy, ends.high, scale, series(styles[model.key]))

    def plain(test: Any) -> Markup:
        ends = test.accuracy_ci95
        return strip(ends.low, test.accuracy, ends.high, scale, "plain")

    def of_pair(pair: Any) -> Markup:
        ends = pair.result.ci95
        return strip(ends.low, pair.result.difference, ends.high, span, "plain", zero=True)

    return {
        "strip_ends": scale,
        "accuracy_strip": of_model,
        "plain_strip": plain,
        "pair_strip": of_pair,
    }


def _roc(models: list[ModelResult], styles: dict[str, int]) -> list[tuple[Markup, str]]:
    """The curves, and where they crowd into the corner that corner, with a caption each."""
    areas = [model.test.auc for model in models if model.test and model.test.auc is not None]
    if not areas:
        return []
    found = [(charts.roc(models, styles), "Dogs found against cats called dogs, every threshold.")]
    if max(areas) > 0.9:
        part = 0.25 if max(areas) < 0.985 else 0.1
        times = {0.25: "four", 0.1: "ten"}[part]
        caption = f"The upper left corner, {times} times larger."
        found.append((charts.roc(models, styles, part), caption))
    return found


def _training(
    models: list[ModelResult], styles: Mapping[str, int]
) -> list[tuple[ModelResult, Markup, Markup, str]]:
    models = [model for model in models if model.files.history]
    ranges = {what: charts.training_range(models, what) for what in ("accuracy", "loss")}
    return [
        (
            model,
            charts.training_curve(model, "accuracy", ranges["accuracy"], index),
            charts.training_curve(model, "loss", ranges["loss"], index),
            _training_words(model),
        )
        for model in models
        for index in [styles[model.key]]
    ]


def _training_words(model: ModelResult) -> str:
    phases = charts.phases(model.files.history)
    words = []
    if len(phases) > 1:
        spans = [f"{name} {plural(last - first + 1, 'epoch')}" for name, first, last in phases]
        words.append(f"{listed(spans).capitalize()}.")
    best = model.files.facts.best
    if best.epoch:
        phase = charts.PHASE_NAMES.get(best.phase, visible(best.phase))
        words.append(f"Best: epoch {best.epoch} ({phase}).")
    for event in model.run.restarts(model.name):
        where = f"after epoch {event.epoch}" if event.epoch else "from the beginning"
        words.append(f"Restart {where}.")
    return " ".join(words)


def _slices(
    report: Report, styles: dict[str, int]
) -> list[tuple[Run, list[ModelResult], list[Any], list[tuple[str, ModelResult, Cell]]]]:
    found = []
    for run in report.runs:
        models = [model for model in report.evaluated if model.run is run]
        parts = dimensions(run.photos, models)
        if not parts:
            continue
        by_key = {model.key: model for model in models}
        drawn = [(part, charts.slice_chart(part, styles) if part.bins else None) for part in parts]
        rows = [
            (f"{part.title}: {piece.name}", by_key[key], cell)
            for part in parts
            for piece in part.bins
            for key, cell in piece.cells.items()
        ]
        found.append((run, models, drawn, rows))
    return found
