"""What macOS does not have is not needed to import, to ask for help, to train and to predict.

The names that only Linux has are taken from Python's modules before anything is imported; the
system below stays Linux.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from catdog.data.sample import draw

#: Python would import this as it starts, in every process that inherits the path.
WITHOUT = """
import errno, os, resource, select, signal, socket, time

MISSING = {
    errno: "EREMOTEIO ECOMM EBADFD ENONET ENOMEDIUM EUCLEAN ENOTUNIQ",
    os: "sched_getaffinity sched_setaffinity O_DIRECT O_TMPFILE O_PATH posix_fadvise "
        "posix_fallocate copy_file_range memfd_create eventfd pidfd_open splice getrandom "
        "getxattr setxattr listxattr",
    resource: "prlimit RUSAGE_THREAD",
    signal: "SIGPWR SIGSTKFLT SIGPOLL SIGRTMIN SIGRTMAX",
    socket: "AF_NETLINK SO_BINDTODEVICE SO_MARK TCP_USER_TIMEOUT",
    time: "CLOCK_BOOTTIME",
}
for module, names in MISSING.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
"""
IMPORT_ALL = """
import errno, importlib, os, pkgutil, sys
import catdog
assert not hasattr(os, "sched_getaffinity") and not hasattr(errno, "EREMOTEIO")
for module in pkgutil.walk_packages(catdog.__path__, "catdog."):
    importlib.import_module(module.name)
from catdog.cluster.machine import cores
assert cores() >= 1
"""
HELP = """
import glob, io, contextlib, runpy, sys
for job in sorted(glob.glob("jobs/*.py")):
    sys.argv = [job, "--help"]
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            runpy.run_path(job, run_name="__main__")
    except SystemExit as end:
        assert not end.code, (job, end.code)
    assert "usage:" in shown.getvalue(), job
    print(job)
"""


@pytest.fixture(scope="session")
def elsewhere(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process without what only Linux has."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "sitecustomize.py").write_text(WITHOUT)
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{project}"}


def run(
    project: Path, environment: dict[str, str], *arguments: str, limit_s: float = 100
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True,
        timeout=limit_s, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("script", [IMPORT_ALL, HELP], ids=["import", "help"])
def test_every_module_is_imported_and_every_job_helps_without_what_only_linux_has(
    project: Path, elsewhere: dict[str, str], script: str
) -> None:
    run(project, elsewhere, "-c", script)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_worker_trains_and_the_model_predicts_without_what_only_linux_has(
    project: Path, elsewhere: dict[str, str], exact: list[str], tmp_path: Path
) -> None:
    job = ["jobs/train.py", "--storage", str(tmp_path), "--name", "one", "--workers", "1",
           "--epochs", "1", "--set=compute.reproducible=false", *exact]  # fmt: skip
    page = run(project, elsewhere, *job, limit_s=400).stdout.splitlines()[-1]
    assert page == str(tmp_path / "one/report.html")
    draw(tmp_path / "photos", 8, 1, 96)
    predict = ["jobs/predict.py", "--model", str(tmp_path / "one"), "--data"]
    table = str(tmp_path / "answers.csv")
    done = run(project, elsewhere, *predict, str(tmp_path / "photos"), "--out", table)
    assert done.stdout.splitlines()[-1] == table
