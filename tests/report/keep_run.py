"""Make ``tests/report/run`` again: the files of one small real run that a report reads.

    python -m tests.report.keep_run FOLDER

trains in ``FOLDER`` (two minutes on two idle cores), exports the base CNN and copies what is
needed: no weights, no checkpoints, and of the pictures the first few.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

KEPT = Path(__file__).with_name("run")
JOB = (
    "--name kept --models base_cnn resnet50v2 efficientnet_lite0 --seeds 2 --epochs 3 "
    "--fine-tune-epochs 2 --trials 5 --workers 1 --set data.drawings=300 --set sweep.epochs=2"
)
FILES = (
    "run.json", "config.yaml", "events.jsonl", "data/*", "models/*/history.json",
    "models/*/model.json", "models/*/exports.json", "models/*/predictions.parquet",
    "models/*/seeds/*/model.json", "models/*/seeds/*/predictions.parquet", "sweeps/*/trials.json",
)  # fmt: skip
#: Pictures, and how many of each file are kept.
PICTURES = {"artifacts/thumbnails.parquet": 24, "models/*/artifacts/gradcam.parquet": 4}


def main(folder: Path) -> None:
    train = [sys.executable, "jobs/train.py", "--storage", str(folder), *JOB.split()]
    subprocess.run(train, check=True)
    run = folder / "kept"
    subprocess.run([sys.executable, "jobs/export.py", str(run / "models/base_cnn")], check=True)
    keep(run)


def keep(run: Path) -> None:
    shutil.rmtree(KEPT, ignore_errors=True)
    for pattern in FILES:
        for file in run.glob(pattern):
            _write(file.relative_to(run), file.read_bytes())
    for pattern, most in PICTURES.items():
        for file in run.glob(pattern):
            content = io.BytesIO()
            pd.read_parquet(file).head(most).to_parquet(content, index=False)
            _write(file.relative_to(run), content.getvalue())


def _write(name: Path, content: bytes) -> None:
    (KEPT / name).parent.mkdir(parents=True, exist_ok=True)
    (KEPT / name).write_bytes(content)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
