"""Run directories as the job writes them, made up: three classifiers that share hard photos."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw, ImageFilter

from catdog import config as configuration
from catdog import presets

#: For each model: how far it pulls the classes apart, and its own noise beside the shared one.
SKILL = {"base_cnn": (1.0, 0.9), "resnet50v2": (1.75, 0.75), "inception_v3": (2.0, 0.75)}
PARAMETERS = {"base_cnn": 1_084_097, "resnet50v2": 23_566_849, "inception_v3": 21_804_833}

HOSTILE_NAMES = (
    "<script>window.hacked=1</script>.jpg",
    "\"onerror='window.hacked=1' x=\".jpg",
    "two\nlines | and * a `tick`.jpg",
    "a" * 246 + ".jpg",
    "evil\u202egpj.exe.jpg",
    "{{ 7*7 }}{% raw %}.jpg",
    "[link](javascript:alert(1)).jpg",
    "&lt;img src=x onerror=window.hacked=1&gt;.jpg",
)


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def face(label: int, rng: np.random.Generator, size: int = 128) -> Image.Image:
    """A drawn head: pointed ears for a cat, hanging ones for a dog."""
    ground = tuple(int(v) for v in rng.integers(90, 230, 3))
    fur = tuple(int(v) for v in rng.integers(40, 200, 3))
    image = Image.new("RGB", (size, size), ground)
    draw = ImageDraw.Draw(image)
    s = size / 128
    dark = tuple(max(0, v - 40) for v in fur)
    if label == 0:
        draw.polygon([(x * s, y * s) for x, y in ((28, 60), (34, 12), (62, 40))], fill=dark)
        draw.polygon([(x * s, y * s) for x, y in ((100, 60), (94, 12), (66, 40))], fill=dark)
    draw.ellipse((26 * s, 30 * s, 102 * s, 110 * s), fill=fur)
    if label == 1:
        draw.ellipse((12 * s, 36 * s, 38 * s, 98 * s), fill=dark)
        draw.ellipse((90 * s, 36 * s, 116 * s, 98 * s), fill=dark)
        draw.ellipse((46 * s, 70 * s, 82 * s, 106 * s), fill=tuple(min(255, v + 40) for v in fur))
    for x in (46, 76):
        draw.ellipse((x * s, 56 * s, (x + 9) * s, 66 * s), fill=(20, 20, 20))
    draw.ellipse((58 * s, 78 * s, 70 * s, 86 * s), fill=(30, 20, 20))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1.5))))


def heat(image: Image.Image) -> bytes:
    spot = Image.new("L", image.size, 0)
    ImageDraw.Draw(spot).ellipse((40, 50, 95, 105), fill=170)
    spot = spot.filter(ImageFilter.GaussianBlur(14))
    red = Image.new("RGB", image.size, (220, 40, 20))
    return jpeg(Image.composite(red, image, spot))


@dataclass
class MadeRun:
    """A run directory and the numbers it was made from."""

    path: Path
    predictions: dict[str, pd.DataFrame]
    photos: pd.DataFrame

    def test(self, model: str) -> pd.DataFrame:
        table = self.predictions[model]
        return table[table["split"] == "test"]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1))


def write_table(path: Path, frame: pd.DataFrame) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(path, index=False)


def make_run(
    path: Path,
    *,
    n_test: int = 240,
    models: Sequence[str] = ("base_cnn", "resnet50v2", "inception_v3"),
    skill: dict[str, tuple[float, float]] | None = None,
    weights: str = "imagenet",
    sample: bool = False,
    tta: bool = True,
    seeds: Sequence[int] = (),
    hostile: bool = False,
    pictures: int = 8,
    seed: int = 7,
) -> MadeRun:
    """Write a finished run with ``n_test`` test photos into ``path``."""
    rng = np.random.default_rng(seed)
    config = presets.laptop().model_dump(mode="json")
    config["name"], config["models"] = path.name, list(models)
    config["data"]["source"] = None if sample else "/data/photos"
    for backbone in ("resnet50v2", "inception_v3"):
        config["weights"][backbone]["source"] = weights
    path.mkdir(parents=True)
    settings = configuration.Config.from_tree(config, "test")
    (path / "config.yaml").write_text(settings.to_yaml())

    photos = _photos(rng, n_test, hostile)
    _write_record(path, settings, weights)
    _write_data(path, photos, rng, sample)
    judged = photos[photos["split"].isin(["val", "test"])].reset_index(drop=True)
    shared = rng.normal(0, 1.0, len(judged)) + np.where(rng.random(len(judged)) < 0.02, -6, 0)
    predictions = {
        model: _predict(judged, shared, (skill or SKILL)[model], rng, tta) for model in models
    }
    drawn = {uri: face(label, rng) for uri, label in _noteworthy(predictions, pictures)}
    for model, table in predictions.items():
        _write_model(path, model, table, weights if model != "base_cnn" else "none", rng, drawn)
        for other in seeds:
            again = _predict(judged, shared, (skill or SKILL)[model], rng, tta)
            folder = path / "models" / model / "seeds" / str(other)
            write_table(folder / "predictions.parquet", again)
            write_json(folder / "model.json", {"name": model, "seed": other})
    write_table(
        path / "artifacts/thumbnails.parquet",
        pd.DataFrame({"uri": list(drawn), "thumbnail": [jpeg(i) for i in drawn.values()]}),
    )
    _write_sweep(path, rng)
    return MadeRun(path, predictions, photos)


def _photos(rng: np.random.Generator, n_test: int, hostile: bool) -> pd.DataFrame:
    n = 10 * n_test
    label = np.arange(n) % 2
    names = [f"{('cat', 'dog')[kind]}.{i // 2}.jpg" for i, kind in enumerate(label)]
    split = np.array(["train"] * (8 * n_test) + ["val"] * n_test + ["test"] * n_test)
    if hostile:
        for i, name in enumerate(HOSTILE_NAMES):
            names[n - 1 - i] = name
    width = rng.choice([320, 375, 499, 500, 640], n)
    duplicate: list[str | None] = [None] * n
    held_back = np.zeros(n, dtype=bool)
    for i in range(6):
        duplicate[i], held_back[i] = f"/data/photos/{names[n - 20 - i]}", True
    flags = [""] * n
    flags[3], flags[40], flags[41] = "label_conflict", "too_dark", "nearly_one_colour,too_dark"
    return pd.DataFrame(
        {
            "uri": [f"/data/photos/{name}" for name in names],
            "label": label.astype(np.uint8),
            "split": split,
            "held_back": held_back,
            "near_duplicate_of": duplicate,
            "width": width,
            "height": (width * rng.choice([0.66, 0.75, 1.0, 1.33], n)).astype(int),
            "brightness": np.clip(rng.normal(118, 34, n), 3, 250),
            "sharpness": rng.lognormal(6.0, 1.0, n),
            "flags": flags,
            "note": [None] * n,
        }
    )


def _noteworthy(predictions: dict[str, pd.DataFrame], most: int) -> list[tuple[str, int]]:
    """Test photos that the job keeps a thumbnail of: the surest mistakes and the least sure."""
    found: dict[str, int] = {}
    for table in predictions.values():
        test = table[table["split"] == "test"]
        margin = np.where(test["label"] == 1, test["logit"], -test["logit"])
        order = np.concatenate([np.argsort(margin)[:14], np.argsort(np.abs(margin))[:8]])
        picked = test.iloc[order]
        found |= dict(zip(picked["uri"], picked["label"], strict=True))
    mean = sum(table["logit"] for table in predictions.values())
    first = next(iter(predictions.values()))
    picked = first[first["split"] == "test"].assign(size=np.abs(mean)).nsmallest(12, "size")
    found |= dict(zip(picked["uri"], picked["label"], strict=True))
    return list(found.items())[:most]


def _predict(
    judged: pd.DataFrame,
    shared: np.ndarray,
    skill: tuple[float, float],
    rng: np.random.Generator,
    tta: bool,
) -> pd.DataFrame:
    pull, noise = skill
    own = rng.normal(0, noise, len(judged))
    sign = 2.0 * judged["label"].to_numpy() - 1
    # Twice too confident, so that a temperature has something to mend.
    logit = 2.4 * sign * (pull + 0.8 * shared + own)
    table = judged[["uri", "split", "label"]].copy()
    table["logit"] = logit.astype(np.float32)
    if tta:
        table["logit_tta"] = (logit + rng.normal(0, 0.4, len(judged))).astype(np.float32)
    return table


def _write_record(path: Path, settings: configuration.Config, weights: str) -> None:
    write_json(
        path / "run.json",
        {
            "name": path.name,
            "identity": settings.identity,
            "status": "finished",
            "preset": "laptop",
            "command": "python jobs/train.py --data /data/photos --storage s3://key:word@bucket/x",
            "started_at": "2026-11-21T09:12:00+00:00",
            "finished_at": "2026-11-21T10:07:31+00:00",
            "seconds": 3331.0,
            "resumed": True,
            "sessions": [
                {"started_at": "2026-11-21T09:12:00+00:00", "seconds": 1200, "outcome": "killed"},
                {"started_at": "2026-11-21T09:32:00+00:00", "seconds": 2131, "outcome": "finished"},
            ],
            "git_commit": "05edeebc0ffee",
            "versions": {
                "python": "3.11.9",
                "ray": "2.60.0",
                "tensorflow": "2.21.0",
                "keras": "3.15.0",
                "catdog": "0.1.0",
            },
            "hardware": {
                "cpu": "AMD EPYC 9554",
                "cpus": 2,
                "memory_bytes": 16 * 2**30,
                "gpus": [],
                "nodes": 1,
            },
            "precision": "bfloat16",
            "seeds": [0],
            "notes": ["ImageNet weights could not be downloaded; the backbones began random."]
            if weights == "none"
            else [],
            "error": None,
            "lost_seconds": 41.5,
        },
    )
    events = [
        {"time": "2026-11-21T09:12:01+00:00", "event": "stage", "name": "data"},
        {"event": "restart", "model": "base_cnn", "cause": "a worker died", "epoch": 5},
        {"time": "2026-11-21T09:32:00+00:00", "event": "resume"},
    ]
    (path / "events.jsonl").write_text("\n".join(map(json.dumps, events)) + '\n{"cut off')


def _write_data(path: Path, photos: pd.DataFrame, rng: np.random.Generator, sample: bool) -> None:
    counts = photos.groupby(["split", "label"]).size()
    splits = {
        split: {"cat": int(counts[split, 0]), "dog": int(counts[split, 1])}
        for split in ("train", "val", "test")
    }
    rejected = [
        (
            "broken.1.jpg",
            "truncated",
            "the file ends early",
            jpeg(face(0, rng).crop((0, 0, 128, 60))),
        ),
        (
            "broken.2.jpg",
            "truncated",
            "the file ends early",
            jpeg(face(1, rng).crop((0, 0, 128, 40))),
        ),
        ("empty.jpg", "empty", "0 bytes", None),
        ("<img src=x onerror=alert(1)>.jpg", "not an image", "an HTML page", None),
        ("tiny.gif", "too small", "1×1 pixels", None),
    ]
    write_table(
        path / "data/rejected.parquet",
        pd.DataFrame(
            [
                {
                    "uri": f"/data/photos/{name}",
                    "reason": reason,
                    "detail": detail,
                    "size": 100 * i,
                    "thumbnail": picture,
                }
                for i, (name, reason, detail, picture) in enumerate(rejected)
            ]
        ),
    )
    write_table(path / "data/photos.parquet", photos)
    write_json(
        path / "data/manifest.json",
        {
            "fingerprint": "9f3c1a77d2be",
            "contents": "27d2be9f3c1a",
            "source": "built-in drawings" if sample else "/data/photos",
            "sample": sample,
            "files": len(photos) + len(rejected),
            "kept": len(photos),
            "held_back": int(photos["held_back"].sum()),
            "rejected": {"truncated": 2, "empty": 1, "not an image": 1, "too small": 1},
            "splits": splits,
            "image_size": 160,
            "seconds": 4.2,
            "images_per_second": 1240.0,
        },
    )


def _write_model(
    path: Path,
    model: str,
    table: pd.DataFrame,
    weights: str,
    rng: np.random.Generator,
    drawn: dict[str, Image.Image],
) -> None:
    folder = path / "models" / model
    history = _history(model, weights, rng)
    write_json(folder / "history.json", history)
    best = max(history, key=lambda row: row["val_accuracy"])
    seconds = sum(row["seconds"] for row in history)
    write_json(
        folder / "model.json",
        {
            "name": model,
            "weights": weights,
            "weights_hash": None if weights == "none" else "ab12cd34",
            "input_scale": "0..1" if model == "base_cnn" else "-1..1",
            "parameters": PARAMETERS[model],
            "image_size": 128 if model == "base_cnn" else 160,
            "precision": "bfloat16",
            "seed": 0,
            "best": {"phase": best["phase"], "epoch": best["epoch"]},
            "train": {
                "epochs": len(history),
                "seconds": seconds,
                "images_per_second": 1920 * len(history) / seconds,
                "workers": 2,
                "restarts": 1 if model == "base_cnn" else 0,
            },
            "file_bytes": 4 * PARAMETERS[model] + 60_000,
            "predict_images_per_second": {"base_cnn": 410.0, "resnet50v2": 61.5}.get(model, 93.2),
            "unfrozen_blocks": None if model == "base_cnn" else 2,
            "settings": {"learning_rate": 2e-4, "dropout": 0.2},
        },
    )
    write_table(folder / "predictions.parquet", table)
    if model == "base_cnn":
        write_json(folder / "exports.json", {"formats": _exports(PARAMETERS[model])})
    test = table[(table["split"] == "test") & table["uri"].isin(list(drawn))]
    wrong = test[(test["logit"] > 0) != (test["label"] == 1)]
    write_table(
        folder / "artifacts/gradcam.parquet",
        pd.DataFrame(
            {
                "uri": wrong["uri"],
                "thumbnail": [jpeg(drawn[uri]) for uri in wrong["uri"]],
                "heatmap": [heat(drawn[uri]) for uri in wrong["uri"]],
            }
        ),
    )


def _exports(parameters: int) -> dict[str, Any]:
    common = {"precision": "float32", "same_label_as_run": 1.0, "cores": 2, "test_photos": 240}
    size = 4 * parameters + 200_000
    return {
        "saved_model": common
        | {"path": "exports/saved_model", "bytes": size, "latency_ms": 14.3, "max_difference": 0.0}
        | {"same_label_from_jpeg": 0.9957, "jpeg_photos": 234},
        "onnx": common
        | {"path": "exports/model.onnx", "bytes": size, "latency_ms": 9.1, "max_difference": 4e-7},
    }


def _history(model: str, weights: str, rng: np.random.Generator) -> list[dict[str, Any]]:
    phases = {"base_cnn": [("scratch", 24)]}.get(model, [("probe", 6), ("finetune", 6)])
    if model != "base_cnn" and weights == "none":
        phases = [("scratch", 8)]
    start, end = {"base_cnn": (0.56, 0.80)}.get(model, (0.80, 0.94))
    rows: list[dict[str, Any]] = []
    total = sum(length for _, length in phases)
    for phase, length in phases:
        for epoch in range(1, length + 1):
            done = len(rows) / max(1, total - 1)
            value = start + (end - start) * (1 - np.exp(-3 * done)) / (1 - np.exp(-3))
            noise = float(rng.normal(0, 0.008))
            rows.append(
                {
                    "phase": phase,
                    "epoch": epoch,
                    "loss": float(0.72 - 0.65 * (value - 0.5) / 0.5 - 0.04 * done),
                    "accuracy": float(min(0.995, value + 0.05 * done)),
                    "val_loss": float(0.74 - 0.6 * (value + noise - 0.5) / 0.5),
                    "val_accuracy": float(value + noise),
                    "seconds": {"probe": 1.5, "scratch": 24.0}.get(phase, 78.0),
                    "images_per_second": 80.0,
                    "learning_rate": 1e-3,
                }
            )
    return rows


def _write_sweep(path: Path, rng: np.random.Generator) -> None:
    trials = [
        {
            "id": f"t{i:02d}",
            "config": {
                "learning_rate": float(10 ** rng.uniform(-4.5, -3)),
                "unfrozen_blocks": int(rng.choice([1, 2, 4])),
                "dropout": float(rng.choice([0.0, 0.2, 0.4])),
                "weight_decay": float(10 ** rng.uniform(-4, -1)),
            },
            "val_accuracy": float(rng.uniform(0.86, 0.95)) if i < 5 else None,
            "epochs": int(rng.integers(1, 4)) if i < 5 else 0,
            "seconds": float(rng.uniform(40, 160)),
            "status": ("finished", "stopped early")[i % 2] if i < 5 else "failed",
            "history": [
                {"phase": "finetune", "epoch": epoch, "val_accuracy": float(value)}
                for epoch, value in enumerate(0.95 - 0.1 * rng.random(i % 3 + 1) ** 2, 1)
            ],
        }
        for i in range(6)
    ]
    best = max((t for t in trials if t["val_accuracy"]), key=lambda t: t["val_accuracy"])
    write_json(
        path / "sweeps/inception_v3/trials.json",
        {
            "trials": trials,
            "best": {key: best[key] for key in ("id", "config", "val_accuracy")},
            "seconds": sum(t["seconds"] for t in trials),
        },
    )


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., MadeRun]:
    """``new_run("name", n_test=100, …)`` writes a run directory; see :func:`make_run`."""

    def build(name: str = "photos", **wishes: Any) -> MadeRun:
        return make_run(tmp_path / name, **wishes)

    return build


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """A finished run with every file, for tests that only read its report."""
    return make_run(tmp_path_factory.mktemp("runs") / "photos", seeds=(0, 1, 2), pictures=80)


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> MadeRun:
    """Poor models on photos with hostile names, so that those names are shown everywhere."""
    poor = dict.fromkeys(SKILL, (0.2, 1.0))
    path = tmp_path_factory.mktemp("runs") / "hostile"
    return make_run(path, n_test=30, hostile=True, skill=poor, pictures=40, seeds=(1,))
