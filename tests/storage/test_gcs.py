"""``gs://`` by the same code, against an emulator of Google's store on loopback."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from catdog.data import sources
from catdog.errors import UserError
from catdog.storage import Location, access
from catdog.storage.access import check_readable, check_writable


@pytest.fixture(scope="module")
def gs() -> Iterator[Callable[[str], str]]:
    """Makes URIs in a bucket of the emulator."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    emulator = [sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory"]
    process = subprocess.Popen(
        [*emulator, "--host=127.0.0.1", f"--port={port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                connection.request(
                    "POST",
                    "/storage/v1/b?project=p",
                    json.dumps({"name": "bucket"}),
                    {"Content-Type": "application/json"},
                )
                assert connection.getresponse().status == 200
                connection.close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the emulator did not start"
                time.sleep(0.1)
        query = f"endpoint_override=127.0.0.1:{port}&scheme=http"
        yield lambda path: f"gs://anonymous@{path}?{query}"
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_files_in_a_google_bucket_are_written_read_listed_and_deleted(
    gs: Callable[[str], str],
) -> None:
    folder = Location.of(gs("bucket/runs"))
    (folder / "run.json").write_json({"status": "new"})
    (folder / "run.json").write_json({"status": "finished"})
    (folder / "models" / "weights.bin").write_bytes(bytes(3 << 20))
    assert (folder / "run.json").read_json() == {"status": "finished"}
    files = [info.path for info in folder.list(recursive=True) if info.is_file]
    assert files == ["bucket/runs/models/weights.bin", "bucket/runs/run.json"]
    (folder / "sweeps" / "resnet50v2" / "trials.json").write_json([])
    assert folder.folders() == ("models", "sweeps")
    assert (folder / "sweeps").folders() == ("resnet50v2",)
    assert (folder / "seeds").folders() == ()
    (folder / "run.json").delete()
    assert not (folder / "run.json").exists()
    with pytest.raises(FileNotFoundError):
        (folder / "run.json").read_bytes()


def test_photos_in_a_google_bucket_are_listed_and_read(gs: Callable[[str], str]) -> None:
    for name in ("cat.1.jpg", "dog.1.jpg"):
        Location.of(gs(f"bucket/photos/{name}")).write_bytes(name.encode())
    listing = sources.list_source(gs("bucket/photos"))
    assert listing.counts() == {"cat": 1, "dog": 1, "unknown": 0}
    row = listing.files.to_pylist()[0]
    assert row["uri"] == "gs://bucket/photos/cat.1.jpg"
    content = sources.read(listing.bases[0], row["path"], row["offset"], row["size"])
    assert content == b"cat.1.jpg"


def test_a_google_bucket_that_is_missing_or_away_is_named(
    gs: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "SILENCE_S", 1.0)
    check_readable(gs("bucket/runs"), "--storage")
    check_writable(gs("bucket/runs"), "--storage")
    with pytest.raises(UserError, match="there is no bucket other for gs://other/runs"):
        check_readable(gs("other/runs"), "--storage")
    with pytest.raises(UserError, match="does not answer"):
        check_readable("gs://anonymous@b/x?endpoint_override=127.0.0.1:1&scheme=http", "--data")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_job_needs_nothing_but_a_google_bucket(
    gs: Callable[[str], str], project: Path, tmp_path: Path
) -> None:
    from catdog.data import sample

    with tempfile.TemporaryDirectory() as folder:
        drawings = sample.drawn(Location.of(folder), 100, 0, 96).local_path
        for file in drawings.iterdir():
            Location.of(gs(f"bucket/drawings/{file.name}")).write_bytes(file.read_bytes())
    command = [
        *(sys.executable, str(project / "jobs/train.py"), "--preset=sample", "--name=job"),
        *(f"--data={gs('bucket/drawings')}", f"--storage={gs('bucket/storage')}"),
        *("--models=base_cnn", "--trials=0", "--workers=1", "--epochs=1"),
        "--set=compute.reproducible=false",
    ]

    def said() -> str:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            cwd=tmp_path,
            env=os.environ | {"RAY_worker_niceness": "0", "PYTHONPATH": str(project)},
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert done.stdout.strip().endswith("gs://bucket/storage/job/report.html")
        return done.stdout

    assert "base_cnn epoch 1/1  loss" in said()
    assert "nothing is left to do" in said()
    storage = Location.of(gs("bucket/storage"))
    report = (storage / "job" / "report.json").read_json()
    assert [model["name"] for model in report["models"]] == ["base_cnn"]
    assert storage.folders() == ("datasets", "job")
    assert not list(tmp_path.iterdir()), "something was written to the folder of the command"
