"""What the pages show, prepared from the results: charts, galleries, rows in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from markupsafe import Markup

from catdog.report import charts
from catdog.report.load import Run, Tree
from catdog.report.photos import confident_mistakes, missed_by_all, most_uncertain
from catdog.report.quality import inspect
from catdog.report.results import ModelResult, Report
from catdog.report.slices import Cell, dimensions
from catdog.report.svg import MARKERS, marker_shape, strip, swatch, trusted
from catdog.report.verdict import Verdict, name_of
from catdog.report.wording import (
    MISSING,
    count,
    decimal,
    duration,
    listed,
    megabytes,
    percent,
    plural,
    significant,
    title,
    visible,
)

#: What the codes in the run's files mean, for people.
CODES = {
    "unreadable": "could not be read",
    "empty": "empty file",
    "not_an_image": "not an image",
    "too_many_pixels": "too many pixels",
    "truncated": "cut off",
    "corrupt": "damaged",
    "too_small": "too small",
    "no_content": "one flat colour",
    "no_label": "neither cat nor dog in its name",
    "label_conflict": "same picture with both labels",
    "duplicate": "same picture twice",
    "learning_rate": "Learning rate",
    "unfrozen_blocks": "Unfrozen blocks",
    "weight_decay": "Weight decay",
    "dropout": "Dropout",
}


def code(value: Any) -> str:
    """A reason, flag, setting or status as words."""
    if value is None:
        return MISSING
    text = str(value)
    return CODES.get(text) or visible(text.replace("_", " "))


def setting(value: Any) -> str:
    """A hyperparameter's value: ``0.000213`` for a float, the rest as it is."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.2e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return visible(str(value))


def context(report: Report, verdict: Verdict) -> dict[str, Any]:
    """Everything that the templates name."""
    styles = {model.key: index for index, model in enumerate(report.models)}
    ready = report.evaluated
    training = _training(report)
    view: dict[str, Any] = {
        "report": report,
        "verdict": verdict,
        "several": len(report.runs) > 1,
        "name": lambda model: name_of(model, report),
        "swatch": lambda model: swatch(styles[model.key]),
        "weights_words": weights_words,
        "run_title": listed([visible(run.name) for run in report.runs]),
        "run_line": _run_line(report),
        "any_seeds": any(model.seeds for model in report.models),
        "any_seed_pairs": any(pair.over_seeds for pair in report.pairs),
        "training": training,
        "any_restarts": any(run.events_of("restart") for run in report.runs),
        "roc": charts.roc(ready, styles) if any(m.test and m.test.auc for m in ready) else None,
        "reliability": [(model, charts.reliability(model)) for model in ready],
        "missed": missed_by_all(ready),
        "mistakes": [(model, confident_mistakes(model)) for model in ready],
        "uncertain": most_uncertain(ready),
        "slices": _slices(report, styles),
        "quality": [(run, inspect(run)) for run in report.runs],
        "sweeps": [_sweep(run, name) for run in report.runs for name in run.sweeps],
        "repeats": [(run, repeat_rows(run)) for run in report.runs],
        **_strips(report, styles),
    }
    return view | {"contents": _contents(view)}


def weights_words(model: ModelResult) -> str:
    if model.name == "base_cnn":
        return "trained from scratch"
    if model.weights is None:
        return ""
    known = {"none": "random weights", "imagenet": "ImageNet weights"}
    return known.get(model.weights, f"weights: {visible(model.weights.rpartition('/')[2])}")


