"""Find a finished run's model, its calibration and its test photos."""

from __future__ import annotations

import io
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from catdog.config import Config
from catdog.data import sample, sources
from catdog.data.inspection import contents
from catdog.data.prepare import PreparedSet, find
from catdog.data.unpacking import unpacked
from catdog.errors import UserError, did_you_mean, nearest
from catdog.evaluation.metrics import fit_temperature
from catdog.storage import Location
from catdog.storage.access import check_readable

FILE = "model.keras"
OF_DRAWINGS = (
    "this model has seen only the built-in drawings: its answers about photographs mean nothing, "
    "however sure it is; train one on photographs: --data PHOTOS"
)


@dataclass(frozen=True)
class FinishedModel:
    """What prediction needs to know of a model; small, and may be sent to workers.

    Attributes:
        folder: ``RUN_DIR/models/NAME``.
        temperature: logits are divided by it; fitted on the run's validation photos.
        note: why the temperature is no ordinary optimum, empty where it is one.
        warning: why its answers may mislead, for people; empty where nothing is known.
    """

    name: str
    folder: Location
    temperature: float
    note: str = ""
    warning: str = ""

    @property
    def file(self) -> Location:
        return self.folder / FILE

    @property
    def run(self) -> Location:
        """The run directory, two folders up."""
        return self.folder.parent.parent


def find_model(given: str) -> FinishedModel:
    """The model at ``RUN_DIR/models/NAME``, or the best one of the run at ``RUN_DIR``.

    Raises:
        UserError: there is none, nothing says which of several is the best, or its store cannot be
            reached.
    """
    check_readable(given, "--model")
    place = Location.of(given)
    if (place / FILE).exists():
        return _calibrated(place)
    if not place.exists():
        near = [str(place.parent / name) for name in nearest(place.name, place.parent.folders())]
        hint = did_you_mean(near) or "; give a run directory or RUN_DIR/models/NAME"
        raise UserError(f"--model: there is no {place}{hint}")
    if not (place / "run.json").exists():
        raise UserError(f"--model: {place} holds neither a run (run.json) nor a model ({FILE})")
    folder = place / "models" / _best_of(place)
    if not (folder / FILE).exists():
        raise UserError(f"--model: the best model of {place} has no file {folder / FILE}")
    return _calibrated(folder)


def _best_of(run: Location) -> str:
    """The report's best model; of a report on several runs, the most accurate of this one."""
    try:
        report = (run / "report.json").read_json()
    except FileNotFoundError:
        raise UserError(
            f"--model: {run} has no report yet that says which model is best; "
            f"name one: {run}/models/NAME"
        ) from None
    best = report.get("best") or {}
    if best.get("run") == report["run"]["name"]:
        return str(best["name"])
    tested = [model for model in report["models"] if model.get("test")]
    if not tested:
        raise UserError(f"--model: no model of {run} has test results; name one: {run}/models/NAME")
    return str(max(tested, key=lambda m: (m["test"]["accuracy"], -m["test"]["loss"]))["name"])


def _calibrated(folder: Location) -> FinishedModel:
    rows = predictions(folder, "val")
    value, note = 1.0, "no validation predictions to calibrate by"
    if rows is not None:
        fitted = fit_temperature(rows["label"].to_numpy(), rows["logit"].to_numpy(np.float64))
        value, note = fitted.value, fitted.note
    warning = OF_DRAWINGS if _is_of_drawings(folder.parent.parent) else ""
    return FinishedModel(folder.name, folder, value, note, warning)


def _is_of_drawings(run: Location) -> bool:
    """Whether the run was trained on the built-in drawings; a model without its run: not known."""
    try:
        return bool((run / "data" / "manifest.json").read_json().get("sample"))
    except FileNotFoundError:
        return False


def predictions(folder: Location, split: str) -> pd.DataFrame | None:
    """Rows of ``predictions.parquet`` of one split, each photo once; ``None`` without any."""
    try:
        table = pd.read_parquet(io.BytesIO((folder / "predictions.parquet").read_bytes()))
    except FileNotFoundError:
        return None
    rows = table[table["split"] == split].drop_duplicates("uri").sort_values("uri")
    finite = np.isfinite(rows["logit"]).all()
    return rows if len(rows) and finite else None


@dataclass(frozen=True)
class TestPhotos:
    """In the order of the prepared set.

    Attributes:
        pixels: uint8 (n, side, side, 3).
        jpegs: rows of ``pixels`` whose file is a JPEG, and the files' bytes (object arrays).
    """

    __test__ = False  # for pytest, which collects by name

    uris: list[str]
    pixels: NDArray[np.uint8]
    jpegs: tuple[NDArray[np.int64], NDArray[Any]]


def photos_of(run: Location) -> TestPhotos:
    """The test photos of the run at ``run``.

    Raises:
        UserError: the prepared set or the photos are no longer there.
    """
    config = config_of(run)
    rows = prepared_set(run).rows("test")
    return TestPhotos(rows.uris, rows.gather(np.arange(len(rows))), _jpegs(run, config, rows.uris))


def config_of(run: Location) -> dict[str, Any]:
    """The run's settings as they were written, empty values left as they are."""
    try:
        tree = yaml.safe_load((run / "config.yaml").read_text())
    except FileNotFoundError:
        raise UserError(f"{run} has no config.yaml, so its photos cannot be found") from None
    return Config.from_tree(tree, str(run / "config.yaml")).model_dump(mode="json")


def prepared_set(run: Location) -> PreparedSet:
    """The prepared set that the run was trained on.

    It lies beside the run, as the run was named now: what ``config.yaml`` says of a storage is
    without the keys that its URI may have carried.
    """
    fingerprint = (run / "data" / "manifest.json").read_json()["fingerprint"]
    found = find(run.parent, fingerprint)
    if found is None:
        raise UserError(
            f"the prepared photos of {run} are not in {run.parent}/datasets/{fingerprint} "
            "any more; the run's own command prepares them again"
        )
    return found


def _jpegs(
    run: Location, config: dict[str, Any], uris: list[str]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    data = config["data"]
    source = data["source"]
    if source is None:
        drawn = (data["drawings"], config["seed"], data["image_size"])
        source = sample.drawn(run.parent, *drawn).uri
    row_of = {uri: row for row, uri in enumerate(uris)}
    where, files = [], []
    with tempfile.TemporaryDirectory(prefix="catdog-photos-") as folder:
        listing = unpacked(sources.list_source(source, labelled=False), lambda: Location.of(folder))
        wanted = listing.files.filter(
            pc.is_in(listing.files.column("uri"), value_set=pa.array(uris))
        )
        for entry, content in contents(wanted, listing.bases):
            if isinstance(content, bytes) and content.startswith(b"\xff\xd8\xff"):
                where.append(row_of[entry["uri"]])
                files.append(content)
    if not files:
        raise UserError(f"the test photos of {run} cannot be read from {source} any more")
    return np.array(where), np.array(files, dtype=object)
