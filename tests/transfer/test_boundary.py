"""Fine-tuning from kept activations at the boundary comes to what the whole network comes to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catdog.config import DataSettings, FineTuneSettings
from catdog.storage import Location
from catdog.training.job import TrainingJob
from tests.here import Here
from tests.tiny import train_here

pytestmark = pytest.mark.usefixtures("cluster")

#: As fine-tuning is: dropout and decay are on, nothing draws pixels.
SETTINGS = FineTuneSettings(epochs=2, learning_rate=1e-3, unfrozen_blocks=1, dropout=0.2)


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Location:
    return Location.of(tmp_path_factory.mktemp("boundary"))


@pytest.fixture(scope="module")
def kept_job(storage: Location, cluster: None) -> TrainingJob:
    """The last block of a ResNet50V2 with made-up weights, from kept activations below it."""
    from catdog.data.prepare import prepare
    from catdog.models import registry
    from catdog.models.weights import pack
    from catdog.transfer.features import FeatureRequest, extract

    dataset = prepare(DataSettings(image_size=32, drawings=80), storage, 0)
    architecture = registry.Architecture("resnet50v2", 32, 32, "-1..1", dropout=SETTINGS.dropout)
    model = registry.build(architecture)
    content, hashed = pack([v.numpy() for v in registry.backbone_variables(model)])
    (storage / "weights.npz").write_bytes(content)
    request = FeatureRequest(architecture, (storage / "weights.npz").uri, hashed, "float32")
    cut = registry.boundary("resnet50v2", SETTINGS.unfrozen_blocks)
    features = extract(Here(), dataset, request, [cut], storage)[cut]
    return TrainingJob(
        output=(storage / "kept").uri,
        architecture=architecture,
        phase="finetune",
        settings=SETTINGS,
        batch_size=16,
        seed=3,
        dataset=dataset.root.uri,
        photos=dataset.identity,
        features=features.root.uri,
        boundary=cut,
        freeze_below=cut,
        backbone=request.backbone,
    )


def trained(job: TrainingJob) -> tuple[list[dict[str, Any]], Any]:
    """(rows of its epochs, logits of the validation photos by the model that is saved)"""
    import keras

    from catdog.models.saving import load_keras
    from catdog.training.inputs import open_dataset

    rows = train_here(job)
    model = load_keras(Location.of(job.output) / "model.keras")
    photos = open_dataset(job.dataset).rows("val")
    logits = keras.Model(model.input, model.get_layer("logit").output)
    return rows, logits.predict(photos.gather(np.arange(len(photos))), verbose=0)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_kept_activations_train_like_the_whole_network(
    kept_job: TrainingJob, storage: Location
) -> None:
    whole_job = replace(
        kept_job,
        output=(storage / "whole").uri,
        features=None,
        boundary="pixels",
        augmentation=None,
    )
    kept, kept_logits = trained(kept_job)
    whole, whole_logits = trained(whole_job)
    assert [row.epoch for row in kept] == [1, 2]
    for ours, theirs in zip(kept, whole, strict=True):
        for key in ("loss", "val_loss"):
            expected = pytest.approx(getattr(theirs, key), abs=1e-4)
            assert getattr(ours, key) == expected, (key, ours, theirs)
    assert kept[1].loss != pytest.approx(kept[0].loss, abs=1e-3), "it has learnt something"
    np.testing.assert_allclose(kept_logits, whole_logits, atol=1e-4)
