"""What every model has to stand, whatever its architecture; each builds it once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from catdog.config.architectures import MODELS, ModelName
from catdog.evaluation.gradcam import heat
from catdog.models import registry
from catdog.models.saving import load_keras, save_keras
from catdog.storage import Location


def built(name: ModelName) -> Any:
    side = MODELS[name].smallest_image
    return registry.build(registry.Architecture(name, side, side, MODELS[name].scale, dropout=0.2))


def pixels(side: int, count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def stand_the_battery(name: ModelName, folder: Path) -> None:
    """The model in parts, saved, frozen, explained, at the smallest picture that it takes."""
    model = built(name)
    photos = pixels(MODELS[name].smallest_image)
    probabilities = np.asarray(model(photos, training=False))
    assert probabilities.shape == (2, 1)
    _in_parts(name, model, photos, probabilities)
    _saved(model, photos, probabilities, folder)
    assert heat(model, name, photos).shape[0] == 2
    if MODELS[name].is_backbone:
        _frozen(name, model)


def _in_parts(name: ModelName, model: Any, photos: np.ndarray, whole: np.ndarray) -> None:
    for blocks in (0, 1, 2)[: 1 + 2 * MODELS[name].is_backbone]:
        trunk, tail = registry.split_at(model, registry.boundary(name, blocks))
        logits = np.asarray(tail(trunk(photos, training=False), training=False))
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), whole, atol=1e-5)
    order = [layer.name for layer in model.layers]
    places = [order.index(registry.find_layer(model, end).name) for end in MODELS[name].blocks]
    assert places == sorted(places), "the blocks of the table are not in order"
    assert not places or order[places[-1] + 1] == registry.POOLED


def _saved(model: Any, photos: np.ndarray, whole: np.ndarray, folder: Path) -> None:
    target = Location.of(folder / "model.keras")
    assert save_keras(model, target) == target.local_path.stat().st_size
    loaded = load_keras(target)
    np.testing.assert_allclose(np.asarray(loaded(photos, training=False)), whole, atol=1e-6)


def _frozen(name: ModelName, model: Any) -> None:
    import keras

    registry.freeze_below(model, registry.boundary(name, 1))
    _, tail = registry.split_at(model, registry.boundary(name, 1))
    above = {layer.name for layer in tail.layers}
    trained = {layer.name for layer in model.layers if layer.trainable_variables}
    assert "logit" in trained < above
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert not any(layer.trainable for layer in norms)
    factors = registry.rate_factors(name, tail, 0.5)
    assert factors["logit/kernel"] == 1.0 > min(factors.values())
