"""``catdog prepare``: the account of every file, also where it stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from catdog.cli.main import run
from catdog.data import sample

SIZE = ["--image-size", "96"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 drawings and six bad files, one of which has no label."""
    folder = tmp_path_factory.mktemp("photos")
    sample.draw(folder, 40, 0, 96)
    return folder


def account(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["files"] == found["kept"] + sum(found["rejected"].values()) + found["ignored"]
    in_splits = sum(n for classes in found["splits"].values() for n in classes.values())
    assert in_splits == found["kept"] - found["held_back"]
    return found


def test_every_file_is_accounted_for_and_the_second_time_found(
    cluster: None, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, given = tmp_path / "account.json", [str(photos), "--storage", str(tmp_path), *SIZE]
    assert run("prepare", [*given, "--max-rejected", "1", "--json", str(file)]) == 0
    shown = capsys.readouterr().out.splitlines()
    found = account(file)
    assert found["files"] == 46
    assert set(found["splits"]) == {"train", "val", "test"}
    assert found["rejected"]["no_label"] == 1
    assert (Path(found["dataset"]) / "manifest.json").exists()
    assert shown[-1] == found["dataset"]
    assert any(line.startswith(f"46 files, {found['kept']} kept") for line in shown)
    assert run("prepare", [*given, "--json", str(file)]) == 0
    assert account(file) == found


def test_a_file_that_cannot_be_written_is_told_before_anything_is_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("prepare", ["--storage", str(tmp_path / "runs"), "--json", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"error: --json {tmp_path} is a folder; give a file"
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "flags, said",
    [
        (["--max-rejected", "0.01"], "more than the 1% allowed"),
        (["--set", "data.min_per_class=30"], "fewer than 30"),
    ],
)
def test_where_it_stops_the_account_is_written_too(
    flags: list[str],
    said: str,
    cluster: None,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "account.json"
    given = ["--data", str(photos), "--storage", str(tmp_path), *SIZE, "--json", str(file)]
    assert run("prepare", [*given, *flags]) == 2
    found = account(file)
    assert found["files"] == 46
    assert found["dataset"] is None
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert said in shown.err.splitlines()[0]
    assert "no_label: 1" in shown.err, "the reasons with examples"
    assert "46 files" in shown.out
