"""``catdog runs``: what a storage holds, how far a run is, and what may be removed."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from catdog import runs
from catdog.cli.main import run
from catdog.presets import sample
from catdog.runs import Events, RunDirectory, lease, leases
from catdog.storage import Location

if TYPE_CHECKING:
    from tests.store import S3

LONG_AGO = (datetime.now(UTC) - timedelta(days=90)).timestamp()
SET, OTHER_SET = "0123456789ab", "ba9876543210"
FEATURES, OTHER_FEATURES = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def a_run(storage: Location, name: str, status: str, **record: Any) -> RunDirectory:
    """A run with one model, which uses :data:`SET` and :data:`FEATURES`."""
    config = sample().model_copy(update={"storage": storage.uri, "name": name})
    made = RunDirectory.of(config)
    made.claim(config)
    asked = runs.asked(config)
    made.update(status=status, asked=asked, **({"features": [FEATURES]} | record))
    (made.data / "manifest.json").write_json({"fingerprint": SET})
    (made.model("base_cnn") / "model.keras").write_bytes(b"x" * 3000)
    return made


def finish(made: RunDirectory, accuracy: float) -> None:
    model = {"name": "base_cnn", "test": {"accuracy": accuracy, "loss": 0.5}}
    best = {"name": "base_cnn", "run": made.root.name}
    tree = {"run": {"name": made.root.name}, "best": best, "models": [model]}
    (made.root / "report.json").write_json(tree)


def a_set(storage: Location, name: str) -> Location:
    root = storage / "datasets" / name
    (root / "pixels" / "0.arrow").write_bytes(b"x" * 1000)
    (root / "manifest.json").write_json({"fingerprint": name, "shards": []})
    return root


def features(storage: Location, name: str) -> Location:
    root = storage / "features" / name
    (root / "train" / "00000000.arrow").write_bytes(b"x" * 1000)
    (root / "manifest.json").write_json({"files": {}})
    return root


def age(made: RunDirectory) -> None:
    """As if nothing had been written for three months."""
    for file in made.root.local_path.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))


@pytest.fixture
def storage(tmp_path: Path) -> Location:
    return Location.of(tmp_path / "runs")


@pytest.fixture
def quick_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 2.0)
    monkeypatch.setattr(leases, "SKEW_S", 0.0)
    monkeypatch.setattr(leases, "RENEW_S", 0.2)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run("runs", list(arguments)) == code
    printed = capsys.readouterr()
    return printed.err if code else printed.out


def test_each_run_is_listed_with_its_best_model_and_size(
    storage: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(a_run(storage, "photos", "finished"), 0.9312)
    # Named like a folder of the storage, and like a folder within another.
    a_run(storage, "drawings", "failed")
    a_run(storage, "group/night", "running")
    a_set(storage, SET)
    (storage / "letters" / "note.txt").write_text("not ours")
    text = shown(capsys, "list", "--storage", storage.uri)
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert set(rows) == {"run", "photos", "drawings", "group/night"}
    assert "finished" in rows["photos"]
    assert "0.931 base_cnn" in rows["photos"]
    assert "KiB" in rows["photos"]
    assert "failed" in rows["drawings"]
    assert "interrupted" in rows["group/night"], "nobody holds it"


def test_a_run_that_somebody_works_on_is_running(
    storage: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    made = a_run(storage, "photos", "running")
    with lease(made):
        assert "running" in shown(capsys, "list", "--storage", storage.uri)


def test_the_status_tells_stage_epoch_and_what_is_left(
    storage: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    made = a_run(storage, "photos", "running")
    events = Events.open(made)
    events.add("begin", command="catdog train")
    events.add("stage", name="training")
    events.add("training", model="base_cnn", workers=2)
    events.add("epoch", model="base_cnn", epochs=6, epoch=1, seconds=100.0)
    events.add("epoch", model="base_cnn", epochs=6, epoch=2, seconds=100.0)
    before = {f: f.stat().st_mtime_ns for f in storage.local_path.rglob("*")}
    with lease(made):
        text = shown(capsys, "status", "photos", "--storage", storage.uri)
        by_path = shown(capsys, "status", str(made.root))
    facts = dict(line.split(maxsplit=1) for line in text.splitlines())
    assert (facts["status"], facts["stage"]) == ("running", "training")
    assert (facts["model"], facts["epoch"]) == ("base_cnn", "2/6")
    assert facts["left"].startswith(("about 6:4", "about 6:39"))
    assert "epoch 2/6 of base_cnn" in facts["last"]
    assert facts["last"].endswith("s ago")
    assert by_path.splitlines()[1:4] == text.splitlines()[1:4]
    after = {f: f.stat().st_mtime_ns for f in before if f != storage.local_path / "photos"}
    assert all(before[f] == when for f, when in after.items()), "it reads alone"
    left = shown(capsys, "status", "photos", "--storage", storage.uri)
    assert "interrupted" in left
    assert "left" not in left


def test_the_status_of_a_sweep_and_of_a_failure(
    storage: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    made = a_run(storage, "photos", "failed", error="the disk is full")
    events = Events.open(made)
    events.add("begin", command="catdog train")
    events.add("stage", name="sweep")
    for key in ("000", "001", "001"):
        events.add("trial", id=key, epoch=1)
    text = shown(capsys, "status", "photos", "--storage", storage.uri)
    assert "trials  2/3" in text
    assert "error   the disk is full" in text
    near = shown(capsys, "status", "photo", "--storage", storage.uri, code=2)
    assert near.strip().endswith("did you mean photos?")


def test_nothing_is_removed_without_yes_and_then_what_no_run_uses(
    storage: Location, capsys: pytest.CaptureFixture[str], quick_leases: None
) -> None:
    used = a_run(storage, "photos", "finished")
    failed, young = a_run(storage, "old", "failed"), a_run(storage, "young", "failed")
    (failed.root / "notes.txt").write_text("why it failed")
    age(failed)
    age(used)
    kept, unused = a_set(storage, SET), a_set(storage, OTHER_SET)
    rows, rest = features(storage, FEATURES), features(storage, OTHER_FEATURES)
    partial = storage / "features" / "cccccccccccc"
    (partial / "val" / "00000000.arrow").write_bytes(b"x")
    foreign = [
        storage / "datasets" / "holiday" / "manifest.json",
        storage / "datasets" / "cccccccccccc" / "manifest.json",
        storage / "features" / "dddddddddddd" / "thesis.pdf",
        storage / "notes" / "run.json",
    ]
    for file in foreign:
        file.write_json({"mine": True})

    text = shown(capsys, "prune", "--storage", storage.uri)
    assert "nothing is removed without --yes" in text
    for name in ("old", OTHER_SET, OTHER_FEATURES, partial.name):
        assert any(line.startswith(f"{name} ") for line in text.splitlines()), name
    assert not any(line.startswith(("young ", "photos ", "notes ")) for line in text.splitlines())
    assert all(place.exists() for place in (failed.root / "run.json", unused, rest, partial))

    text = shown(capsys, "prune", "--storage", storage.uri, "--yes")
    assert "removed 4 of 4" in text
    assert not any(place.exists() for place in (unused, rest, partial))
    assert [f.name for f in failed.root.local_path.iterdir()] == ["notes.txt"]
    assert all(place.exists() for place in (used.root, young.root, kept, rows, *foreign))
    assert "nothing to remove" in shown(capsys, "prune", "--storage", storage.uri, "--yes")


def test_what_lies_elsewhere_and_is_linked_to_stays(
    storage: Location, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    elsewhere = Location.of(tmp_path / "elsewhere")
    failed, rows = a_run(elsewhere, "old", "failed"), a_set(elsewhere, OTHER_SET)
    age(failed)
    (storage / "datasets").mkdir()
    (storage.local_path / "old").symlink_to(failed.root.local_path)
    (storage.local_path / "datasets" / OTHER_SET).symlink_to(rows.local_path)
    text = shown(capsys, "prune", "--storage", storage.uri, "--yes")
    assert "nothing to remove" in text
    assert failed.read()
    assert (rows / "manifest.json").exists()


def test_a_run_that_somebody_holds_stays_with_all_that_it_may_use(
    storage: Location, capsys: pytest.CaptureFixture[str], quick_leases: None
) -> None:
    made = a_run(storage, "old", "failed")
    (made.data / "manifest.json").delete()  # it has not come to its photos yet
    age(made)
    unused = a_set(storage, OTHER_SET)
    with lease(made):
        text = shown(capsys, "prune", "--storage", storage.uri, "--older-than", "0", "--yes")
        assert "old is being worked on" in text
        assert made.read()
    assert unused.exists()


def test_a_lease_that_looks_old_and_is_renewed_is_held(
    storage: Location,
    capsys: pytest.CaptureFixture[str],
    quick_leases: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = a_run(storage, "old", "failed")
    age(made)
    monkeypatch.setattr("catdog.runs.inventory.is_held", lambda run: False)  # a clock that differs
    with lease(made):
        time.sleep(0.5)
        age(made)
        text = shown(capsys, "prune", "--storage", storage.uri, "--older-than", "0", "--yes")
        assert "old stays: " in text
        assert (made.model("base_cnn") / "model.keras").exists()


def test_features_stay_where_an_older_run_does_not_say_which_it_uses(
    storage: Location, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(storage, "photos", "finished", features=None)
    rows = features(storage, OTHER_FEATURES)
    text = shown(capsys, "prune", "--storage", storage.uri, "--yes")
    assert "features stay: photos" in text
    assert rows.exists()


@pytest.fixture
def bucket(s3: S3, store_keys: None) -> Location:
    return s3.location("pruned")


def test_all_of_it_works_in_a_bucket(
    bucket: Location, capsys: pytest.CaptureFixture[str], quick_leases: None
) -> None:
    made = a_run(bucket, "photos", "finished")
    finish(made, 0.9)
    failed = a_run(bucket, "broken", "failed")
    Events.open(failed).add("stage", name="data")
    kept, unused = a_set(bucket, SET), a_set(bucket, OTHER_SET)
    rest = features(bucket, OTHER_FEATURES)
    text = shown(capsys, "list", "--storage", bucket.uri)
    assert "0.900 base_cnn" in text
    assert "stage data" in shown(capsys, "status", "broken", "--storage", bucket.uri)
    time.sleep(0.1)
    text = shown(capsys, "prune", "--storage", bucket.uri, "--older-than", "0", "--yes")
    assert "removed 3 of 3" in text
    left = [info.path for info in bucket.list(recursive=True)]
    assert not [p for p in left if OTHER_SET in p or OTHER_FEATURES in p or "broken" in p]
    assert not unused.exists()
    assert not rest.exists()
    assert kept.exists()
    assert made.read().status == "finished"
