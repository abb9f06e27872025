"""Pretrained weights on their way from a file to the storage that workers read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catdog.config import WeightsSettings
from catdog.models.weights import _load, fetch, unpack
from catdog.storage import Location


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_weights_are_fetched_once_and_those_of_another_backbone_do_not_fit(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: Path
) -> None:
    """From a bucket, with keys: tests/cluster/test_s3_job.py."""
    from catdog.models.registry import bare_backbone

    settings = WeightsSettings(source=str(weights), scale="0..1")
    storage = Location.of(tmp_path)
    first = fetch("resnet50v2", settings, storage)
    assert first is not None
    arrays = unpack(Location(first.uri).read_bytes())
    expected = bare_backbone("resnet50v2", str(weights)).get_weights()
    assert all(np.array_equal(*pair) for pair in zip(arrays, expected, strict=True))
    assert first.origin == str(weights)

    # No second computation: there would be no Ray to do it.
    monkeypatch.setattr("ray.remote", None)
    assert fetch("resnet50v2", settings, storage) == first

    line = _load("inception_v3", str(weights))
    assert isinstance(line, str)
    assert line.startswith(f"{weights} does not fit inception_v3: ")


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_without_a_network_imagenet_weights_are_one_line_with_a_way_out(
    project: Path, tmp_path: Path
) -> None:
    """A proxy that nobody serves, and a home of Keras without earlier downloads."""
    code = "from catdog.models.weights import _load; print(_load('resnet50v2', 'imagenet'))"
    nowhere = dict.fromkeys(("https_proxy", "HTTPS_PROXY"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env=os.environ | nowhere | {"KERAS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1] == (
        "ImageNet weights for resnet50v2 cannot be downloaded here; give --weights none, "
        "or a file: --weights-for resnet50v2=PATH,scale=-1..1"
    )
