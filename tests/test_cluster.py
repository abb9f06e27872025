"""Joining a Ray cluster, or the line that says why not."""

from __future__ import annotations

import socket

import pytest

from catdog.cluster import connected
from catdog.errors import UserError


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.timeout(30)
@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_cluster_that_does_not_answer_is_told_at_once(
    monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # other tests may share a cluster
    monkeypatch.setenv("RAY_ADDRESS", f"{scheme}127.0.0.1:{closed_port()}")
    told = r"no Ray cluster answers there \(Connection refused\)"
    with pytest.raises(UserError, match=told), connected():
        pytest.fail("it joined a cluster that is not there")
