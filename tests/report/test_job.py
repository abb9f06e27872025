"""``jobs/report.py`` as a user calls it, on a disk and on an S3-compatible store."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from catdog.report import build
from catdog.storage import Location
from tests.store import BUCKET, S3


@pytest.fixture
def job(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(project / "jobs/report.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_the_last_line_is_the_path_of_the_page(
    job: Callable[..., Any], new_run: Callable[..., Any]
) -> None:
    run = new_run(n_test=20)
    done = job(run.path, "--price-per-hour", "2.5")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(run.path / "report.html")
    assert (run.path / "report.html").exists()
    assert json.loads((run.path / "report.json").read_text())["price_per_hour"] == 2.5


def test_help_answers_at_once(job: Callable[..., Any]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = job("--help")
    assert done.returncode == 0
    assert "--price-per-hour" in done.stdout
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert spent < 1.5, f"{spent:.1f} s of processor time: does it import more than argparse?"


@pytest.mark.parametrize(
    "name, words", [("nothing", "there is no run at"), ("folder", "is not a run directory")]
)
def test_a_path_without_a_run_is_one_line(
    job: Callable[..., Any], tmp_path: Path, name: str, words: str
) -> None:
    (tmp_path / "folder").mkdir()
    done = job(tmp_path / name)
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_nothing_is_written_where_one_of_several_is_no_run(
    job: Callable[..., Any], new_run: Callable[..., Any], tmp_path: Path
) -> None:
    run = new_run(n_test=20)
    assert job(run.path, tmp_path / "nothing").returncode == 2
    assert not (run.path / "report.json").exists()


@pytest.mark.parametrize("price", ["cheap", "-1", "nan"])
def test_a_price_is_a_number(job: Callable[..., Any], price: str) -> None:
    done = job("somewhere", f"--price-per-hour={price}")
    assert done.returncode == 2
    assert "is not a price" in done.stderr


@pytest.mark.usefixtures("store_keys")
def test_a_run_on_an_s3_compatible_store(new_run: Callable[..., Any], s3: S3) -> None:
    run = new_run(n_test=20)
    s3.put_folder(run.path, "reported/photos")
    there = Location.of(s3.uri("reported/photos"))
    page = build([there])
    assert str(page) == f"s3://{BUCKET}/reported/photos/report.html"
    assert page.read_text().startswith("<!doctype html>")
    local = build([Location.of(run.path)])
    ours, theirs = ((at / "report.json").read_json() for at in (Location.of(run.path), there))
    assert ours == theirs
    assert "endpoint_override" not in page.read_text()
    assert local.exists()
