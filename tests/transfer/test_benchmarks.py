"""The parts of the benchmark about transfer learning, on a few drawings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def measured(project: Path, folder: Path, part: str) -> dict[str, Any]:
    file = folder / "b.json"
    done = subprocess.run(
        [
            sys.executable, "jobs/benchmark.py", part, "--photos=80", "--image-size=32",
            "--backbone=resnet50v2", "--rounds=1", f"--json={file}", f"--work={folder}",
        ],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
        timeout=880,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["b.json"]
    found: dict[str, Any] = json.loads(file.read_text())[part]
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sweep_writes_its_part_of_the_contract(project: Path, tmp_path: Path) -> None:
    found = measured(project, tmp_path, "sweep")
    assert found["model"] == "resnet50v2"
    assert found["trials"] == 6
    assert found["plain_trials_measured"] == 2
    assert found["speedup"] > found["speedup_with_extraction"] > 1
    assert found["real_photos"] is False
    assert set(found["cores"]) == {"sweep", "extraction", "plain"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_finetune_writes_its_part_of_the_contract(project: Path, tmp_path: Path) -> None:
    found = measured(project, tmp_path, "finetune")
    assert list(found) == ["resnet50v2"]
    backbone = found["resnet50v2"]
    assert backbone["speedup"] > 0
    assert len(backbone["seconds"]["kept"]) == len(backbone["seconds"]["plain"]) == 2
    assert backbone["cores"]["kept"] == backbone["cores"]["plain"]
