"""The classifiers: their size, their parts, and that they survive being saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.config.architectures import MODELS, ModelName
from catdog.models import registry
from catdog.models.saving import load_keras, save_keras
from catdog.storage import Location

PARAMETERS: dict[ModelName, int] = {
    "base_cnn": 1_084_097,
    "resnet50v2": 23_566_849,
    "inception_v3": 21_804_833,
    "efficientnet_lite0": 3_414_305,
}


def built(name: ModelName, image_size: int | None = None) -> Any:
    look = MODELS[name].smallest_image
    return registry.build(
        registry.Architecture(name, image_size or look, look, "-1..1", dropout=0.2)
    )


def pixels(side: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_a_model_has_the_published_number_of_parameters(name: ModelName) -> None:
    assert built(name).count_params() == PARAMETERS[name]


@pytest.mark.parametrize(
    "name, blocks",
    [
        ("resnet50v2", 0),
        ("resnet50v2", 1),
        ("inception_v3", 2),
        ("inception_v3", 11),
        ("efficientnet_lite0", 0),
        ("efficientnet_lite0", 1),
        ("efficientnet_lite0", 7),
    ],
)
def test_trunk_and_tail_together_are_the_whole_model(name: ModelName, blocks: int) -> None:
    model = built(name)
    trunk, tail = registry.split_at(model, registry.boundary(name, blocks))
    photos = pixels(MODELS[name].smallest_image)
    logits = np.asarray(tail(trunk(photos, training=False), training=False))
    whole = np.asarray(model(photos, training=False))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), whole, atol=1e-5)


@pytest.mark.parametrize("blocks", ["all", 5, 12])
def test_unfreezing_every_block_starts_at_the_pixels(blocks: Any) -> None:
    assert registry.boundary("resnet50v2", blocks) == "pixels"


def test_a_plain_call_of_a_shrinking_model_leaves_batch_statistics_alone() -> None:
    model = built("base_cnn", image_size=112)
    before = model.get_layer("bn1").moving_mean.numpy()
    model(pixels(112))
    np.testing.assert_array_equal(model.get_layer("bn1").moving_mean.numpy(), before)


def test_a_saved_model_loads_in_safe_mode_and_predicts_the_same(tmp_path: Path) -> None:
    model = built("base_cnn", image_size=112)
    target = Location.of(tmp_path / "model.keras")
    assert save_keras(model, target) == target.local_path.stat().st_size
    photos = pixels(112)
    np.testing.assert_array_equal(
        np.asarray(load_keras(target)(photos, training=False)),
        np.asarray(model(photos, training=False)),
    )


@pytest.mark.parametrize("name", [name for name in MODELS if MODELS[name].blocks])
def test_the_blocks_of_the_table_are_layers_from_bottom_to_top(name: ModelName) -> None:
    model = built(name)
    order = [layer.name for layer in model.layers]
    places = [order.index(registry.find_layer(model, end).name) for end in MODELS[name].blocks]
    assert places == sorted(places)
    assert order[places[-1] + 1] == registry.POOLED, "the last block ends below the head"


def test_fine_tuning_freezes_what_is_below_and_all_batch_normalisation() -> None:
    import keras

    model = built("resnet50v2")
    registry.freeze_below(model, registry.boundary("resnet50v2", 1))
    trained = {layer.name for layer in model.layers if layer.trainable_variables}
    assert {name.partition("_")[0] for name in trained} == {"conv5", "logit"}
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert not any(layer.trainable for layer in norms)


def test_lower_blocks_learn_at_smaller_rates() -> None:
    model = built("resnet50v2")
    _, network = registry.split_at(model, registry.boundary("resnet50v2", 2))
    factors = registry.rate_factors("resnet50v2", network, 0.5)
    by_block = {path.partition("_")[0]: factor for path, factor in factors.items()}
    assert by_block["logit/kernel"] == 1.0
    assert by_block["conv4"] < by_block["conv5"] < 1.0


@pytest.mark.parametrize("name", ["resnet50v2", "inception_v3"])
def test_features_of_random_weights_end_after_the_first_blocks(name: ModelName) -> None:
    import numpy as np

    from catdog.evaluation.gradcam import heat

    architecture = registry.Architecture(name, 80, 80, "-1..1", dropout=0.0, early=True)
    model = registry.build(architecture)
    assert model.count_params() < 1_000_000
    pixels = np.random.default_rng(0).integers(0, 255, (2, 80, 80, 3)).astype(np.uint8)
    assert heat(model, name, pixels).shape[0] == 2
    assert registry.split_at(model, registry.POOLED)[1].input_shape[1] in (64, 256)
