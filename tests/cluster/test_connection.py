"""Joining a Ray cluster, or the line that says why not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catdog.cluster import connection
from catdog.cluster.connection import connected
from catdog.errors import UserError
from tests.ports import free_port


@pytest.mark.timeout(30)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests may share a cluster
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{free_port()}")
    told = r"no Ray cluster answers there \(Connection refused\)"
    with pytest.raises(UserError, match=told), connected():
        pytest.fail("it joined a cluster that is not there")


@pytest.mark.parametrize("address", ["127.0.0.1:8265", "local", None])
def test_a_head_that_does_not_answer_is_told_of_until_it_does(
    monkeypatch: pytest.MonkeyPatch, address: str | None
) -> None:
    told: list[str] = []
    monkeypatch.setattr(connection, "ANSWER_S", 0.01)
    monkeypatch.setattr(connection, "say", told.append)
    with connection._told_while_waiting(address):
        time.sleep(0.3)
    lines = len(told)
    time.sleep(0.1)
    assert len(told) == lines, "it went on"
    assert bool(lines) == (address == "127.0.0.1:8265")
    assert all("RAY_ADDRESS=127.0.0.1:8265 has not answered" in line for line in told)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_something_else_at_that_port_is_told_after_some_seconds(
    project: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "jobs/train.py", f"--storage={tmp_path}"],
            cwd=project,
            env=os.environ | {"RAY_ADDRESS": f"127.0.0.1:{port}"},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            told = next((line for line in process.stdout if "has not answered" in line), "")
        finally:
            process.kill()
            process.communicate()
    assert told.startswith(f"RAY_ADDRESS=127.0.0.1:{port} has not answered for 10 s; "), told