def _run_line(report: Report) -> str:
    run = report.first
    when = str(run.record.get("finished_at") or run.record.get("started_at") or "")[:10]
    photos = run.manifest.get("kept")
    parts = [
        "Runs " + listed([visible(r.name) for r in report.runs])
        if len(report.runs) > 1
        else f"Run {visible(run.name)}",
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


def _strips(report: Report, styles: Mapping[str, int]) -> dict[str, Any]:
    """Makers of the intervals drawn in tables, each kind on one scale for all rows."""
    results = [m.test for m in report.evaluated if m.test] + [e.test for e in report.ensembles]
    low = min([result.accuracy_ci95.low for result in results], default=0.0)
    scale = (max(0.0, low - 0.02), 1.0)
    reach = max([abs(end) for pair in report.pairs for end in pair.result.ci95], default=1.0)

    def of_model(model: ModelResult) -> Markup:
        assert model.test is not None
        ends = model.test.accuracy_ci95
        return strip(ends.low, model.test.accuracy, ends.high, scale, f"s{styles[model.key] % 5}")

    def plain(test: Any) -> Markup:
        ends = test.accuracy_ci95
        return strip(ends.low, test.accuracy, ends.high, scale, "plain")

    def of_pair(pair: Any) -> Markup:
        ends = pair.result.ci95
        span = (-reach * 1.05, reach * 1.05)
        return strip(ends.low, pair.result.difference, ends.high, span, "plain", zero=True)

    return {"accuracy_strip": of_model, "plain_strip": plain, "pair_strip": of_pair}


def _training(report: Report) -> list[tuple[ModelResult, Markup, Markup, str]]:
    models = [model for model in report.models if model.files.history]
    ranges = {
        what: charts.training_range(models, (what, f"val_{what}")) for what in ("accuracy", "loss")
    }
    return [
        (
            model,
            charts.training_curve(model, "accuracy", ranges["accuracy"], _restarts(model)),
            charts.training_curve(model, "loss", ranges["loss"], _restarts(model)),
            _training_words(model),
        )
        for model in models
    ]


def _restarts(model: ModelResult) -> list[Tree]:
    return model.run.events_of("restart", model.name)


def _training_words(model: ModelResult) -> str:
    words = []
    best = model.files.facts.get("best") or {}
    if best.get("epoch") is not None:
        phase = charts.PHASE_NAMES.get(str(best.get("phase")), str(best.get("phase")))
        words.append(f"Best: epoch {best['epoch']} of {phase}.")
    words += [
        f"Restart in epoch {event.get('epoch')}: {visible(str(event.get('cause')))}."
        for event in _restarts(model)
    ]
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


def _sweep(run: Run, name: str) -> tuple[Any, ...]:
    """Trials best first, the settings that were swept, a chart, and what the sweep cost."""
    sweep = run.sweeps[name]
    facts = ("id", "config", "val_accuracy", "epochs", "seconds", "status")
    trials = [
        {fact: trial.get(fact) for fact in facts}
        for trial in sweep.get("trials") or []
        if isinstance(trial, dict)
    ]
    trials.sort(key=lambda t: -(t.get("val_accuracy") or -1.0))
    keys = list(dict.fromkeys(key for t in trials for key in (t.get("config") or {})))
    kinds = charts.block_kinds(trials)
    legend = [
        (
            trusted(
                f'<svg class="swatch" viewBox="0 0 22 14" aria-hidden="true">'
                f'<path class="mark s{i % 5}" d="{marker_shape(MARKERS[i % 5], 11, 7)}"/></svg>'
            ),
            f"{kind} {'block' if kind == '1' else 'blocks'} unfrozen",
        )
        for i, kind in enumerate(kinds)
    ]
    words = sweep_words(run, sweep, trials)
    chart = charts.sweep_chart(trials)
    return run, name, trials, sweep.get("best"), keys, chart, legend, words


def sweep_words(run: Run, sweep: Tree, trials: list[Tree]) -> str:
    spent = sum(trial.get("seconds") or 0 for trial in trials)
    wall, whole = sweep.get("seconds"), run.record.get("seconds")
    words = f"{plural(len(trials), 'trial')}"
    epochs = sum(trial.get("epochs") or 0 for trial in trials)
    words += f", {plural(epochs, 'epoch')}, {duration(spent)} of trial time"
    if wall:
        words += f" in {duration(wall)}"
        if whole and whole >= wall:
            words += f" ({percent(wall / whole, 0)} of the run)"
    best = sweep.get("best") or {}
    if best.get("val_accuracy") is not None:
        words += f". The best reached {percent(best['val_accuracy'])} on validation"
    return words + "."


def repeat_rows(run: Run) -> list[tuple[str, str]]:
    """Everything needed to do it again, in words; what is not known is left out."""
    record, manifest = run.record, run.manifest
    hardware = record.get("hardware") or {}
    memory = hardware.get("memory_bytes")
    gpus = hardware.get("gpus") or []
    sessions = record.get("sessions") or []
    machine = [
        str(hardware.get("cpu") or ""),
        plural(hardware["cpus"], "core") if hardware.get("cpus") else "",
        f"{megabytes(memory)} memory" if memory else "",
        f"GPU: {', '.join(map(str, gpus))}" if gpus else "no GPU" if hardware else "",
        plural(hardware["nodes"], "node") if hardware.get("nodes") else "",
    ]
    versions = record.get("versions") or {}
    restarts = len(run.events_of("restart"))
    lost = record.get("lost_seconds")
    rows = {
        "State": str(record.get("status") or ""),
        "Began": str(record.get("started_at") or ""),
        "Took": _took(record.get("seconds"), sessions),
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Hardware": ", ".join(part for part in machine if part),
        "Precision": str(record.get("precision") or ""),
        "Seeds": ", ".join(map(str, record.get("seeds") or [])),
        "Settings": f"hash {record['identity']}" if record.get("identity") else "",
        "Data": _data_words(manifest),
        "Git commit": str(record.get("git_commit") or ""),
        "Restarts": f"{plural(restarts, 'restart')}"
        + (f", {duration(lost)} lost" if lost else "")
        + (", continued after an interruption" if record.get("resumed") else ""),
    }
    return [(term, visible(words)) for term, words in rows.items() if words]


def _took(seconds: float | None, sessions: list[Any]) -> str:
    if seconds is None:
        return ""
    return duration(seconds) + (f" in {len(sessions)} sessions" if len(sessions) > 1 else "")


def _data_words(manifest: Tree) -> str:
    if not manifest:
        return ""
    words = str(manifest.get("source") or "")
    if manifest.get("fingerprint"):
        words += f", fingerprint {manifest['fingerprint']}"
    if manifest.get("seconds"):
        words += f", prepared in {duration(manifest['seconds'])}"
    if manifest.get("images_per_second"):
        words += f" ({significant(manifest['images_per_second'])} images/s)"
    return words.removeprefix(", ")


def card(view: Mapping[str, Any], model: ModelResult) -> dict[str, Any]:
    """What a model card names, beside all that the report's pages do."""
    return {
        **view,
        "model": model,
        "card_rows": _card_rows(model),
        "weak_spots": _weak(view, model),
    }


def _card_rows(model: ModelResult) -> list[tuple[str, str]]:
    facts, training = model.files.facts, model.training
    best = facts.get("best") or {}
    rows = {
        "Weights it began with": weights_words(model)
        + (f", hash {facts['weights_hash']}" if facts.get("weights_hash") else ""),
        "Training": f"{plural(training.epochs or 0, 'epoch')} in {duration(training.seconds)}"
        if training
        else "",
        "Kept": f"epoch {best['epoch']} of {charts.PHASE_NAMES.get(best.get('phase'), '')}"
        if best.get("epoch")
        else "",
        "Unfrozen blocks": str(facts.get("unfrozen_blocks") or ""),
        "Precision": str(facts.get("precision") or ""),
        "Seed": str(facts.get("seed", "")),
    }
    repeat = dict(repeat_rows(model.run))
    rows |= {term: repeat.get(term, "") for term in ("Data", "Versions", "Git commit")}
    return [(term, visible(words)) for term, words in rows.items() if words]


def _weak(view: Mapping[str, Any], model: ModelResult) -> list[str]:
    """The worst group of each property whose interval lies below the model's accuracy."""
    lines = []
    for run, _, drawn, _ in view["slices"]:
        for part, _ in drawn if run is model.run else ():
            cells = [
                (piece, piece.cells[model.key]) for piece in part.bins if model.key in piece.cells
            ]
            if not cells or model.test is None:
                continue
            piece, cell = min(cells, key=lambda item: item[1].accuracy)
            if cell.interval.high < model.test.accuracy:
                lines.append(
                    f"By {part.title} it is weakest on {piece.name} photos: "
                    f"{percent(cell.accuracy)} of {count(cell.n)}."
                )
    return lines


def money(value: float | None) -> str:
    """An amount without its currency, which we do not know: at least cents, small ones finer."""
    if value is None:
        return MISSING
    return decimal(value, 2) if value >= 1 or value == 0 else significant(value, 2)


def as_yaml(tree: Tree) -> str:
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


FILTERS = {
    "count": count,
    "money": money,
    "reason": code,
    "setting": setting,
    "title": title,
    "yaml": as_yaml,
}
