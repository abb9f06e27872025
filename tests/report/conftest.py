"""Run directories made from the files of one real run, which :mod:`tests.report.keep_run` kept.

What differs is changed in its records, and written by them: more photos, with names of their own,
and what made-up models that share hard photos say about them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pytest
import yaml

from catdog.config import Config
from catdog.runs import Events, RunDirectory
from catdog.runs.records import Manifest, Model, Record, Run, Sweep
from catdog.storage import Location
from tests.report.keep_run import KEPT

R = TypeVar("R", bound=Record)

#: For each model: how far it pulls the classes apart, and its own noise beside the shared one.
SKILL = {"base_cnn": (1.0, 0.9), "resnet50v2": (1.75, 0.75), "efficientnet_lite0": (2.0, 0.75)}

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


@dataclass
class MadeRun:
    """A run directory and the predictions it was made from."""

    path: Path
    predictions: dict[str, pd.DataFrame]

    def test(self, model: str) -> pd.DataFrame:
        table = self.predictions[model]
        return table[table["split"] == "test"]

    def read(self, file: str, kind: type[R]) -> R:
        return kind.fitted((Location.of(self.path / file)).read_json())[0]

    def change(self, file: str, kind: type[R], **changes: Any) -> None:
        """Write a record of the run anew, with ``changes``."""
        record = kind.model_validate(self.read(file, kind).as_json() | changes)
        Location.of(self.path / file).write_json(record.as_json())

    def change_run(self, **changes: Any) -> None:
        self.change("run.json", Run, **changes)


def make_run(
    path: Path,
    *,
    n_test: int = 240,
    models: Sequence[str] = tuple(SKILL),
    skill: dict[str, tuple[float, float]] | None = None,
    weights: str = "imagenet",
    sample: bool = False,
    seeds: Sequence[int] = (),
    hostile: bool = False,
    pictures: int = 8,
    seed: int = 7,
) -> MadeRun:
    """Write a finished run with ``n_test`` test photos into ``path``."""
    rng = np.random.default_rng(seed)
    shutil.copytree(KEPT, path)
    for name in set(SKILL) - set(models):
        shutil.rmtree(path / "models" / name)
    run = MadeRun(path, {})
    photos = _photos(rng, n_test, hostile)
    _change_records(run, models, weights, sample)
    _write_data(run, photos, sample)
    judged = photos[photos["split"].isin(["val", "test"])].reset_index(drop=True)
    shared = rng.normal(0, 1.0, len(judged)) + np.where(rng.random(len(judged)) < 0.02, -6, 0)
    for model in models:
        folder, able = path / "models" / model, (skill or SKILL)[model]
        run.predictions[model] = _predict(judged, shared, able, rng)
        run.predictions[model].to_parquet(folder / "predictions.parquet")
        shutil.rmtree(folder / "seeds", ignore_errors=True)
        for other in seeds:
            again = folder / "seeds" / str(other)
            again.mkdir(parents=True)
            _predict(judged, shared, able, rng).to_parquet(again / "predictions.parquet")
            shutil.copy(folder / "model.json", again)
            run.change(f"models/{model}/seeds/{other}/model.json", Model, seed=other)
        wrong = run.test(model).query("(logit > 0) != (label == 1)")["uri"]
        _show(folder / "artifacts/gradcam.parquet", list(wrong)[:pictures])
    _show(path / "artifacts/thumbnails.parquet", _noteworthy(run.predictions.values())[:pictures])
    return run


def _photos(rng: np.random.Generator, n_test: int, hostile: bool) -> pd.DataFrame:
    """The real photos' properties again and again, ten for each test photo, half of them dogs."""
    table = pd.read_parquet(KEPT / "data/photos.parquet")
    table = table.iloc[rng.integers(len(table), size=10 * n_test)].reset_index(drop=True)
    n = len(table)
    table["label"] = (np.arange(n) % 2).astype(np.int8)
    names = [f"{('cat', 'dog')[kind]}.{i // 2}.jpg" for i, kind in enumerate(table["label"])]
    if hostile:
        names[-len(HOSTILE_NAMES) :] = HOSTILE_NAMES
    table["uri"] = [f"/data/photos/{name}" for name in names]
    table["split"] = ["train"] * (8 * n_test) + ["val"] * n_test + ["test"] * n_test
    near = table["uri"].iloc[-len(HOSTILE_NAMES) :]
    table["near_duplicate_of"] = [*near, *[None] * (n - len(near))]
    table["held_back"] = table["near_duplicate_of"].notna()
    return table


