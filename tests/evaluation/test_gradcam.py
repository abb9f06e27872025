"""Grad-CAM against its definition, for each architecture, and what the report gets of it."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from catdog.config.architectures import MODELS, ModelName
from catdog.evaluation import gradcam
from catdog.models import registry


def built(name: ModelName, side: int) -> Any:
    return registry.build(registry.Architecture(name, side, side, "-1..1", dropout=0.0))


def noise(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, side, side, 3), np.uint8)


@pytest.mark.parametrize("name", list(MODELS))
def test_every_architecture_has_places_to_show(name: ModelName) -> None:
    side = MODELS[name].smallest_image + 64
    places = gradcam.heat(built(name, side), name, noise(3, side))
    assert places.shape[0] == 3
    assert min(places.shape[1:]) > 1, "one place for the whole picture says nothing"
    assert places.min() >= 0
    most = places.max(axis=(1, 2))
    assert all(value == 0 or value == pytest.approx(1) for value in most)
    assert most.max() == pytest.approx(1)


@pytest.mark.parametrize("sign", [1, -1])
def test_heat_is_what_the_definition_gives_for_a_linear_head(sign: int) -> None:
    # Above its last activations ResNet50V2 is a mean and one weight a channel: so is Grad-CAM.
    model = built("resnet50v2", 96)
    kernel, _ = model.get_layer("logit").get_weights()
    model.get_layer("logit").set_weights([kernel, np.array([50.0 * sign], np.float32)])
    pixels = noise(2, 96)
    trunk, _ = registry.split_at(model, "post_relu")
    features = np.asarray(trunk(pixels, training=False))
    expected = np.maximum(sign * (features @ kernel)[..., 0], 0)
    expected /= np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-12)
    np.testing.assert_allclose(gradcam.heat(model, "resnet50v2", pixels), expected, atol=1e-3)


def test_the_picture_is_bright_where_the_heat_is() -> None:
    places = np.zeros((4, 4), np.float32)
    places[0, 0] = 1
    shown = gradcam.overlay(np.full((112, 112, 3), 90, np.uint8), places)
    assert shown.shape == (gradcam.SIDE, gradcam.SIDE, 3)
    corner, opposite = shown[:20, :20].mean(axis=(0, 1)), shown[-20:, -20:].mean(axis=(0, 1))
    assert corner[1] > opposite[1] + 40
    assert corner[1] > corner[2] + 40, "yellow, so red and green"


@pytest.mark.timeout(300)
def test_the_reports_most_confident_mistakes_have_their_heatmaps(finished_run: Any) -> None:
    from catdog.report.load import load
    from catdog.report.photos import confident_mistakes
    from catdog.report.results import assemble
    from catdog.storage import Location

    (model,) = assemble([load(Location.of(finished_run.path))]).models
    shown = confident_mistakes(model).photos
    assert len(shown) > 2
    assert all(photo.image and photo.heatmap for photo in shown)
    folder = finished_run.path / "models" / "base_cnn" / "artifacts"
    table = pd.read_parquet(folder / "gradcam.parquet")
    assert list(table.columns) == ["uri", "thumbnail", "heatmap"]
    assert table["uri"].tolist()[: len(shown)] == [photo.uri for photo in shown]
    for picture in (*table["thumbnail"], *table["heatmap"]):
        assert Image.open(io.BytesIO(picture)).size == (gradcam.SIDE, gradcam.SIDE)
        assert len(picture) < 16_000, "the report would make it smaller again"


def test_a_model_without_mistakes_has_an_empty_table(finished_run: Any) -> None:
    pixels = noise(2, 112)
    none = gradcam.explained_mistakes(
        finished_run.model, "base_cnn", ["a", "b"], np.array([0, 1]), pixels, np.array([-1.0, 1.0])
    )
    assert gradcam.most_confident([none, none]).empty
