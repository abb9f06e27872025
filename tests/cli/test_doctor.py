"""``catdog doctor``: each line says ok, note or problem, and what to do."""

from __future__ import annotations

import re
from collections import namedtuple
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from packaging.requirements import Requirement

from catdog.cli.main import run
from catdog.cluster import diagnosis, machine
from tests.cli.test_main import catdog

if TYPE_CHECKING:
    from tests.store import S3

Usage = namedtuple("Usage", "total used free")


def test_a_machine_that_trains_has_no_problem_and_nothing_slow_is_imported(
    tmp_path: Path,
) -> None:
    done = catdog("doctor", "--storage", str(tmp_path / "runs"))
    assert done.returncode == 0, done.stdout
    assert done.stderr == "[]\n"
    lines = done.stdout.splitlines()
    assert all(re.match(r"(ok|note) +\S", line) for line in lines)
    subjects = ("Python", "packages", "cores", "instructions", "GPU", "storage", "shared memory")
    assert all(any(f" {subject} " in line for line in lines) for subject in subjects)
    assert any("equal bits" in line for line in lines)
    assert not (tmp_path / "runs").exists(), "nothing is made"


def test_a_package_that_is_missing_or_too_old_is_a_problem() -> None:
    needed = tuple(map(Requirement, ("no-such-package>=1", "numpy<1", "pyarrow>=1")))
    missing, old = diagnosis.packages(needed)
    assert (missing.status, old.status) == ("problem", "problem")
    assert "no-such-package is missing; pip install" in missing.text
    assert re.search(r"numpy [\d.]+ is installed and <1 is needed", old.text)
    (fine,) = diagnosis.packages(needed[2:])
    assert fine.status == "ok"


def test_what_is_needed_is_that_of_the_project() -> None:
    needed = diagnosis.needs()
    assert {"ray", "tensorflow", "keras"} <= {each.name for each in needed.packages}
    assert diagnosis.python(needed.python).status == "ok"
    assert diagnosis.python(">=3.99").status == "problem"


@pytest.mark.parametrize(
    "sets, environment, status, said",
    [
        (("sse4_1",), "1", "problem", "need AVX"),
        (("sse4_1", "avx"), "1", "note", "each training proves"),
        (("sse4_1", "avx", "avx2"), "1", "ok", "oneDNN, which is on"),
        (("sse4_1", "avx", "avx2"), "0", "note", "unset TF_ENABLE_ONEDNN_OPTS"),
        (("sse4_1", "avx", "avx2", "avx512_bf16"), "1", "ok", "up to eight workers"),
    ],
)
def test_the_guarantee_of_equal_bits_is_told_by_the_instruction_set(
    sets: tuple[str, ...],
    environment: str,
    status: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "instruction_sets", lambda: sets)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", environment)
    found = diagnosis.instructions()
    assert (found.status, said in found.text) == (status, True)


def test_too_little_room_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: Usage(64 << 20, 60 << 20, 1 << 20))
    assert diagnosis.temporary().status == "note"
    shared = diagnosis.shared_memory()
    assert "--shm-size" in shared.text
    monkeypatch.setattr("catdog.storage.Location.free_bytes", lambda place: 1 << 20)
    (disk,) = diagnosis.store(str(tmp_path))
    assert disk.status == "problem"


def test_a_temporary_folder_that_ray_cannot_use_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "missing"))
    assert diagnosis.temporary().status == "problem"
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    assert "too long" in diagnosis.temporary().text


def test_a_storage_that_cannot_be_reached_ends_with_exit_code_1(
    store_keys: None, s3: S3, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("doctor", ["--storage", s3.location("doctor").uri]) == 0
    assert "can be read and written" in capsys.readouterr().out
    gone = "s3://bucket/runs?endpoint_override=http://127.0.0.1:9&scheme=http&region=us-east-1"
    assert run("doctor", ["--storage", gone]) == 1
    (line,) = (one for one in capsys.readouterr().out.splitlines() if " storage " in one)
    assert line.startswith("problem")
    assert "nobody answers at 127.0.0.1:9" in line
