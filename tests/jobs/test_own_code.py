"""Every job runs the code of the checkout that it lies in, whatever else is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOBS = sorted(path.name for path in (Path(__file__).resolve().parents[2] / "jobs").glob("*.py"))


@pytest.mark.parametrize("job", JOBS)
def test_a_job_runs_its_own_checkout_and_not_an_installed_copy(
    project: Path, tmp_path: Path, job: str
) -> None:
    installed = tmp_path / "catdog"
    installed.mkdir()
    (installed / "__init__.py").write_text("raise SystemExit('the installed copy was loaded')\n")
    done = subprocess.run(
        [sys.executable, str(project / "jobs" / job), "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
