"""The environment of every test, one small Ray cluster for those that need one, and the reasons
for which a test is skipped.

The environment is set when this file is read: before Ray or TensorFlow is imported anywhere.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.store import S3

os.environ.update(
    # Ray would otherwise make a token for its local cluster and leave it in ~/.ray/auth_token.
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    TF_CPP_MIN_LOG_LEVEL="3",
    # Read when TensorFlow is imported; see catdog/cluster/numerics.py.
    TF_ENABLE_ONEDNN_OPTS=os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1"),
    # No test asks the cloud for credentials.
    AWS_EC2_METADATA_DISABLED="true",
    # Its present default hides GPUs from tasks that ask for none and warns that this will change.
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    # A cluster that somebody works with, or another test, is none to test on.
    RAY_ADDRESS="local",
    # A process of every group of workers; the tests of nodes that are taken away let it run.
    RAY_TRAIN_ENABLE_PREEMPTION_WATCHER="0",
)
# Without the bytecode of this project each of the processes that tests start compiles it anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
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
def exact() -> list[str]:
    """Flags of a job with one small model and no sweep, the same to the last bit when repeated.

    In one precision on every machine; augmentation and dropout are on.
    """
    flags = ["--set=compute.precision=float32", "--set=scratch.dropout=0.1"]
    return ["--models=base_cnn", "--trials=0", "--set=data.drawings=100", *flags]


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


@pytest.fixture(scope="session")
def s3() -> Iterator[S3]:
    """A bucket that all tests share, each under prefixes of its own."""
    from tests.store import s3_server

    with s3_server() as store:
        yield store


@pytest.fixture
def store_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts what a test store asks for into the environment."""
    from tests.store import KEYS

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)


@dataclass(frozen=True)
class FinishedRun:
    """A run with a small base CNN (112 pixels, looking at 96), its report and its photos."""

    path: Path
    photos: Path
    dataset: Any
    model: Any


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, cluster: None) -> FinishedRun:
    """Made without training: random weights whose answers on the drawings are half and half."""
    import keras
    import numpy as np
    import yaml

    from catdog.config import DataSettings
    from catdog.data import sample
    from catdog.data.prepare import prepare
    from catdog.evaluation.predict import predict
    from catdog.models import registry
    from catdog.models.saving import save_keras
    from catdog.presets import PRESETS
    from catdog.report import build
    from catdog.runs import RunDirectory, TrainingId
    from catdog.storage import Location
    from tests.here import Here

    storage = Location.of(tmp_path_factory.mktemp("finished"))
    settings = DataSettings(image_size=112, drawings=160)
    dataset = prepare(settings, storage, 0)
    architecture = registry.Architecture("base_cnn", 112, 96, "-1..1", dropout=0.2)
    keras.utils.set_random_seed(0)
    model = registry.build(architecture)
    rows = dataset.rows("val")
    seen = model.predict(rows.gather(np.arange(len(rows))), verbose=0)[:, 0].astype(np.float64)
    logits = np.log(seen / (1 - seen))
    kernel, bias = model.get_layer("logit").get_weights()
    scale = 1.5 / logits.std()
    head = [kernel * scale, (bias - np.median(logits)) * scale]
    model.get_layer("logit").set_weights([part.astype(np.float32) for part in head])

    run = RunDirectory(storage / "run")
    save_keras(model, run.model("base_cnn") / "model.keras")
    facts = {"name": "base_cnn", "weights": "none", "input_scale": "-1..1", "image_size": 96}
    (run.model("base_cnn") / "model.json").write_json(facts | {"precision": "float32"})
    (run.root / "run.json").write_json({"name": "run", "status": "finished", "notes": []})
    preset = PRESETS["sample"]().model_dump(mode="json")
    tree = preset | {
        "storage": storage.uri,
        "models": ["base_cnn"],
        "sweep": preset["sweep"] | {"model": None},
        "model_image_size": {"base_cnn": 96},
        "data": settings.model_dump(mode="json"),
    }
    (run.root / "config.yaml").write_text(yaml.safe_dump(tree))
    for name in ("manifest.json", "rejected.parquet", "photos.parquet"):
        (run.data / name).write_bytes((dataset.root / name).read_bytes())
    (run.root / "artifacts").mkdir()
    predict(Here(), dataset, run, TrainingId("base_cnn"))
    build([run.root])
    drawings = sample.drawn(storage, settings.drawings, 0, settings.image_size)
    return FinishedRun(run.root.local_path, drawings.local_path, dataset, model)


MAKE_WEIGHTS = (
    "import sys, keras\n"
    "keras.utils.set_random_seed(0)\n"
    "keras.applications.ResNet50V2(weights=None, include_top=False).save_weights(sys.argv[1])\n"
)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for ResNet50V2, drawn at random."""
    file = tmp_path_factory.mktemp("weights") / "resnet.weights.h5"
    subprocess.run([sys.executable, "-c", MAKE_WEIGHTS, str(file)], check=True, timeout=120)
    return file
