"""Photos without labels through a finished model: on Ray, in one process, and as a job."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from catdog.data.decoding import Rejected
from catdog.errors import UserError
from catdog.inference import batch as predictions
from catdog.inference.batch import Pool, list_photos, predict_files, predict_here
from catdog.inference.finished import find_model
from catdog.storage import Location
from tests.store import BUCKET, S3

# The run that they share is made by the first of them, on a machine that may be busy.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def everything(finished_run: Any) -> pd.DataFrame:
    """Answers for all drawings of the run, good and bad, from Ray."""
    told: list[tuple[int, int]] = []
    listing = list_photos(str(finished_run.photos))
    table = predict_files(
        listing,
        find_model(str(finished_run.path)),
        Pool(count=1, cpus=1, use_gpu=False),
        lambda done, total: told.append((done, total)),
    )
    assert told[-1] == (len(listing.files), len(listing.files))
    return table


def test_every_file_has_one_row_in_the_order_of_its_path(
    everything: pd.DataFrame, finished_run: Any
) -> None:
    assert list(everything.columns) == list(predictions.COLUMNS)
    assert everything["uri"].tolist() == sorted(str(p) for p in finished_run.photos.iterdir())


def test_a_photo_of_the_run_gets_the_answer_that_the_run_gave(
    everything: pd.DataFrame, finished_run: Any
) -> None:
    folder = finished_run.path / "models" / "base_cnn"
    had = pd.read_parquet(folder / "predictions.parquet").set_index("uri")
    report = json.loads((finished_run.path / "report.json").read_text())
    temperature = report["models"][0]["calibration"]["temperature"]
    assert find_model(str(finished_run.path)).temperature == pytest.approx(temperature)
    now = everything.set_index("uri").loc[had.index]
    expected = 1 / (1 + np.exp(-had["logit"].astype(float) / temperature))
    np.testing.assert_allclose(now["probability_dog"], expected, atol=1e-5)
    said_dog = (now["label"] == "dog").to_numpy()
    np.testing.assert_array_equal(said_dog, (had["logit"] > 0).to_numpy())
    assert len(set(said_dog)) == 2, "a model that always says the same proves nothing"
    assert (now["probability"] >= 0.5).all()


def test_a_bad_file_has_the_reason_of_the_data_stage_and_no_answer(
    everything: pd.DataFrame, finished_run: Any
) -> None:
    rejected = pd.read_parquet(finished_run.path / "data" / "rejected.parquet")
    alone = rejected[~rejected["reason"].isin(["no_label", "label_conflict", "duplicate"])]
    assert len(alone) >= 3
    bad = everything.dropna(subset="reason").set_index("uri")
    assert bad["reason"].to_dict() == alone.set_index("uri")["reason"].to_dict()
    assert bad[["label", "probability", "probability_dog"]].isna().all().all()


def test_names_say_nothing_here_and_other_sources_give_the_same_answers(
    everything: pd.DataFrame, finished_run: Any, tmp_path: Path
) -> None:
    model = find_model(str(finished_run.path / "models" / "base_cnn"))
    known = everything.dropna(subset="label").head(5).set_index("uri")
    shutil.copytree(finished_run.photos, tmp_path / "all")
    with zipfile.ZipFile(tmp_path / "holiday.zip", "w") as archive:
        for number, uri in enumerate(known.index):
            archive.write(uri, f"IMG_{number}.jpg")
    pd.DataFrame({"path": known.index}).to_csv(tmp_path / "table.csv", index=False)
    for name in ("holiday.zip", "table.csv"):
        found = predict_here(list_photos(str(tmp_path / name)), model)
        np.testing.assert_allclose(
            found["probability_dog"], known["probability_dog"], atol=1e-5, err_msg=name
        )
    renamed = tmp_path / "IMG_0001.jpg"
    shutil.copy(known.index[0], renamed)
    single = predict_here(list_photos(str(renamed)), model)
    assert single["label"].tolist() == [known["label"].iloc[0]]


def test_an_archive_through_ray_is_unpacked_and_the_packs_are_gone(
    everything: pd.DataFrame, finished_run: Any, tmp_path: Path
) -> None:
    shutil.make_archive(str(tmp_path / "photos"), "zip", finished_run.photos)
    model = find_model(str(finished_run.path))
    listing = list_photos(str(tmp_path / "photos.zip"))
    found = predict_files(listing, model, Pool(1, 1, False))
    assert found["label"].tolist() == everything["label"].tolist()
    assert found["reason"].tolist() == everything["reason"].tolist()
    assert [path.name for path in tmp_path.iterdir()] == ["photos.zip"]


@pytest.mark.usefixtures("store_keys")
def test_model_and_photos_may_lie_in_a_bucket(
    everything: pd.DataFrame, finished_run: Any, s3: S3
) -> None:
    run = Location.of(s3.uri("answers/run"))
    folder = run / "models" / "base_cnn"
    for name in ("model.keras", "predictions.parquet"):
        (folder / name).write_bytes((finished_run.path / "models/base_cnn" / name).read_bytes())
    for name in ("run.json", "report.json"):
        (run / name).write_bytes((finished_run.path / name).read_bytes())
    known = everything.head(4)
    for number, uri in enumerate(known["uri"]):
        s3.put(f"answers/new/IMG_{number}.jpg", Path(uri).read_bytes())
    model = find_model(run.uri)
    assert model.run == run
    found = predict_here(list_photos(s3.uri("answers/new")), model)
    assert found["uri"].tolist() == [
        f"s3://{BUCKET}/answers/new/IMG_{number}.jpg" for number in range(4)
    ]
    assert found["label"].tolist() == known["label"].tolist()


def test_an_answer_is_calibrated_and_its_probability_is_that_of_its_label() -> None:
    sure = predictions.answer(4.0, 2.0)
    assert sure["label"] == "dog"
    assert sure["probability"] == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert predictions.answer(-4.0, 2.0)["probability"] == pytest.approx(sure["probability"])
    table = predictions.answers(["a", "b"], [Rejected("empty"), None], np.array([-4.0]), 2.0)
    assert table["label"].tolist()[1] == "cat"
    assert table["reason"].tolist()[0] == "empty"


def test_a_model_of_drawings_warns_and_one_of_photographs_does_not(
    finished_run: Any, tmp_path: Path
) -> None:
    assert "drawings" in find_model(str(finished_run.path)).warning
    copied = shutil.copytree(finished_run.path, tmp_path / "run")
    manifest = copied / "data" / "manifest.json"
    facts = json.loads(manifest.read_text())
    assert facts["sample"]
    manifest.write_text(json.dumps(facts | {"sample": False}))
    assert find_model(str(copied)).warning == ""
    manifest.unlink()
    assert find_model(str(copied)).warning == ""


@pytest.mark.parametrize(
    "path, words",
    [
        ("nothing", "there is no"),
        ("empty", "holds neither a run"),
        ("unfinished", "has no report yet"),
        ("untested", "no model of"),
        ("gone", "has no file"),
    ],
)
def test_a_model_that_is_not_there_is_told_in_one_line(
    tmp_path: Path, path: str, words: str
) -> None:
    model = {"name": "m", "test": {"accuracy": 0.9, "loss": 0.1}}
    reports: dict[str, Any] = {
        "unfinished": None,
        "untested": {"run": {"name": "r"}, "best": None, "models": [{"name": "m", "test": None}]},
        "gone": {"run": {"name": "r"}, "best": {"name": "m", "run": "other"}, "models": [model]},
    }
    (tmp_path / "empty").mkdir()
    for name, report in reports.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
        if report:
            (tmp_path / name / "report.json").write_text(json.dumps(report))
    with pytest.raises(UserError, match=words):
        find_model(str(tmp_path / path))


def job(project: Path, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(project / "jobs/predict.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=110, cwd=cwd
    )


def test_a_single_photo_is_answered_in_one_line(
    project: Path, finished_run: Any, everything: pd.DataFrame, tmp_path: Path
) -> None:
    row = everything.dropna(subset="label").iloc[0]
    done = job(project, "--model", finished_run.path, "--data", row["uri"], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    said = f"{row['uri']}: {row['label']}, probability {row['probability']:.4f} (base_cnn)\n"
    assert done.stdout == said
    (warning,) = [line for line in done.stderr.splitlines() if not line.startswith("… ")]
    assert warning.startswith("warning: this model has seen only the built-in drawings")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["answers.parquet", "answers.csv"])
def test_the_job_writes_a_table_and_names_it(
    project: Path, finished_run: Any, everything: pd.DataFrame, tmp_path: Path, name: str
) -> None:
    done = job(
        project, "--model", finished_run.path, "--data", finished_run.photos, "--out", name,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    *_, summary, place = done.stdout.splitlines()
    assert place == str(tmp_path / name)
    assert summary.startswith(f"{len(everything)} files: ")
    read = pd.read_csv if name.endswith("csv") else pd.read_parquet
    found = read(tmp_path / name)
    assert found["uri"].tolist() == everything["uri"].tolist()
    assert found["label"].isna().sum() == everything["label"].isna().sum()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--model", "/no/such/run", "--data", "."], "there is no /no/such/run"),
        (["--model", "RUN", "--data", "/no/photos"], "there is no /no/photos"),
        (["--model", "RUN", "--data", "EMPTY"], "holds no files"),
        (["--model", "RUN", "--data", "PHOTOS", "--out", "x.xlsx"], "ends in .parquet or .csv"),
        (["--model", "RUN"], "required: --data"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    project: Path, finished_run: Any, tmp_path: Path, arguments: list[str], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"RUN": finished_run.path, "EMPTY": tmp_path / "empty", "PHOTOS": finished_run.photos}
    done = job(project, *(places.get(part, part) for part in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert words in done.stderr
    assert done.stdout == ""


def test_help_imports_neither_ray_nor_tensorflow(project: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['jobs/predict.py', '--help']\n"
        "try: runpy.run_path('jobs/predict.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code in (0, None)\n"
        "assert not {'ray', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--model" in done.stdout
