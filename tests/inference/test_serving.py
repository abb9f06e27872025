"""The service over real HTTP: many at once, bad files, large files, and its end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pandas as pd
import pytest

from catdog.errors import UserError
from catdog.inference.finished import find_model
from catdog.inference.serving import Endpoint, serving
from tests.ports import free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    # Of Ray Serve's own making.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]

LIMIT = 300_000


def post(url: str, body: Any, method: str = "POST") -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    connection.request(method, "/", body=body)
    response = connection.getresponse()
    content = json.loads(response.read())
    connection.close()
    return response.status, content


@pytest.fixture(scope="module")
def url(finished_run: Any) -> Iterator[str]:
    endpoint = Endpoint(port=free_port(), max_bytes=LIMIT)
    with serving(find_model(str(finished_run.path)), endpoint) as url:
        yield url


def test_two_hundred_at_once_all_get_the_answer_that_the_run_gave(
    url: str, finished_run: Any
) -> None:
    folder = finished_run.path / "models" / "base_cnn"
    table = pd.read_parquet(folder / "predictions.parquet")
    known = table[(table["logit"].abs() > 0.05)].reset_index(drop=True)
    asked = [known.iloc[number % len(known)] for number in range(200)]
    bodies = [Path(row["uri"]).read_bytes() for row in asked]
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda body: post(url, body), bodies))
    assert {status for status, _ in answers} == {200}
    expected = ["dog" if row["logit"] > 0 else "cat" for row in asked]
    assert [said["label"] for _, said in answers] == expected
    assert set(expected) == {"cat", "dog"}
    for _, said in answers:
        assert said["model"] == "base_cnn"
        assert "built-in drawings" in said["warning"]
        assert 0.5 <= said["probability"] <= 1


def test_a_bad_file_gets_400_and_its_reason(url: str, finished_run: Any) -> None:
    good = next(path for path in sorted(finished_run.photos.iterdir()) if path.suffix == ".jpg")
    whole = good.read_bytes()
    for body, reason in (
        (b"", "empty"),
        (b"hello", "not_an_image"),
        (whole[: len(whole) // 2], "truncated"),
    ):
        status, said = post(url, body)
        assert (status, said["reason"]) == (400, reason)


def test_a_file_that_is_too_large_gets_413_with_and_without_its_length(url: str) -> None:
    body = b"\xff\xd8\xff" + bytes(LIMIT)
    status, said = post(url, body)
    assert (status, said["reason"]) == (413, "too_large")
    pieces = (body[at : at + 50_000] for at in range(0, len(body), 50_000))
    status, said = post(url, pieces)  # of unknown length: sent in chunks
    assert status == 413


def test_something_else_than_a_post_is_told_what_to_send(url: str) -> None:
    status, said = post(url, None, method="GET")
    assert status == 405
    assert "POST" in said["detail"]


def test_a_port_that_is_taken_is_the_users_mistake(finished_run: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = Endpoint(port=taken.getsockname()[1])
        with (
            pytest.raises(UserError, match="cannot listen"),
            serving(find_model(str(finished_run.path)), endpoint),
        ):
            pass


def test_the_job_serves_until_ctrl_c(project: Path, finished_run: Any, tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, str(project / "jobs/serve.py"), f"--model={finished_run.path}"]
    process = subprocess.Popen(
        [*command, f"--port={port}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"RAY_TMPDIR": "/tmp"},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/" in line, process.stderr.read()
    photo = next(path for path in sorted(finished_run.photos.iterdir()) if path.suffix == ".jpg")
    status, said = post(f"http://127.0.0.1:{port}/", photo.read_bytes())
    assert status == 200, said
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, time.monotonic() - started
    assert "warning: this model has seen only the built-in drawings" in errors


def test_help_imports_neither_ray_nor_tensorflow(project: Path) -> None:
    code = (
        "import sys, runpy; sys.argv = ['jobs/serve.py', '--help']\n"
        "try: runpy.run_path('jobs/serve.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code in (0, None)\n"
        "assert not {'ray', 'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout
