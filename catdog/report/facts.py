"""A run's settings, machine, durations and reason codes in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import yaml

from catdog.report.load import Run
from catdog.report.results import ModelResult
from catdog.report.wording import (
    MISSING,
    count,
    decimal,
    duration,
    megabytes,
    percent,
    plural,
    significant,
    title,
    visible,
)
from catdog.runs.records import Manifest, Setting, Sweep

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
    "label_smoothing": "Label smoothing",
    "augmentation_strength": "Augmentation strength",
}


def code(text: str) -> str:
    """A reason, flag, setting or status as words."""
    return CODES.get(text) or visible(text.replace("_", " "))


def setting(value: Setting) -> str:
    """A hyperparameter's value: ``0.000213`` for a float, the rest as it is."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.2e}".replace("e-0", "e-") if 0 < abs(value) < 1e-3 else f"{value:.3g}"
    return visible(str(value))


def weights_words(model: ModelResult) -> str:
    if model.name == "base_cnn":
        return "trained from scratch"
    if model.weights is None:
        return ""
    known = {
        "none": "random weights",
        "random": "its first blocks, random weights",
        "imagenet": "ImageNet weights",
    }
    return known.get(model.weights, f"weights: {visible(model.weights.rpartition('/')[2])}")


def origin_words(model: ModelResult) -> str:
    """``ImageNet weights, seed 0``."""
    seed = model.files.facts.seed
    return ", ".join(
        part for part in (weights_words(model), "" if seed is None else f"seed {seed}") if part
    )


def sweep_words(run: Run, sweep: Sweep, price: float | None) -> str:
    """What the sweep tried, took and cost (``price`` an hour), and what it reached."""
    trials = sweep.trials
    spent = sum(trial.seconds for trial in trials)
    wall, whole = sweep.seconds, run.record.seconds
    epochs = sum(trial.epochs for trial in trials)
    words = f"{plural(len(trials), 'trial')}, {plural(epochs, 'epoch')}, "
    words += f"{duration(spent)} of trial time"
    if wall:
        words += f" in {duration(wall)}"
        if whole and whole >= wall:
            words += f" ({percent(wall / whole, 0)} of the run)"
        if price is not None:
            words += f", which cost {money(price * wall / 3600)}"
    epochs_s = sum(row.seconds for trial in trials for row in trial.history)
    if epochs_s and (beside := (spent - epochs_s) / len(trials)) >= 1:
        words += f"; {duration(beside)} a trial went not to its epochs but to its start and end"
    if sweep.best is not None:
        words += (
            f". The best reached {percent(sweep.best.val_accuracy)} on validation, which chose it"
        )
        words += "; the comparison is on test photos, which the sweep has not seen"
    return words + "."


def repeat_rows(run: Run) -> list[tuple[str, str]]:
    """Everything needed to do it again, in words; what is not known is left out."""
    record, hardware = run.record, run.record.hardware
    gpus = ", ".join(hardware.gpus)
    machine = [
        hardware.cpu,
        plural(hardware.cpus, "core") if hardware.cpus else "",
        f"{megabytes(hardware.memory_bytes)} memory" if hardware.memory_bytes else "",
        f"GPU: {gpus}" if gpus else "no GPU" if hardware.cpus else "",
        plural(hardware.nodes, "node") if hardware.nodes else "",
    ]
    restarts = len(run.restarts())
    rows = {
        "State": record.status or "",
        "Began": _moment(record.started_at or ""),
        "Took": _took(record.seconds, len(record.sessions)),
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "Hardware": ", ".join(part for part in machine if part),
        "Precision": record.precision or "",
        "Workers": "; ".join(
            f"{title(name)}: {words}" for name, words in record.reproducible.items()
        ),
        "Seeds": ", ".join(map(str, record.seeds)),
        "Settings": f"hash {record.identity}" if record.identity else "",
        "Data": _data_words(run.manifest),
        "Git commit": record.git_commit or "",
        "Restarts": f"{plural(restarts, 'restart') if restarts else 'none'}"
        + (", continued after an interruption" if record.resumed else "")
        if record.name
        else "",
    }
    return [(term, visible(words)) for term, words in rows.items() if words]


def _moment(text: str) -> str:
    """``2026-11-21T09:12:00+00:00`` → ``2026-11-21 09:12 UTC``; anything else stays as it is."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text


def _took(seconds: float | None, sessions: int) -> str:
    if seconds is None:
        return ""
    return duration(seconds) + (f" in {sessions} sessions" if sessions > 1 else "")


def _data_words(manifest: Manifest) -> str:
    words = manifest.source or ""
    if manifest.fingerprint:
        words += f", fingerprint {manifest.fingerprint}"
    if manifest.seconds:
        words += f", prepared in {duration(manifest.seconds)}"
    if manifest.images_per_second:
        words += f" ({significant(manifest.images_per_second)} images/s)"
    return words.removeprefix(", ")


def money(value: float | None) -> str:
    """An amount without its currency, which we do not know: at least cents, small ones finer."""
    if value is None:
        return MISSING
    return decimal(value, 2) if value >= 1 or value == 0 else significant(value, 2)


def as_yaml(tree: dict[str, Any]) -> str:
    return str(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))


_FORMATS = {"keras": "Keras", "saved_model": "SavedModel", "onnx": "ONNX"}


def export_format(name: str) -> str:
    return _FORMATS.get(name, visible(name))


def tiny(value: float | None) -> str:
    """A difference by its order of magnitude: ``4.2e-7`` → ``4×10⁻⁷``."""
    if value is None or not 0 < abs(value) < 0.001:
        return decimal(value) if value else count(value)
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{power}"


FILTERS = {
    "count": count,
    "export_format": export_format,
    "tiny": tiny,
    "money": money,
    "reason": code,
    "setting": setting,
    "title": title,
    "yaml": as_yaml,
}
