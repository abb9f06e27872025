"""Ports for clusters that run beside others."""

from __future__ import annotations

import socket
import time


def free_ports(count: int) -> list[int]:
    """So many that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def wait_until_open(port: int, limit_s: float = 90) -> None:
    """Until somebody listens there; a TimeoutError after the limit."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens on port {port}") from None
            time.sleep(0.5)
