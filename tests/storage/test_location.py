"""Locations: local paths and URIs alike, written whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from catdog.errors import UserError
from catdog.storage import Location

S3 = "s3://bucket/photos/?endpoint_override=http://127.0.0.1:1&scheme=http&region=us-east-1"


def test_joining_keeps_the_query_at_the_end() -> None:
    joined = Location.of(S3) / "train" / "0.arrow"
    assert joined.uri == (
        "s3://bucket/photos/train/0.arrow"
        "?endpoint_override=http://127.0.0.1:1&scheme=http&region=us-east-1"
    )
    assert joined.path == "bucket/photos/train/0.arrow"
    assert joined.parent.parent == Location.of(S3)


def test_what_people_see_holds_neither_query_nor_credentials() -> None:
    location = Location("s3://key:secret@bucket/photos?endpoint_override=http://host")
    assert str(location) == "s3://bucket/photos"


def test_a_relative_path_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Location.of("runs").local_path == tmp_path / "runs"


def test_a_location_travels_to_workers() -> None:
    location = Location.of(S3)
    assert pickle.loads(pickle.dumps(location)) == location


def test_an_unknown_scheme_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"ftp://.*give a folder"):
        Location.of("ftp://host/photos")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Location.of(tmp_path / "run.json")
    target.write_json({"status": "old"})

    def no_space(source: str, destination: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(OSError, match="No space left"):
        target.write_json({"status": "new"})
    assert target.read_json() == {"status": "old"}
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


def test_a_missing_folder_is_empty(tmp_path: Path) -> None:
    assert Location.of(tmp_path / "nothing").list() == []
    assert Location.of(tmp_path / "nothing").folders() == ()
    assert not Location.of(tmp_path / "nothing").exists()


def test_free_space_is_that_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    free = Location.of(tmp_path / "a" / "b").free_bytes()
    assert free is not None
    assert free > 0
    assert Location.of(S3).free_bytes() is None
