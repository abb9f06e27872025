"""The whole job with nothing but a bucket: killed, continued, the store away on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store import KEYS, S3, SECRET, s3_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL = ["--preset=sample", "--models=base_cnn", "--trials=0", "--epochs=2"]
#: Longer than the 10 s that one attempt at a request waits for an answer (catdog/storage/s3.py).
AWAY_S = 13.0

OnLine = Callable[[str, subprocess.Popen[str]], None]


@pytest.fixture
def bucket() -> Iterator[S3]:
    """A bucket with 106 drawings."""
    from catdog.data import sample
    from catdog.storage import Location

    with s3_server() as store, tempfile.TemporaryDirectory() as folder:
        drawings = sample.drawn(Location.of(folder), 100, 0, 96)
        store.put_folder(drawings.local_path, "photos")
        yield store


def job(
    project: Path,
    bucket: S3,
    cwd: Path,
    script: str,
    *arguments: str,
    on_line: OnLine | None = None,
    keys: dict[str, str] = KEYS,
) -> tuple[int, str]:
    """Run ``jobs/<script>.py`` in ``cwd``, ``keys`` in its environment; exit code and lines."""
    process = subprocess.Popen(
        [sys.executable, str(project / "jobs" / f"{script}.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        env=os.environ | keys | {"RAY_worker_niceness": "0", "PYTHONPATH": str(project)},
    )
    seen = []
    assert process.stdout is not None
    for line in process.stdout:
        seen.append(line)
        if on_line is not None:
            on_line(line, process)
    process.stdout.close()
    return process.wait(timeout=60), "".join(seen)


def once(text: str, act: Callable[[subprocess.Popen[str]], None]) -> OnLine:
    """Acts at the first line that holds ``text``."""
    left = [text]

    def on_line(line: str, process: subprocess.Popen[str]) -> None:
        if left and left[0] in line:
            left.clear()
            act(process)

    return on_line


def test_a_run_in_a_bucket_outlives_a_kill_and_a_store_that_is_away(
    project: Path, bucket: S3, tmp_path: Path, weights: Path
) -> None:
    places = [f"--data={bucket.uri('photos')}", f"--storage={bucket.uri('runs')}"]
    disturbed = [*SMALL, *places, "--name=disturbed", "--workers=2"]

    kill = once("base_cnn epoch 1/2  loss", lambda process: process.kill())
    code, said = job(project, bucket, tmp_path, "train", *disturbed, on_line=kill)
    assert code == -9, said

    refuse = once("base_cnn: going on", lambda process: bucket.refuse(AWAY_S))
    hang = once("── evaluation", lambda process: bucket.hang(AWAY_S))

    def both(line: str, process: subprocess.Popen[str]) -> None:
        refuse(line, process)
        hang(line, process)

    code, said = job(project, bucket, tmp_path, "train", *disturbed, on_line=both)
    assert code == 0, said
    assert "may be in use by another command; waiting up to 30 s" in said
    assert "base_cnn: going on after epoch" in said, said
    assert "base_cnn epoch 1/2  loss" not in said, "an epoch was trained twice"
    assert said.strip().splitlines()[-1] == "s3://bucket/runs/disturbed/report.html"
    assert json.loads(bucket.read("runs/disturbed/run.json"))["status"] == "finished"
    assert "runs/disturbed/lease.json" not in bucket.files("runs/disturbed")

    everything = bucket.files("runs")
    code, said = job(project, bucket, tmp_path, "train", *disturbed)
    assert (code, "nothing is left to do" in said) == (0, True), said
    page = bucket.read("runs/disturbed/report.html")
    code, said = job(project, bucket, tmp_path, "report", bucket.uri("runs/disturbed"))
    assert code == 0, said
    assert bucket.files("runs") == everything
    assert len(bucket.read("runs/disturbed/report.html")) == pytest.approx(len(page), rel=0.05)

    prepared = bucket.files("runs/datasets")
    bucket.put("weights/resnet.weights.h5", weights.read_bytes())
    found = f"{bucket.uri('weights/resnet.weights.h5', keys=True)},scale=-1..1"
    swept = [
        "--preset=sample",
        "--model=resnet50v2",
        # Of heads: checkpoints of a whole backbone would keep the store busy for minutes.
        "--stage=head",
        "--workers=1",
        "--name=swept",
        f"--data={bucket.uri('photos', keys=True)}",
        f"--storage={bucket.uri('runs', keys=True)}",
        f"--weights-for=resnet50v2={found}",
    ]
    code, told = job(project, bucket, tmp_path, "tune", *swept, keys={})
    assert code == 0, told
    assert bucket.files("runs/datasets") == prepared, "the photos were prepared twice"
    sweep = json.loads(bucket.read("runs/swept/sweeps/resnet50v2/trials.json"))
    assert [trial["error"] for trial in sweep["trials"]] == [None] * 6, told
    assert "runs/swept/sweeps/resnet50v2/best.yaml" in bucket.files("runs/swept")
    assert SECRET not in told
    # Under a URI that carries a key, no file of the run may hold it.
    for path in bucket.files("runs"):
        assert SECRET.encode() not in bucket.read(path), path

    assert not list(tmp_path.iterdir()), "something was written to the folder of the command"
    for secret in KEYS.values():
        assert secret not in said
