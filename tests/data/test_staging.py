from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from catdog.data.shards import ShardWriter
from catdog.data.staging import StagingFolder
from catdog.storage import Location
from tests.store import S3


def everything(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_a_set_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    datasets = Location.of(tmp_path)
    with StagingFolder(datasets, "abc") as attempt:
        (attempt.root / "train.arrow").write_bytes(b"x")
        (attempt.scratch() / "pack.bin").write_bytes(b"y")
        assert not (tmp_path / "abc").exists()
        attempt.publish({"files": 1})
    assert everything(tmp_path) == ["abc", "abc/manifest.json", "abc/train.arrow"]


def failing(datasets: Location) -> None:
    with StagingFolder(datasets, "abc") as attempt:
        (attempt.root / f"train{attempt.suffix}.arrow").write_bytes(b"x")
        (attempt.scratch() / "pack.bin").write_bytes(b"y")
        raise OSError("no space")


def test_a_failed_attempt_leaves_nothing(tmp_path: Path, s3: S3) -> None:
    with pytest.raises(OSError, match="no space"):
        failing(Location.of(tmp_path))
    assert everything(tmp_path) == []
    with pytest.raises(OSError, match="no space"):
        failing(s3.location("attempts"))
    files = [i for i in s3.location("attempts").list(recursive=True) if i.is_file]
    assert files == []


def test_a_task_that_outlives_its_attempt_leaves_nothing(tmp_path: Path) -> None:
    def give_up(attempt: StagingFolder) -> ShardWriter:
        with attempt:
            return ShardWriter(attempt.root / "test" / "part-0.arrow", (2,), np.dtype(np.uint8))

    attempt = StagingFolder(Location.of(tmp_path), "abc")
    writer = give_up(attempt)
    writer.append(np.zeros((3, 2), np.uint8), [0, 1, 0], ["a", "b", "c"])
    with pytest.raises(FileNotFoundError):
        writer.close()
    with pytest.raises(FileNotFoundError):
        ShardWriter(attempt.root / "train" / "part-1.arrow", (2,), np.dtype(np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_the_first_of_two_attempts_stays(tmp_path: Path) -> None:
    datasets = Location.of(tmp_path)
    with StagingFolder(datasets, "abc") as one, StagingFolder(datasets, "abc") as two:
        for attempt, number in ((one, 1), (two, 2)):
            (attempt.root / "shard").write_text(str(number))
        two.publish({"by": 2})
        one.publish({"by": 1})
    assert (tmp_path / "abc" / "shard").read_text() == "2"
    assert everything(tmp_path) == ["abc", "abc/manifest.json", "abc/shard"]
    with StagingFolder(datasets, "abc") as third:
        third.publish({"by": 3}, lambda: False)
    assert (datasets / "abc" / "manifest.json").read_json() == {"by": 3}


def test_what_a_killed_attempt_leaves_is_removed_by_the_next_and_a_living_one_is_not(
    tmp_path: Path, project: Path
) -> None:
    code = (
        "import sys, time; from catdog.data.staging import StagingFolder; "
        "from catdog.storage import Location\n"
        "with StagingFolder(Location.of(sys.argv[1]), 'abc') as a:\n"
        "    (a.root / 'half').write_text('x'); (a.scratch() / 'p').write_text('y')\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, cwd=project
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    living = everything(tmp_path)
    assert len(living) == 5
    with StagingFolder(Location.of(tmp_path), "abc"):
        assert set(living) <= set(everything(tmp_path))
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    time.sleep(0.05)
    with StagingFolder(Location.of(tmp_path), "abc"):
        assert not set(living) & set(everything(tmp_path))
    assert everything(tmp_path) == []


def test_what_a_killed_attempt_leaves_in_a_bucket_goes_with_the_next_of_its_owner(s3: S3) -> None:
    datasets = s3.location("owned")
    killed = StagingFolder(datasets, "abc", "runs/one").__enter__()
    (killed.root / f"train/part-0{killed.suffix}.arrow").write_bytes(b"x")
    (killed.scratch() / "pack.bin").write_bytes(b"y")
    other = StagingFolder(datasets, "abc", "runs/two").__enter__()
    (other.root / f"train/part-0{other.suffix}.arrow").write_bytes(b"z")
    with StagingFolder(datasets, "abc", "runs/one") as attempt:
        assert s3.files("owned") == [f"owned/abc/train/part-0{other.suffix}.arrow"]
        attempt.publish({"files": 0})
