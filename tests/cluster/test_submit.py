"""``ray job submit`` to a cluster with token authentication, as docs/clusters.md says it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_ports, wait_until_open

RAY = str(Path(sys.executable).with_name("ray"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SMALL = [
    "--models=base_cnn",
    "--trials=0",
    "--set=data.drawings=100",
    "--workers=2",
    # Every kind of augmentation there is, on several workers.
    "--set=augmentation.mixup=0.2",
    "--set=augmentation.cutmix=1",
    "--set=augmentation.rand_augment=0.3",
    "--set=augmentation.translation=0.1",
    "--set=augmentation.brightness=0.1",
    "--set=augmentation.contrast=0.1",
]


@dataclass(frozen=True)
class Head:
    """A head node that asks for a token, and the environment that has it."""

    address: str
    environment: dict[str, str]

    def ray(self, *arguments: str) -> subprocess.Popen[str]:
        """``ray job …`` as a process, its lines on one pipe."""
        action, *rest = arguments
        return subprocess.Popen(
            [RAY, "job", action, "--address", self.address, *rest],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )

    def submit(self, project: Path, *arguments: str, name: str | None = None) -> Submitted:
        called = ["--submission-id", name] if name else []
        # The node's Python is the one that has the packages.
        entry = [sys.executable, "jobs/train.py", *arguments]
        where = ["--working-dir", str(project)]
        return Submitted(self.ray("submit", *called, *where, "--", *entry))


class Submitted:
    """A job whose lines are followed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def end(self, at_line: str = "", act: Callable[[], object] = lambda: None) -> tuple[int, str]:
        """(exit code, lines); ``act`` is called at the first line that holds ``at_line``."""
        seen, acted = [], not at_line
        with self.process as process:
            assert process.stdout is not None
            for line in process.stdout:
                seen.append(line)
                if not acted and at_line in line:
                    acted = True
                    act()
        return process.returncode, "".join(seen)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A real ``ray start --head`` of two cores with a dashboard; it ends with the module."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    token = folder / "token"
    token.write_text("0123456789abcdef" * 4)
    port, dashboard, agent, client = free_ports(4)
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_worker_niceness": "0",
        "HOME": str(folder),
    }
    command = [
        *(RAY, "start", "--head", "--block"),
        *("--num-cpus=2", f"--port={port}", f"--temp-dir={folder}", "--node-ip-address=127.0.0.1"),
        *(f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", "--object-store-memory=200000000"),
    ]
    with (folder / "head.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
    try:
        wait_until_open(dashboard, process, folder / "head.log")
        yield Head(f"http://127.0.0.1:{dashboard}", environment)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def events_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (run / "events.jsonl").read_text().splitlines()]


def epochs_of(run: Path) -> list[int]:
    return [event["epoch"] for event in events_of(run) if event["event"] == "epoch"]


def test_a_submitted_job_is_stopped_and_submitted_again_and_goes_on(
    head: Head, project: Path, tmp_path: Path
) -> None:
    arguments = [f"--storage={tmp_path}", "--name=job", *SMALL]
    # More epochs than it can train until `ray job stop` has started.
    _, said = head.submit(project, *arguments, "--epochs=100", name="first").end(
        "base_cnn epoch 1/100  loss", lambda: Submitted(head.ray("stop", "first")).end()
    )
    assert "report.html" not in said
    assert not (tmp_path / "job" / "report.html").exists()
    trained = max(epochs_of(tmp_path / "job"))

    code, said = head.submit(project, *arguments, f"--epochs={trained + 2}").end()
    assert code == 0, said
    assert "base_cnn: going on after epoch" in said, said
    epochs = epochs_of(tmp_path / "job")
    assert epochs == list(range(1, trained + 3)), "an epoch was trained twice, or not at all"
    assert f"{tmp_path}/job/report.html" in said
    assert (tmp_path / "job" / "report.html").is_file()
    kinds = [event["event"] for event in events_of(tmp_path / "job")]
    assert kinds[0] == "begin"
    assert {"resume", "stage", "data", "epoch", "finished"} <= set(kinds)


def test_a_mistake_in_a_submitted_job_is_one_line_and_a_failed_job(
    head: Head, project: Path
) -> None:
    code, said = head.submit(project, "--storage=here", *SMALL).end()
    assert code != 0
    assert "error: --storage here: in a Ray job this would be" in said
    assert "Traceback" not in said


def test_a_caller_without_the_token_is_turned_away(head: Head, project: Path) -> None:
    stranger = Head(head.address, head.environment | {"RAY_AUTH_MODE": "disabled"})
    code, said = stranger.submit(project, "--help").end()
    assert code != 0
    assert "401" in said or "nauthori" in said


def test_the_upload_leaves_out_what_a_node_does_not_need(project: Path, tmp_path: Path) -> None:
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "project"
    wanted = ["jobs/train.py", "catdog/data/sample.py", "pyproject.toml"]
    unwanted = [
        ".venv/bin/python",
        "runs/x/run.json",
        "photos/cat.0.jpg",
        "anywhere/dog.0.jpg",
        "weights.h5",
        "catdog/__pycache__/a.pyc",
        "tests/test_a.py",
        ".env",
    ]
    for name in [*wanted, *unwanted]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    for name in (".rayignore", ".gitignore"):
        shutil.copy(project / name, folder / name)
    create_package(str(folder), tmp_path / "package.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "package.zip") as package:
        uploaded = {name for name in package.namelist() if not name.endswith("/")}
    assert set(wanted) <= uploaded
    assert not uploaded & set(unwanted)
