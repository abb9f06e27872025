"""Ports for clusters and servers that run beside others."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest


def free_ports(count: int) -> list[int]:
    """So many that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def free_port() -> int:
    return free_ports(1)[0]


def wait_until_open(
    port: int, process: subprocess.Popen[Any], log: Path, limit_s: float = 90
) -> None:
    """Until somebody listens there; a test fails with the log where ``process`` ends before."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"nobody listens on port {port}: {log.read_text()}")
