"""A flag that is misspelled or out of range: one line and exit code 2 from every job."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "command, expected",
    [
        ("train.py --dta photos", "--dta"),
        ("tune.py --model resnet50v2 --dta photos", "--dta"),
        ("report.py runs/a --prise 3", "--prise"),
        ("report.py", "RUN_DIR"),
        ("report.py runs/a --price-per-hour much", "is not a price"),
        ("predict.py --model runs/a --data b --ot c", "--ot"),
        ("export.py runs/a --formats tflite", "tflite"),
        ("serve.py --model runs/a --replicas 0", "1 or more"),
        ("serve.py --model runs/a --replicas many", "1 or more"),
        ("benchmark.py nothing", "nothing"),
        ("benchmark.py feed --rounds 0", "1 or more"),
        ("benchmark.py feed --data /no/photos", "there is no /no/photos"),
    ],
)
def test_a_mistake_is_one_line(project: Path, tmp_path: Path, command: str, expected: str) -> None:
    job, *arguments = command.split()
    done = subprocess.run(
        [sys.executable, str(project / "jobs" / job), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert expected in line
    assert list(tmp_path.iterdir()) == []
