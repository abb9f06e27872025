"""Mistakes about buckets are told at the door, in one line, in seconds; the lease in a bucket."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from catdog.errors import UserError
from catdog.runs import RunDirectory, lease, leases
from catdog.storage import Location, access, retrying, s3
from catdog.storage.access import check_readable, check_writable
from tests.store import BUCKET, KEYS, S3, s3_server


@pytest.fixture(scope="module")
def store() -> Iterator[S3]:
    """Lets everybody in."""
    with s3_server() as server:
        yield server


@pytest.fixture(scope="module")
def strict_store() -> Iterator[S3]:
    """Looks at credentials and knows none."""
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT="0") as server:
        yield server


@pytest.mark.usefixtures("store_keys")
def test_a_bucket_that_is_there_passes_and_keeps_nothing(store: S3) -> None:
    check_readable(store.uri("runs"), "--storage")
    check_writable(store.uri("runs"), "--storage")
    assert store.files("runs") == []


@pytest.mark.usefixtures("store_keys")
def test_a_bucket_that_is_missing_is_named(store: S3) -> None:
    for check in (check_readable, check_writable):
        with pytest.raises(UserError, match="--data: there is no bucket other for s3://other/x"):
            check(store.uri("x", bucket="other"), "--data")


@pytest.mark.usefixtures("store_keys")
def test_credentials_that_are_refused_are_named_and_not_told(strict_store: S3) -> None:
    for check in (check_readable, check_writable):
        with pytest.raises(UserError, match="refuses s3://bucket/x") as caught:
            check(strict_store.uri("x"), "--data")
        assert "AWS_ACCESS_KEY_ID" in str(caught.value)
        assert not any(value in str(caught.value) for value in KEYS.values())


def test_missing_credentials_are_named(
    strict_store: S3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"no credentials .*; set AWS_ACCESS_KEY_ID"):
        check_readable(strict_store.uri("x"), "--data")


@pytest.mark.usefixtures("store_keys")
def test_a_store_that_hangs_is_not_waited_for(store: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "SILENCE_S", 1.0)
    store.hang(5)
    try:
        with pytest.raises(UserError, match="does not answer"):
            check_readable(store.uri("x"), "--data")
    finally:
        store.settle()


def test_a_name_that_cannot_be_looked_up_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        time.sleep(6)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", never)
    started = time.monotonic()
    assert not s3._answers(("store.invalid", 443), 0.5)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "script, arguments",
    [
        ("train", ["--storage", "{}"]),
        ("train", ["--data", "{}", "--storage", "here"]),
        ("tune", ["--data", "{}", "--model", "inception_v3", "--storage", "here"]),
        ("predict", ["--model", "{}", "--data", "."]),
        ("report", ["{}"]),
    ],
)
def test_a_store_that_is_not_there_is_one_line_and_exit_code_2(
    script: str, arguments: list[str], project: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    uri = f"s3://{BUCKET}/x?endpoint_override=http://127.0.0.1:{port}&scheme=http&region=us-east-1"
    started = time.monotonic()
    done = subprocess.run(
        [
            sys.executable,
            str(project / "jobs" / f"{script}.py"),
            *(text.replace("{}", uri) for text in arguments),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | KEYS | {"PYTHONPATH": str(project)},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert f"nobody answers at 127.0.0.1:{port}, the endpoint of s3://{BUCKET}/x" in line
    assert time.monotonic() - started < 30
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("store_keys")
def test_a_lease_in_a_bucket_outlives_a_store_that_is_away(
    store: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    monkeypatch.setattr(retrying, "PAUSES_S", (0.2,))
    run = RunDirectory(Location.of(store.uri("leased")))

    def beat() -> int:
        held: int = json.loads(store.read("leased/lease.json"))["beat"]
        return held

    with lease(run, say=lambda line: None):
        store.refuse(5)  # longer than two attempts: the renewal fails and is tried again
        at_outage = beat()
        store.settle()
        deadline = time.monotonic() + 20
        while beat() <= at_outage + 1:
            assert time.monotonic() < deadline, "the lease is not renewed any more"
            time.sleep(0.1)
        with pytest.raises(UserError, match="in use by another command"), lease(run):
            pass
    assert store.files("leased") == []
