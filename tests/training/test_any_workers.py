"""Whole trainings under Ray, augmented and dropped out: the same bits on any number of workers.

That the machine's own kernels do this for the job as people run it is tested through
``jobs/train.py``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def trained(project: Path, *arguments: str, **settings: str) -> dict[str, Any]:
    """What ``any_workers.py`` prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.any_workers", *arguments],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project), "RAY_worker_niceness": "0"} | settings,
        capture_output=True,
        text=True,
        timeout=350,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.mark.parametrize("isa", ["SSE41", "AVX2"])
def test_older_cpus_come_to_the_same_bits_or_say_that_they_do_not(project: Path, isa: str) -> None:
    found = trained(project, "1", "2", "3", ONEDNN_MAX_CPU_ISA=isa)
    for one in found.values():
        if not one["facts"]["reproducible"]:
            assert isa == "SSE41"
            assert "depends on the number of workers" in one["said"][0]
            return
        assert not one["said"]
    first, *others = found.values()
    for other in others:
        assert other["history"] == first["history"]
        assert other["weights"] == first["weights"]


@pytest.mark.parametrize("last", ["TF_ENABLE_ONEDNN_OPTS=0", "ONEDNN_MAX_CPU_ISA=SSE41"])
def test_workers_with_other_kernels_are_told_of(project: Path, last: str) -> None:
    two = trained(project, "2", "--epochs", "1", "--last", last)["2"]
    assert two["facts"]["reproducible"] is False
    assert two["facts"]["varies"] == "the workers compute the same rows with different kernels"
    assert two["facts"]["varies"] in two["said"][0]
    assert "depends on the number of workers" in two["said"][0]
