"""The types of a run's JSON files, checked when they are read.

A file may come from an older version or a hand. What is of another kind is left out, as if it had
not been written, and named; keys that are not listed here pass as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

#: A leaf's test, a list of one shape, or shapes by key (``*``: of every key).
Shape: TypeAlias = "Callable[[Any], bool] | list[Any] | Mapping[str, Any]"


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def text(value: Any) -> bool:
    return isinstance(value, str)


def truth(value: Any) -> bool:
    return isinstance(value, bool)


def anything(value: Any) -> bool:
    return True


_EPOCH_NUMBERS = ("loss", "accuracy", "val_loss", "val_accuracy", "seconds", "images_per_second")
EPOCH: dict[str, Any] = {
    "phase": text,
    "epoch": whole,
    **dict.fromkeys(_EPOCH_NUMBERS, number),
}
_RECORD_TEXTS = ("name", "identity", "status", "command", "error", "git_commit", "precision")
RECORD: Shape = {
    **dict.fromkeys((*_RECORD_TEXTS, "started_at", "finished_at"), text),
    "seconds": number,
    "lost_seconds": number,
    "versions": {"*": anything},
    "hardware": {"cpus": number, "memory_bytes": number, "nodes": number},
    "sessions": [{"seconds": number}],
    "seeds": [anything],
    "reproducible": {"*": text},
    "notes": [anything],
}
MANIFEST: Shape = {
    **dict.fromkeys(("source", "fingerprint", "contents"), text),
    **dict.fromkeys(("files", "kept", "held_back"), whole),
    "rejected": {"*": whole},
    "splits": {"*": {"cat": whole, "dog": whole}},
    "seconds": number,
    "images_per_second": number,
}
MODEL: Shape = {
    **dict.fromkeys(("weights", "weights_hash", "input_scale", "precision", "varies"), text),
    "reproducible": truth,
    "parameters": whole,
    "image_size": whole,
    "seed": whole,
    "best": {"phase": text, "epoch": whole},
    "train": {
        "epochs": whole,
        "seconds": number,
        "images_per_second": number,
        "workers": whole,
        "restarts": whole,
    },
    "file_bytes": number,
    "predict_images_per_second": number,
}
SWEEP: Shape = {
    "trials": [
        {
            "config": {"*": anything},
            "val_accuracy": number,
            "epochs": whole,
            "seconds": number,
            "history": [EPOCH],
        }
    ],
    "best": {"config": {"*": anything}, "val_accuracy": number},
    "seconds": number,
}
EXPORTS: Shape = {
    "formats": {
        "*": {
            **dict.fromkeys(("path", "precision", "made_at"), text),
            **dict.fromkeys(("bytes", "latency_ms", "temperature"), number),
            **dict.fromkeys(("max_difference", "same_label_as_run"), number),
            "same_label_from_jpeg": number,
            **dict.fromkeys(("test_photos", "jpeg_photos", "cores"), whole),
        }
    }
}
HISTORY: Shape = [EPOCH]
EVENTS: Shape = [{**EPOCH, "event": text, "model": text, "config": {"*": anything}}]


def fitted(value: Any, shape: Shape, misfits: list[str], path: str = "") -> Any:
    """``value`` without what does not fit ``shape``; the paths of that are added to ``misfits``.

    ``None`` is what is not known: it is left out too, and no misfit.
    """
    if value is None:
        return None
    if isinstance(shape, Mapping):
        if isinstance(value, dict):
            return _fitted_mapping(value, shape, misfits, path)
    elif isinstance(shape, list):
        if isinstance(value, list):
            items = [fitted(item, shape[0], misfits, f"{path}[]") for item in value]
            return [item for item in items if item is not None]
    elif shape(value):
        return value
    misfits.append(path.lstrip(".") or "all of it")
    return None


def _fitted_mapping(
    value: dict[str, Any], shape: Mapping[str, Any], misfits: list[str], path: str
) -> dict[str, Any]:
    found = {}
    for key, item in value.items():
        below = shape.get(key, shape.get("*", anything))
        kept = fitted(item, below, misfits, f"{path}.{key}")
        if kept is not None or below is anything:
            found[key] = kept
    return found
