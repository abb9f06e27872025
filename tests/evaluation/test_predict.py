"""Predictions of a run's models on its validation and test photos."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import FinishedRun


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", [None, 1])
def test_two_workers_give_the_tables_of_one(
    finished_run: FinishedRun, tmp_path: Path, seed: int | None
) -> None:
    """Of a repeat with another seed too, whose mistakes are explained like its model's."""
    from catdog.cluster.workers import Workers
    from catdog.evaluation import predict
    from catdog.runs import RunDirectory, TrainingId
    from catdog.storage import Location
    from tests.here import Here

    run, training = RunDirectory(Location.of(tmp_path)), TrainingId("base_cnn", seed)
    folder = run.training(training).local_path
    folder.mkdir(parents=True)
    one = finished_run.path / "models" / "base_cnn"
    shutil.copy(one / "model.keras", folder)
    pool = Here(Workers(2, 1, False, "float32"))
    assert predict.predict(pool, finished_run.dataset, run, training) > 0
    for table in ("predictions.parquet", "artifacts/gradcam.parquet"):
        expected, found = (pd.read_parquet(root / table) for root in (one, folder))
        assert len(expected)
        pd.testing.assert_frame_equal(expected, found, check_exact=False, atol=1e-5)
