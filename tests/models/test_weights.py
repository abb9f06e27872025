"""Pretrained weights on their way from a bucket to the storage that workers read."""

from __future__ import annotations

from pathlib import Path

import pytest

from catdog.config import WeightsSettings
from catdog.models.weights import fetch, unpack
from catdog.storage import Location
from tests.store import KEYS, s3_server


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_weights_from_a_bucket_are_fetched_once_and_no_key_is_written_down(
    cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from catdog.models.registry import bare_backbone

    backbone = bare_backbone("inception_v3", None)
    backbone.save_weights(tmp_path / "given.weights.h5")
    with s3_server() as store:
        store.put_folder(tmp_path, "given")
        settings = WeightsSettings(
            source=store.location("given/given.weights.h5").uri, scale="0..1"
        )
        storage = store.location("runs")
        first = fetch("inception_v3", settings, storage)
        assert first is not None
        arrays = unpack(Location(first.uri).read_bytes())
        assert [a.shape for a in arrays] == [w.shape for w in backbone.get_weights()]
        written = [store.read(name) for name in store.files("runs") if name.endswith(".json")]
        assert len(written) == 1
        assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in written[0]

        # No second computation: there would be no Ray to do it.
        monkeypatch.setattr("ray.remote", None)
        assert fetch("inception_v3", settings, storage) == first
