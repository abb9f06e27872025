"""Dropout and augmentation: functions of seed, step and place in the global batch alone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catdog.config import AugmentationSettings

from .test_augmentation import draws

ROWS = 11


def in_parts(cuts: tuple[int, ...], compute: Any) -> Any:
    """What ranks compute in a graph, each for its rows, one below the other."""
    import tensorflow as tf

    def of(positions: Any, step: Any) -> Any:
        return compute(replace(draws(0, count=ROWS), positions=positions, step=step))

    signature = [tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.int64)]
    traced = tf.function(of, input_signature=signature, autograph=False)
    ranks = itertools.pairwise([0, *cuts, ROWS])
    return np.concatenate([np.asarray(traced(np.arange(*rank), 5)) for rank in ranks])


@pytest.mark.parametrize("shape", [(1,), (3, 7, 5), (4, 8)])
@pytest.mark.parametrize("cuts", [(1,), (4, 5), (2, 4, 6, 8, 10)])
def test_any_division_of_a_batch_drops_the_same_numbers(
    shape: tuple[int, ...], cuts: tuple[int, ...]
) -> None:
    def compute(drawn: Any) -> Any:
        return drawn.uniform("dropout", shape)

    whole = in_parts((), compute)
    np.testing.assert_array_equal(in_parts(cuts, compute), whole)
    assert len(np.unique(whole)) == whole.size
    assert 0 <= whole.min() < whole.max() < 1


@pytest.mark.parametrize("cuts", [(1,), (4, 9)])
def test_any_division_of_a_batch_varies_its_photos_alike(cuts: tuple[int, ...]) -> None:
    from catdog.training.augmentation import make_augmentation, make_mixing

    settings = AugmentationSettings(
        translation=0.1, brightness=0.2, contrast=0.3, mixup=0.4, cutmix=0.5
    )
    vary, mix = make_augmentation(settings), make_mixing(settings)
    assert vary is not None
    assert mix is not None
    photos = np.random.default_rng(0).integers(0, 256, (ROWS, 17, 13, 3)).astype(np.uint8)
    labels = (np.arange(ROWS) % 2).astype(np.float32)

    def compute(drawn: Any) -> Any:
        import tensorflow as tf

        at = tf.concat([drawn.positions, (drawn.positions + 3) % ROWS], 0)
        rows = vary(tf.gather(photos, at), replace(drawn, positions=at))
        return mix(rows, tf.gather(labels, at), drawn)[0]

    whole = in_parts((), compute)
    np.testing.assert_array_equal(in_parts(cuts, compute), whole)
    assert np.abs(whole - photos).mean((1, 2, 3)).min() > 1, "a photo stayed as it was"


def test_another_step_seed_or_stream_draws_otherwise() -> None:
    def drawn(stream: str = "a", **changes: int) -> Any:
        return draws(np.arange(4), **changes).uniform(stream, (5,)).numpy()

    others = [drawn(), drawn("b"), drawn(step=1), drawn(seed=1)]
    for one, other in itertools.combinations(others, 2):
        assert not (one == other).any()
    np.testing.assert_array_equal(drawn(step=3), drawn(step=3))


def test_dropout_keeps_the_mean_and_drops_the_share_it_is_told() -> None:
    import keras

    from catdog.training.draws import drawing, with_stateless_dropout

    rows = keras.Input((50, 40))
    network = keras.Model(rows, keras.layers.Dropout(0.3, name="drop")(rows))
    copy = with_stateless_dropout(network)
    ones = np.ones((16, 50, 40), np.float32)
    with drawing(draws(np.arange(16))):
        dropped = np.asarray(copy(ones, training=True))
    assert (dropped == 0).mean() == pytest.approx(0.3, abs=0.01)
    assert dropped.mean() == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.7], rtol=1e-6)
    np.testing.assert_array_equal(copy(ones, training=False), ones)
    assert not copy.variables, "a state that a checkpoint would have to hold"
