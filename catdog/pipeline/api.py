"""The commands as functions, for notebooks and other programs: ``import catdog``.

Settings have the names of the :class:`~catdog.config.Config` tree: with two underscores between a
group and what is in it (``scratch__epochs=3``), or a group as a dict (``scratch={"epochs": 3}``).
What a preset says gives way as it does to the flags of ``catdog train``. Mistakes are
:class:`~catdog.errors.UserError`, whose text is the whole explanation.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catdog.cluster.numerics import use_onednn
from catdog.config import Config, merged
from catdog.errors import UserError, did_you_mean, nearest
from catdog.presets import PRESETS, changed
from catdog.storage import Location

if TYPE_CHECKING:
    import keras
    import pandas as pd

Path = str | os.PathLike[str]

#: Where runs are kept if nobody says: below the folder that the program runs in.
STORAGE = "runs"
#: Pixels; a report has a width of its own and scrolls within them.
PAGE_HEIGHT = 900


@dataclass(frozen=True)
class Page:
    """A report that a notebook shows where it is the value of a cell."""

    path: str
    html: str

    def _repr_html_(self) -> str:
        inside = html.escape(self.html, quote=True)
        style = f"width:100%;height:{PAGE_HEIGHT}px;border:0"
        return f'<iframe srcdoc="{inside}" style="{style}"></iframe>'


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        path: its directory, a path or URI, as :func:`load` and :func:`predict` take it.
    """

    path: str

    @property
    def report(self) -> dict[str, Any]:
        """``report.json``: the verdict, all models' test results, and what they were made from."""
        report: dict[str, Any] = (Location.of(self.path) / "report.json").read_json()
        return report

    @property
    def best_model(self) -> str:
        """The report's best model, as :func:`load` and :func:`predict` take it."""
        from catdog.inference.finished import find_model

        return find_model(self.path).folder.uri

    def show(self) -> Page:
        """The report, which a notebook shows where this is the last line of a cell."""
        page = Location.of(self.path) / "report.html"
        return Page(page.uri, page.read_text())


@dataclass(frozen=True)
class Tuning:
    """A finished sweep.

    Attributes:
        path: of ``best.yaml``, which ``catdog train --config`` takes.
        model: whose training was swept.
        settings: what it chose, for :func:`train` of the same photos: ``**tuning.settings``.
        trials: all of them, best first.
    """

    path: str
    model: str
    settings: dict[str, Any]
    trials: list[dict[str, Any]]


@dataclass(frozen=True)
class Prepared:
    """A prepared set.

    Attributes:
        path: its folder.
        account: what became of every file, as ``catdog prepare --json`` writes it.
    """

    path: str
    account: dict[str, Any]


class Loaded(NamedTuple):
    """A model, and what turns its outputs into calibrated probabilities of *dog*.

    Attributes:
        model: takes raw uint8 pixels (n, side, side, 3); ``model.input_shape`` says the side.
        calibrate: outputs of ``model`` of any shape → probabilities, float64, of the same shape.
    """

    model: keras.Model
    calibrate: Callable[[Any], NDArray[np.float64]]


def prepare(data: Path | None = None, *, storage: Path = STORAGE, **settings: Any) -> Prepared:
    """The data stage alone: read, check, split and decode the photos, once.

    Args:
        data: photos: a folder, archive, table or bucket; without it the built-in drawings.
        storage: where prepared sets and runs are kept, a folder or URI.
        settings: see :mod:`catdog.pipeline.api`; and ``preset``.

    Raises:
        UserError: something given cannot be used, or the photos are too few or too bad.
    """
    config = config_of(data, storage, settings)
    use_onednn()
    from catdog.data.checks import Outcome
    from catdog.pipeline.preparation import run_preparation

    dataset = run_preparation(config)
    outcome = Outcome.of_tables(dataset.manifest, dataset.photos(), dataset.rejected())
    path = dataset.root.uri
    return Prepared(path, outcome.account() | {"dataset": path})


def train(
    data: Path | None = None,
    *,
    storage: Path = STORAGE,
    preset: str | None = None,
    **settings: Any,
) -> Run:
    """The whole job; the same call again continues an interrupted run, or finds it finished.

    Args:
        data: as :func:`prepare`.
        storage: as :func:`prepare`.
        preset: ``sample`` (default without photos), ``laptop`` (default with photos) or
            ``cluster``.
        settings: see :mod:`catdog.pipeline.api`: ``models=["base_cnn"]``, ``scratch__epochs=3``,
            ``sweep__trials=0``, ``name="first"``, …

    Raises:
        UserError: something given cannot be used.
        RunFailed: training came to no result.
    """
    config = config_of(data, storage, settings, preset)
    use_onednn()
    from catdog.pipeline.job import run_job

    return Run(run_job(config).parent.uri)


