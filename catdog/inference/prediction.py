"""The predict command: find the model, list the photos, predict, write the table."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pandas as pd

from catdog import console
from catdog.data.sources import Listing
from catdog.errors import UserError
from catdog.inference.batch import Pool, list_photos, predict_files, predict_here
from catdog.inference.finished import FinishedModel, find_model
from catdog.storage import Location
from catdog.storage.access import check_readable

#: Ray's start takes longer than so many photos do.
FEW = 64
_WRITERS = {
    ".parquet": lambda table: table.to_parquet(index=False),
    ".csv": lambda table: table.to_csv(index=False).encode("utf-8"),
}


def run_prediction(model: str, data: str, out: str | None) -> None:
    """Answer for every file of ``data`` and say where the answers are.

    Raises:
        UserError: no such model, no such photos, or ``out`` of another kind.
    """
    check_readable(data, "--data")
    if out is not None:
        check_readable(out, "--out")
    chosen = find_model(model)
    listing = list_photos(data)
    single = len(listing.files) == 1 and not listing.archive
    target = None if single and out is None else _target(out or "predictions.parquet")
    if chosen.warning:
        console.caution(chosen.warning)
    with console.chatter_to(Path(tempfile.gettempdir()) / f"catdog-predict-{os.getpid()}.log"):
        table = _here(listing, chosen) if single else _on_ray(listing, chosen)
    if single:
        console.say(_sentence(table.iloc[0], chosen))
    else:
        console.say(_summary(table, chosen))
    if target is not None:
        target.write_bytes(_WRITERS[_ending(target)](table))
        console.say(str(target))


def predicted(model: FinishedModel, data: str) -> pd.DataFrame:
    """A row for every file of ``data``; a few are answered in this process, without Ray.

    Raises:
        UserError: no such photos.
    """
    check_readable(data, "--data")
    listing = list_photos(data)
    if len(listing.files) <= FEW and not listing.archive:
        return _here(listing, model)
    return _on_ray(listing, model)


def _target(out: str) -> Location:
    place = Location.of(out)
    if _ending(place) not in _WRITERS:
        raise UserError(f"--out {out}: give a file that ends in .parquet or .csv")
    if place.is_dir():
        raise UserError(f"--out {out} is a folder; give a file")
    if place.is_local and not os.access(_existing(place.local_path.parent), os.W_OK):
        raise UserError(f"--out {out}: no permission to write there")
    return place


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _ending(place: Location) -> str:
    return os.path.splitext(place.name)[1].lower()


def _here(listing: Listing, model: FinishedModel) -> pd.DataFrame:
    # Starting Ray and an actor costs some seconds more than the answer.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return predict_here(listing, model)


def _on_ray(listing: Listing, model: FinishedModel) -> pd.DataFrame:
    from catdog.cluster.connection import connected

    console.say(f"{len(listing.files)} files, {_named(model)}")
    with connected():
        console.doing("predicting")
        with console.progress("photos", 1.0) as advance:
            counted = console.counted(advance)
            return predict_files(listing, model, Pool.of_cluster(), counted)


def _named(model: FinishedModel) -> str:
    return f"{model.name} at temperature {model.temperature:.3f}" + (
        f" ({model.note})" if model.note else ""
    )


def _sentence(row: pd.Series, model: FinishedModel) -> str:
    if pd.notna(row["reason"]):
        detail = f": {row['detail']}" if row["detail"] else ""
        return f"{row['uri']}: no answer, {row['reason'].replace('_', ' ')}{detail}"
    return f"{row['uri']}: {row['label']}, probability {row['probability']:.4f} ({model.name})"


def _summary(table: pd.DataFrame, model: FinishedModel) -> str:
    parts = [f"{count} {label}s" for label, count in table["label"].value_counts().items()]
    bad = table["reason"].value_counts()
    if len(bad):
        reasons = ", ".join(f"{count} {reason}" for reason, count in bad.items())
        parts.append(f"{bad.sum()} no photos ({reasons})")
    return f"{len(table)} files: " + ", ".join(parts)
