"""Frozen features and the head fitted on them, on a real Ray cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from catdog.config import DataSettings
from catdog.storage import Location
from catdog.transfer.features import SPLITS
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

    def run(storage: Location = storage) -> Any:
        pool.told.clear()
        return extract(pool, dataset, request, [registry.POOLED], storage)[registry.POOLED]

    def counts() -> list[tuple[int, int]]:
        return [(message.done, message.total) for message in pool.told]

    features = run()
    told = counts()
    facts = probe.fit(pool, features, storage / "run", None)
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
    rows = probed["features"].rows("val")
    kept = rows.gather(np.arange(len(rows))) @ kernel + bias
    model = probed["model"]
    model.get_layer("logit").set_weights([kernel, bias])
    photos = probed["dataset"].rows("val")
    whole = model.predict(photos.gather(np.arange(len(photos))), verbose=0)
    assert rows.uris == photos.uris
    np.testing.assert_allclose(1 / (1 + np.exp(-kept)), whole, atol=1e-4)


def test_a_second_extraction_computes_nothing(probed: dict[str, Any]) -> None:
    assert probed["told"][-1][0] == probed["told"][-1][1]
    again = probed["run"]()
    assert again.root == probed["features"].root
    assert probed["counts"]() == []


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
        (there / "val" / "00000000.arrow").delete()
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
    row = probed["facts"].row
    assert row.val_loss == pytest.approx(log_loss(rows.labels, probability), rel=1e-4)
    assert row.val_accuracy == pytest.approx(accuracy_score(rows.labels, probability > 0.5))


def test_a_probe_is_fitted_once(probed: dict[str, Any], storage: Location) -> None:
    from catdog.transfer import probe

    file: Path = (storage / "run" / "probe.npz").local_path
    before = file.stat().st_mtime_ns
    again = probe.fit(Here(), probed["features"], storage / "run", None)
    assert again.trials == probed["facts"].trials
    assert file.stat().st_mtime_ns == before


def test_validation_loss_chooses_the_penalty(probed: dict[str, Any]) -> None:
    facts = probed["facts"]
    losses = [trial.row.val_loss for trial in facts.trials]
    assert len(set(losses)) == 6
    assert facts.row.val_loss == min(losses)


def test_a_sweep_of_the_head_records_each_penalty_once(
    probed: dict[str, Any], tmp_path: Path
) -> None:
    from catdog.transfer import probe

    facts, store = probed["facts"], probe.trial_store(Location.of(tmp_path))
    store.close("001", facts.trials[1].config, [facts.trials[1].row], 1.0, "finished")
    ended: list[dict[str, Any]] = []
    probe.record(facts, store, ended.append)
    assert [trial.id for trial in ended] == ["000", "002", "003", "004", "005"]
    tried = [trial.config for trial in facts.trials]
    assert [trial.config for trial in store.records()] == tried
    best = store.summarise(1.0).best
    assert best.val_loss == facts.row.val_loss
    assert pd.read_parquet(tmp_path / "trials.parquet")["val_loss"].is_monotonic_increasing


def test_the_head_is_the_optimum_and_weighs_classes() -> None:
    """The gradient of scikit-learn's objective, on features as they come, is zero there."""
    from catdog.training.inputs import class_weights
    from catdog.transfer.probe import heads_of

    generator = np.random.default_rng(0)
    x = generator.normal(3.0, 2.0, (400, 6)).astype(np.float32)
    labels = (x[:, 0] + generator.normal(size=400) > 4.5).astype(np.uint8)
    for asked in (False, True):
        *_, (kernel, bias) = heads_of((x, labels), [0.01, 0.1], asked)
        weights = class_weights(labels, asked) or (1.0, 1.0)
        missed = 1 / (1 + np.exp(-(x @ kernel + bias))) - labels
        missed *= np.where(labels == 1, weights[1], weights[0])
        spread = x.std(axis=0)
        gradient = missed @ ((x - x.mean(axis=0)) / spread) + kernel * spread / 0.1
        assert np.abs([*gradient, missed.sum()]).max() < 0.1, asked
        assert np.abs(missed).sum() > 10


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
    from catdog.pipeline.planning import Plan
    from catdog.pipeline.tuning import features_of
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
    features = features_of(pool, plan, name, [POOLED])[POOLED]
    rows = features.rows("val")
    kept = rows.gather(np.arange(len(rows)))
    assert kept.dtype == np.float32
    assert kept.shape == (len(dataset.rows("val")), 1280)
    assert kept.std() > 0.1
