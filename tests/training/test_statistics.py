"""Statistics of batch normalisation taken over training photos before they are used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import make_job, write_rows


def trainee_of(job: Any) -> tuple[Any, Any]:
    """(model_trainer, its training rows), alone in this process."""
    import keras

    from catdog.cluster.workers import Workers
    from catdog.training.inputs import open_inputs
    from catdog.training.model_trainer import ModelTrainer
    from catdog.training.on_worker import strategy
    from catdog.training.progress import Rank
    from catdog.training.watchdog import Watchdog

    keras.backend.clear_session()
    keras.config.set_dtype_policy("float32")
    alone = strategy(Workers(1, 2, False, "float32"), 1)
    rank = Rank(0, 1, alone, lambda message: None, lambda row: True, Watchdog(600))
    rows, _ = open_inputs(job)
    return ModelTrainer.build(job, rank, rows), rows


@pytest.mark.parametrize("reproducible", [True, False])
def test_they_are_those_of_the_photos_without_dropout(tmp_path: Path, reproducible: bool) -> None:
    from dataclasses import replace

    from catdog.training.inputs import epoch_batches

    write_rows(tmp_path)
    job = replace(make_job(tmp_path, "model", dropout=0.5), reproducible=reproducible)
    model_trainer, rows = trainee_of(job)
    norm = model_trainer.network.get_layer("bn5")
    norm.moving_mean.assign(np.full(256, 7.0, np.float32))
    model_trainer.recalibrate(rows)

    def below(x: Any) -> Any:
        return model_trainer.network.get_layer("relu5")(model_trainer.network.get_layer("conv5")(x))

    _, feed = epoch_batches(job, model_trainer.rank, rows, 0, skipped=0, unit=1, fewest=1)
    seen = [np.asarray(below(batch.rows)) for batch, _ in zip(feed, range(256 // 8), strict=False)]
    means = np.mean([batch.mean((0, 1, 2)) for batch in seen], axis=0)
    variances = np.mean([batch.var((0, 1, 2)) for batch in seen], axis=0)
    np.testing.assert_allclose(norm.moving_mean.numpy(), means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variances, rtol=1e-3, atol=1e-5)
    assert (norm.momentum, model_trainer.network.get_layer("dropout5").rate) == (0.9, 0.5)