def _predict(
    judged: pd.DataFrame, shared: np.ndarray, skill: tuple[float, float], rng: np.random.Generator
) -> pd.DataFrame:
    pull, noise = skill
    own = rng.normal(0, noise, len(judged))
    sign = 2.0 * judged["label"].to_numpy() - 1
    # Twice too confident, so that a temperature has something to mend.
    logit = 2.4 * sign * (pull + 0.8 * shared + own)
    table = judged[["uri", "split", "label"]].copy()
    table["logit"] = logit.astype(np.float32)
    table["logit_tta"] = (logit + rng.normal(0, 0.4, len(judged))).astype(np.float32)
    return table


def _noteworthy(tables: Iterable[pd.DataFrame]) -> list[str]:
    """Test photos that the job keeps a thumbnail of: the surest mistakes and the least sure."""
    found: dict[str, None] = {}
    for table in tables:
        test = table[table["split"] == "test"]
        margin = np.where(test["label"] == 1, test["logit"], -test["logit"])
        order = np.concatenate([np.argsort(margin)[:14], np.argsort(np.abs(margin))[:12]])
        found |= dict.fromkeys(test["uri"].iloc[order])
    return list(found)


def _show(file: Path, uris: list[str]) -> None:
    """Pictures of other photos, for these."""
    table = pd.read_parquet(file)
    table = table.iloc[np.arange(len(uris)) % len(table)]
    table.assign(uri=uris).to_parquet(file, index=False)


def _change_records(run: MadeRun, models: Sequence[str], weights: str, sample: bool) -> None:
    file = run.path / "config.yaml"
    config = Config.from_tree(yaml.safe_load(file.read_text()), "kept").model_dump(mode="json")
    config |= {"name": run.path.name, "models": list(models)}
    config["data"]["source"] = None if sample else "/data/photos"
    config["sweep"]["model"] = None
    for backbone in config["weights"].values():
        backbone["source"] = weights
    settings = Config.from_tree(config, "test")
    file.write_text(settings.to_yaml())
    run.change_run(
        name=run.path.name,
        identity=settings.identity,
        command="python jobs/train.py --data /data/photos --storage s3://key:word@bucket/x",
        git_commit="05edeebc0ffee",
        notes=["ImageNet weights could not be downloaded; the backbones began random."]
        if weights == "none"
        else [],
    )
    for name in models:
        if name != "base_cnn":
            run.change(f"models/{name}/model.json", Model, weights=weights)
    events = Events.open(RunDirectory(Location.of(run.path)))
    events.add("restart", model="base_cnn", epoch=1, step=0, workers=1)
    sweep = "sweeps/efficientnet_lite0/trials.json"
    trials = run.read(sweep, Sweep).trials
    nothing = {"val_accuracy": None, "val_loss": None, "epochs": 0, "history": []}
    failed = {"id": "005", "status": "failed", "error": "out of memory", **nothing}
    run.change(sweep, Sweep, trials=[*trials, trials[0].model_copy(update=failed)])


def _write_data(run: MadeRun, photos: pd.DataFrame, sample: bool) -> None:
    photos.to_parquet(run.path / "data/photos.parquet", index=False)
    rejected = pd.read_parquet(run.path / "data/rejected.parquet")
    rejected["uri"] = [f"/data/photos/<img src=x onerror=alert({i})>" for i in rejected.index]
    rejected.to_parquet(run.path / "data/rejected.parquet", index=False)
    counts = photos.groupby(["split", "label"]).size()
    run.change(
        "data/manifest.json",
        Manifest,
        source="built-in drawings" if sample else "/data/photos",
        sample=sample,
        files=len(photos) + len(rejected),
        kept=len(photos),
        held_back=int(photos["held_back"].sum()),
        splits={
            split: {"cat": int(counts[split, 0]), "dog": int(counts[split, 1])}
            for split in ("train", "val", "test")
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
