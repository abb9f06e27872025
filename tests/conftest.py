"""The environment of every test, one small Ray cluster for those that need one, and the reasons
for which a test is skipped.

The environment is set when this file is read: before Ray or TensorFlow is imported anywhere.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(
    # Ray would otherwise make a token for its local cluster and leave it in ~/.ray/auth_token.
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    TF_CPP_MIN_LOG_LEVEL="3",
    # No test asks the cloud for credentials.
    AWS_EC2_METADATA_DISABLED="true",
    # Its present default hides GPUs from tasks that ask for none and warns that this will change.
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
)
# A cluster that somebody works with is none to test on.
os.environ.pop("RAY_ADDRESS", None)
# Tests compute on CPUs, on every machine alike; CUDA_VISIBLE_DEVICES=0 make test … lets a GPU in.
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

PROJECT = Path(__file__).resolve().parent.parent
PHOTOS = Path(os.environ.get("CATDOG_PHOTOS", PROJECT.parent / "shared" / "photos"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def missing(marker: str) -> str | None:
    """Why a test with this marker cannot run here; None where it can."""
    if marker == "root" and os.geteuid() != 0:
        return "needs root, for network namespaces"
    if marker == "browser" and CHROMIUM is None:
        return "needs Chromium on the PATH"
    if marker == "photos" and not PHOTOS.is_dir():
        return f"needs photos in {PHOTOS} (or in the folder that CATDOG_PHOTOS names)"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers():
        if reason := missing(marker.name):
            pytest.skip(reason)


@pytest.fixture(scope="session")
def project() -> Path:
    """The root of the project."""
    return PROJECT


@pytest.fixture(scope="session")
def photos() -> Path:
    """The folder of real photographs; a test that asks for it is skipped where it is missing."""
    if reason := missing("photos"):
        pytest.skip(reason)
    return PHOTOS


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium; a test that asks for it is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium on the PATH")
    return CHROMIUM


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """A local Ray cluster of two CPUs without a dashboard, shared by all tests that ask for it."""
    import ray

    if ray.is_initialized():  # a narrower fixture was first; it also ends it
        yield
        return
    # Ray's sockets lie in this folder and their paths may have 107 characters at most.
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=300_000_000,
        _temp_dir=folder,
    )
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
