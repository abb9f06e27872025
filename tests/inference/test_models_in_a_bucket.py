"""The model of a run that lies in a bucket, with its photos, is exported and served."""

from __future__ import annotations

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pandas as pd
import pytest

from catdog.config import DataSettings
from catdog.data.prepare import prepare
from catdog.inference.exports import run_export
from catdog.inference.finished import config_of, find_model
from catdog.inference.serving import Endpoint, serving
from catdog.storage import Location
from tests.store import BUCKET, KEYS, s3_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # Of Ray Serve's own making.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module")
def run(finished_run: Any) -> Iterator[Location]:
    """The finished run in a bucket, with drawings and a prepared set there.

    The key is part of the URI, so that Ray's workers, which were there before, have it too.
    """
    with s3_server() as store:
        storage = store.location("runs")
        run = storage / "run"
        store.put_folder(finished_run.path, "runs/run")
        config = config_of(run)
        dataset = prepare(DataSettings(**config["data"]), storage, config["seed"])
        (run / "data" / "manifest.json").write_json(dataset.manifest)
        folder = dataset.rows("test").uris[0].rpartition("/")[0]
        table = predictions(run)
        table["uri"] = [f"{folder}/{Path(uri).name}" for uri in table["uri"]]
        target = run / "models" / "base_cnn" / "predictions.parquet"
        target.write_bytes(table.to_parquet(index=False))
        yield run


def predictions(run: Location) -> pd.DataFrame:
    file = run / "models" / "base_cnn" / "predictions.parquet"
    return pd.read_parquet(io.BytesIO(file.read_bytes()))


def test_it_is_exported_and_its_report_renewed(
    run: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    run_export(run.uri, ["onnx", "saved_model"])
    folder = run / "models" / "base_cnn"
    exports = (folder / "exports.json").read_json()["formats"]
    for made in (exports["onnx"]["path"], f"{exports['saved_model']['path']}/saved_model.pb"):
        assert (folder / made).info().size > 10_000
    assert "SavedModel" in (run / "report.html").read_text()
    said = capsys.readouterr().out
    assert said.strip().splitlines()[-1] == f"s3://{BUCKET}/runs/run/report.html"
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in said


def test_it_is_served(run: Location, finished_run: Any) -> None:
    table = predictions(run)
    sure = table.loc[table["logit"].abs().idxmax()]
    photo = (finished_run.photos / Path(sure["uri"]).name).read_bytes()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving(find_model(run.uri), Endpoint(port=port)) as url:
        said = json.load(urlopen(url, data=photo, timeout=60))  # noqa: S310
    assert said["label"] == ("dog" if sure["logit"] > 0 else "cat")
