"""Dropout and augmentation: each rank its own, the same again for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from catdog.config import AugmentationSettings, ScratchSettings


class Photos:
    """Eight grey photos, all alike: what differs after augmentation is drawn at random."""

    shape = (96, 96, 3)
    dtype = np.dtype(np.uint8)
    labels = (np.arange(8) % 2).astype(np.uint8)

    def __len__(self) -> int:
        return 8

    def gather(self, indices: Any, out: Any = None) -> Any:
        wave = np.linspace(0, 255, 96 * 96 * 3).astype(np.uint8).reshape(self.shape)
        return np.repeat(wave[None], len(indices), 0)


def trainee(rank: int, seed: int = 0) -> Any:
    import keras
    import tensorflow as tf

    from catdog.models.registry import Architecture
    from catdog.training.job import TrainingJob
    from catdog.training.progress import Rank
    from catdog.training.trainee import Trainee
    from catdog.training.watchdog import Watchdog

    keras.backend.clear_session()
    job = TrainingJob(
        output="",
        architecture=Architecture("base_cnn", 96, 96, "-1..1", 0.5),
        phase="scratch",
        settings=ScratchSettings(),
        batch_size=8,
        seed=seed,
        dataset="",
        photos="",
        augmentation=AugmentationSettings(),
    )
    where = Rank(rank, 2, tf.distribute.get_strategy(), print, print, Watchdog(600))
    photos: Any = Photos()
    return Trainee.build(job, where, photos)


def drawn(made: Any) -> tuple[Any, Any]:
    """(augmented photos, logits with dropout) of the next draw"""
    rows = Photos().gather(np.arange(4))
    augmented = np.asarray(made.augmentation(rows, training=True))
    return augmented, np.asarray(made.network(rows, training=True))


@pytest.fixture(scope="module")
def first_rank() -> tuple[Any, Any]:
    return drawn(trainee(rank=0))


def test_the_same_rank_and_seed_draw_the_same_again(first_rank: tuple[Any, Any]) -> None:
    for ours, again in zip(first_rank, drawn(trainee(rank=0)), strict=True):
        np.testing.assert_array_equal(ours, again)


@pytest.mark.parametrize("rank, seed", [(1, 0), (0, 1)], ids=["another rank", "another seed"])
def test_another_rank_or_seed_draws_otherwise(
    first_rank: tuple[Any, Any], rank: int, seed: int
) -> None:
    augmented, _ = drawn(trainee(rank, seed))
    for ours, theirs in zip(first_rank[0], augmented, strict=True):
        assert not np.array_equal(ours, theirs)


def test_ranks_start_from_the_same_weights_and_drop_out_otherwise(
    first_rank: tuple[Any, Any],
) -> None:
    other = trainee(rank=1)
    for ours, theirs in zip(trainee(rank=0).network_arrays(), other.network_arrays(), strict=True):
        if ours.dtype == np.float32:
            np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first_rank[1], drawn(other)[1])


def test_a_restored_rank_goes_on_drawing_where_it_was() -> None:
    whole = trainee(rank=1)
    drawn(whole)
    stopped = trainee(rank=1)
    drawn(stopped)
    from catdog.training.progress import Progress

    kept = stopped.checkpoint(Progress(), "")
    restored = trainee(rank=1)
    restored.restore(kept)
    for ours, again in zip(drawn(whole), drawn(restored), strict=True):
        np.testing.assert_array_equal(ours, again)
