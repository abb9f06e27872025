"""``compute.xla``: TensorFlow's XLA compiles what one worker computes, and the result stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import make_job, train_here, write_rows

DRIVER = """
import json, sys
from dataclasses import replace
from pathlib import Path
from catdog.cluster.connection import connected
from catdog.runs.messages import EpochEnded
from catdog.storage import Location
from catdog.training.pool import train
from catdog.cluster.workers import Workers
from tests.tiny import make_job

folder, told = Path(sys.argv[1]), []
workers = Workers(count=1, cpus=2, use_gpu=False, precision="float32")
job = replace(make_job(folder, "compiled", dropout=0.0, epochs=2), xla=True)
with connected():
    train([job], workers, Location.of(str(folder / "ray")), told.append)
print(json.dumps([message.row.val_loss for message in told if isinstance(message, EpochEnded)]))
"""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_worker_computes_in_clusters_of_xla(project: Path, tmp_path: Path) -> None:
    write_rows(tmp_path)
    compiled = tmp_path / "xla"
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": f"--xla_dump_to={compiled}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = {file.name.split(".")[0] for file in compiled.glob("module_*.cluster_*")}
    assert modules, "XLA compiled nothing"
    losses = json.loads(done.stdout.splitlines()[-1])
    plain = train_here(make_job(tmp_path, "plain", dropout=0.0, epochs=2))
    assert losses == pytest.approx([row.val_loss for row in plain], abs=0.02)