def tune(
    model: str,
    data: Path | None = None,
    *,
    storage: Path = STORAGE,
    preset: str | None = None,
    **settings: Any,
) -> Tuning:
    """A sweep of the training of ``model`` alone, tried on validation photos.

    Args:
        model: a backbone: ``efficientnet_lite0``, ``inception_v3`` or ``resnet50v2``.
        data: as :func:`prepare`.
        storage: as :func:`prepare`.
        preset: as :func:`train`.
        settings: see :mod:`catdog.pipeline.api`: ``sweep__trials=16``, ``sweep__stage="head"``, …

    Raises:
        UserError: something given cannot be used.
        RunFailed: no trial came to a result.
    """
    swept = {"models": [model], "sweep__model": model}
    config = config_of(data, storage, swept | settings, preset)
    use_onednn()
    import yaml

    from catdog.pipeline.job import run_sweep

    chosen = run_sweep(config)
    best = yaml.safe_load(chosen.read_text())
    group = "fine_tune" if config.weights_of(config.models[0]).pretrained else "scratch"
    trials = (chosen.parent / "trials.json").read_json()["trials"]
    settings = {group: best[group], "sweep": {"trials": 0}}
    return Tuning(chosen.uri, model, settings, trials)


def predict(model: Path | Run, data: Path) -> pd.DataFrame:
    """A finished model over photos without labels.

    Args:
        model: a run (its report's best model), or one of its models.
        data: a photo, folder, archive, table with a column ``path``, or bucket.

    Returns:
        A row for each file: ``uri``, ``label``, ``probability`` (of that label, calibrated),
        ``probability_dog``, and ``reason`` and ``detail`` of a file that is no photo. Its
        ``attrs["warning"]`` says why answers may mislead, where that is known.

    Raises:
        UserError: there is no such model or no such photo.
    """
    use_onednn()
    from catdog.inference.finished import find_model
    from catdog.inference.prediction import predicted

    found = find_model(_path(model))
    table = predicted(found, os.fspath(data))
    if found.warning:
        table.attrs["warning"] = found.warning
    return table


def load(model: Path | Run) -> Loaded:
    """A finished model as Keras knows it, and its calibration.

    Args:
        model: as :func:`predict`.

    Raises:
        UserError: there is no such model.
    """
    use_onednn()
    from catdog.inference.finished import find_model
    from catdog.models.saving import load_keras

    found = find_model(_path(model))
    return Loaded(load_keras(found.file), _calibration(found.temperature))


def _calibration(temperature: float) -> Callable[[Any], NDArray[np.float64]]:
    def calibrate(outputs: Any) -> NDArray[np.float64]:
        """Probabilities as the model gives them → calibrated ones."""
        given = np.asarray(outputs, np.float64)
        # What float32 has rounded to 0 or 1 stays there.
        with np.errstate(divide="ignore"):
            logits = np.log(given) - np.log1p(-given)
        calibrated: NDArray[np.float64] = 1 / (1 + np.exp(-logits / temperature))
        return calibrated

    return calibrate


def config_of(
    data: Path | None, storage: Path, settings: Mapping[str, Any], preset: str | None = None
) -> Config:
    """The settings that a call asks for.

    Raises:
        UserError: there is no such preset or setting, or a value does not fit.
    """
    changes = _tree(settings)
    chosen = preset or changes.pop("preset", None) or ("sample" if data is None else "laptop")
    if chosen not in PRESETS:
        hint = did_you_mean(nearest(str(chosen), PRESETS))
        raise UserError(f"there is no preset {chosen!r}{hint}")
    if isinstance(changes.get("models"), str):
        changes["models"] = [changes["models"]]
    tree = changed(PRESETS[chosen]().model_dump(mode="json"), changes)
    source = None if data is None else Location.of(data).uri
    tree |= {"preset": chosen, "storage": Location.of(storage).uri}
    tree["data"] = tree["data"] | {"source": source}
    return Config.from_tree(tree, "")


def _tree(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"scratch__epochs": 3}`` → ``{"scratch": {"epochs": 3}}``"""
    tree: dict[str, Any] = {}
    for name, value in settings.items():
        *groups, key = name.split("__")
        branch: dict[str, Any] = {key: value}
        for group in reversed(groups):
            branch = {group: branch}
        tree = merged(tree, branch)
    return tree


def _path(model: Path | Run) -> str:
    return model.path if isinstance(model, Run) else os.fspath(model)
