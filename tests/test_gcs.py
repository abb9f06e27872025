"""``gs://`` by the same code, against an emulator of Google's store on loopback."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from catdog import access
from catdog.access import check_readable, check_writable
from catdog.data import sources
from catdog.errors import UserError
from catdog.storage import Location


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
