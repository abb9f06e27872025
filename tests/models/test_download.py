"""Whether there is a network for ImageNet weights: known in seconds, asked once."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from catdog.models import weights as download
from tests.ports import free_port


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_any_answer_of_the_server_is_a_network() -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_error(404)

        def log_message(self, *given: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert download.unreachable(f"http://127.0.0.1:{server.server_port}/") is None
        thread.join()


def test_a_closed_port_is_told_at_once() -> None:
    assert download.unreachable(f"http://127.0.0.1:{free_port()}/") == "Connection refused"


def test_a_server_that_says_nothing_is_waited_for_no_longer_than_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        reason = download.unreachable(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.3)
        assert time.monotonic() - began < 3
    assert reason in ("no answer in 0 s", "timed out")


def test_what_keras_has_downloaded_needs_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    kept = download.downloaded()
    monkeypatch.setattr(download, "_seen", lambda: (kept, "no network"))
    assert download.obstacle("resnet50v2") is None
    assert download.obstacle("inception_v3") == "no network"


def test_address_and_names_are_those_of_keras() -> None:
    from keras.src.applications import inception_v3, resnet

    assert resnet.BASE_WEIGHTS_PATH.startswith(download.ADDRESS)
    assert inception_v3.WEIGHTS_PATH_NO_TOP.startswith(download.ADDRESS)
    assert "/inception_v3_weights_" in inception_v3.WEIGHTS_PATH_NO_TOP
    assert "{weights_name}_weights_" in inspect.getsource(resnet.ResNet)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_dry_run_without_network_says_so_for_every_backbone_and_what_comes_instead(
    project: Path, tmp_path: Path
) -> None:
    nowhere = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "jobs/train.py", "--dry-run", "--storage", str(tmp_path / "runs")],
        cwd=project, env=os.environ | nowhere | {"KERAS_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("resnet50v2", "inception_v3"):
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{name} ")]
        assert "imagenet (cannot be downloaded here: Connection refused)" in line
        assert "features of random weights" in line
