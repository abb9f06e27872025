"""Frozen features and the head fitted on them, on a real Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.config import AugmentationSettings, DataSettings
from catdog.storage import Location
from catdog.training.inputs import Split
from catdog.transfer.features import LEARNT, SPLITS
from tests.here import Here
from tests.store import s3_server

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Location:
    return Location.of(tmp_path_factory.mktemp("transfer"))


@pytest.fixture(scope="module")
def probed(storage: Location, cluster: None) -> dict[str, Any]:
    """Features of a small ResNet50V2 with made-up weights, and its probe."""
    from catdog.data.prepare import prepare
    from catdog.models import registry
    from catdog.models.weights import pack
    from catdog.transfer import probe
    from catdog.transfer.features import FeatureRequest, extract

    dataset = prepare(DataSettings(image_size=32, drawings=120), storage, 0)
    architecture = registry.Architecture("resnet50v2", 32, 32, "-1..1", dropout=0.0)
    model = registry.build(architecture)
    content, hashed = pack([v.numpy() for v in registry.backbone_variables(model)])
    (storage / "weights.npz").write_bytes(content)
    request = FeatureRequest(architecture, (storage / "weights.npz").uri, hashed, "float32")
    pool = Here()

    def run(splits: Sequence[Split] = SPLITS, storage: Location = storage) -> Any:
        pool.told.clear()
        return extract(pool, dataset, request, [registry.POOLED], storage, splits)[registry.POOLED]

    def counts() -> list[tuple[int, int]]:
        return [(message["done"], message["total"]) for message in pool.told]

    features = run()
    told = counts()
    facts = probe.fit(pool, features, storage / "run")
    return {
        "dataset": dataset,
        "model": model,
        "features": features,
        "facts": facts,
        "told": told,
        "run": run,
        "counts": counts,
        "request": request,
        "pool": pool,
    }


@pytest.mark.timeout(240)
def test_the_head_on_kept_features_equals_the_whole_model(
    probed: dict[str, Any], storage: Location
) -> None:
    from catdog.models.weights import unpack

    kernel, bias = unpack((storage / "run" / "probe.npz").read_bytes())
    rows = probed["features"].rows("test")
    kept = rows.gather(np.arange(len(rows))) @ kernel + bias
    model = probed["model"]
    model.get_layer("logit").set_weights([kernel, bias])
    photos = probed["dataset"].rows("test")
    whole = model.predict(photos.gather(np.arange(len(photos))), verbose=0)
    assert rows.uris == photos.uris
    np.testing.assert_allclose(1 / (1 + np.exp(-kept)), whole, atol=1e-4)


def test_a_second_extraction_computes_nothing(probed: dict[str, Any]) -> None:
    assert probed["told"][-1][0] == probed["told"][-1][1]
    again = probed["run"]()
    assert again.root == probed["features"].root
    assert probed["counts"]() == []


def test_test_photos_are_added_to_those_that_a_sweep_needed(probed: dict[str, Any]) -> None:
    root = probed["features"].root.local_path
    shutil.rmtree(root)
    learnt = probed["run"](LEARNT)
    assert probed["counts"]()[-1][1] == len(learnt.rows("train")) + len(learnt.rows("val"))
    assert not (root / "test").exists()
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.arrow")}
    whole = probed["run"]()
    assert probed["counts"]()[-1][1] == sum(len(whole.rows(s)) for s in ("train", "val", "test"))
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.timeout(120)
def test_an_interrupted_extraction_into_a_bucket_goes_on_and_a_second_computes_nothing(
    probed: dict[str, Any],
) -> None:
    """Interrupted here means: all shards but one are there, and no manifest."""
    local = probed["run"]()
    with s3_server() as store:
        storage = store.location("runs")
        store.put_folder(local.root.local_path, f"runs/features/{local.root.name}")
        there = storage / "features" / local.root.name
        (there / "manifest.json").delete()
        (there / "test" / "00000000.arrow").delete()
        kept = (there / "train" / "00000000.arrow").info().mtime_ns

        completed = probed["run"](storage=storage)
        photos = sum(len(completed.rows(split)) for split in SPLITS)
        assert probed["counts"]() == [(photos, photos)]
        assert (there / "train" / "00000000.arrow").info().mtime_ns == kept
        for split in SPLITS:
            ours, theirs = local.rows(split), completed.rows(split)
            assert ours.uris == theirs.uris
            everything = np.arange(len(ours))
            np.testing.assert_array_equal(ours.gather(everything), theirs.gather(everything))

        assert probed["run"](storage=storage).root == completed.root
        assert probed["counts"]() == []


def test_the_probe_says_what_its_logits_are_worth(
    probed: dict[str, Any], storage: Location
) -> None:
    from sklearn.metrics import accuracy_score, log_loss

    from catdog.models.weights import unpack

    kernel, bias = unpack((storage / "run" / "probe.npz").read_bytes())
    rows = probed["features"].rows("val")
    logits = (rows.gather(np.arange(len(rows))) @ kernel + bias)[:, 0].astype(np.float64)
    probability = 1 / (1 + np.exp(-logits))
    row = probed["facts"]["row"]
    assert row["val_loss"] == pytest.approx(log_loss(rows.labels, probability), rel=1e-4)
    assert row["val_accuracy"] == pytest.approx(accuracy_score(rows.labels, probability > 0.5))


@pytest.mark.timeout(120)
def test_a_head_may_see_augmented_views_of_each_photo(
    probed: dict[str, Any], storage: Location, tmp_path: Path
) -> None:
    from catdog.models.registry import POOLED
    from catdog.transfer import probe
    from catdog.transfer.features import extract
    from catdog.transfer.head import HeadData

    augmentation = AugmentationSettings(rotation=0.1, zoom=0.2)
    request = replace(probed["request"], views=3, augmentation=augmentation)

    def run(place: Location) -> Any:
        return extract(Here(), probed["dataset"], request, [POOLED], place)[POOLED]

    kept, plain = run(storage), probed["run"]()
    assert kept.root != plain.root
    photos = len(plain.rows("train"))
    views = kept.rows("train").gather(np.arange(3 * photos)).reshape(photos, 3, -1)
    alone = plain.rows("train").gather(np.arange(photos))
    np.testing.assert_array_equal(views[:, 0], alone)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (np.abs(views[:, one] - views[:, other]).max(axis=1) > 1e-3).mean() > 0.9
    assert kept.rows("train").uris[:6] == [u for u in plain.rows("train").uris[:2] for _ in "abc"]
    assert len(kept.rows("val")) == len(plain.rows("val")), "what is measured is not augmented"
    assert HeadData.load(kept).views == 3

    repeated = run(Location.of(tmp_path)).rows("train").gather(np.arange(3 * photos))
    np.testing.assert_array_equal(repeated.reshape(views.shape), views)
    row = probe.fit(Here(), kept, Location.of(tmp_path) / "run")["row"]
    assert row["loss"] != probed["facts"]["row"]["loss"]


def test_a_probe_is_fitted_once(probed: dict[str, Any], storage: Location) -> None:
    from catdog.transfer import probe

    file: Path = (storage / "run" / "probe.npz").local_path
    before = file.stat().st_mtime_ns
    assert probe.fit(Here(), probed["features"], storage / "run") == probed["facts"]
    assert file.stat().st_mtime_ns == before


def test_activations_that_would_not_fit_on_the_disk_are_told(tmp_path: Path) -> None:
    from catdog.errors import UserError
    from catdog.transfer.features import check_room

    place = Location.of(tmp_path)
    check_room(place, photos=10, bytes_each=1000.0)
    with pytest.raises(UserError, match=r"of 1000000000 more photos need 3725.29 GiB and .* free;"):
        check_room(place, photos=10**9, bytes_each=4000.0)


@pytest.mark.timeout(240)
def test_the_packages_weights_give_features_in_the_models_own_precision(
    probed: dict[str, Any], storage: Location
) -> None:
    """On a CPU whose best precision is bfloat16, as it is planned for one."""
    from catdog.cluster.workers import Workers
    from catdog.models.registry import POOLED
    from catdog.models.weights import fetch
    from catdog.pipeline.extraction import features_of
    from catdog.pipeline.planning import Plan
    from catdog.presets import sample
    from catdog.runs import RunDirectory

    name = "efficientnet_lite0"
    changes = {"storage": storage.uri, "data": DataSettings(image_size=32, drawings=120)}
    config = sample().model_copy(update=changes)
    weights = fetch(name, config.weights_of(name), storage)
    assert weights is not None
    run, dataset = RunDirectory(storage / "lite0"), probed["dataset"]
    pool = Here(Workers(1, 1, False, "mixed_bfloat16", by_model=True))
    plan = Plan(config, run, dataset, pool.workers.precision, {name: weights})
    features = features_of(pool, plan, name, [POOLED], ("val",))[POOLED]
    rows = features.rows("val")
    kept = rows.gather(np.arange(len(rows)))
    assert kept.dtype == np.float32
    assert kept.shape == (len(dataset.rows("val")), 1280)
    assert kept.std() > 0.1
