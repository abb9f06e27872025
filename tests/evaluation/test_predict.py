"""Predictions of a run's models on its validation and test photos."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

if TYPE_CHECKING:
    from tests.conftest import FinishedRun


@pytest.mark.timeout(180)
def test_two_processes_give_the_tables_of_one(
    finished_run: FinishedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray.data

    from catdog.evaluation import predict
    from catdog.runs import RunDirectory
    from catdog.storage import Location
    from catdog.training.workers import Workers

    sizes: list[int] = []
    strategy = ray.data.ActorPoolStrategy

    def pool(*, size: int) -> Any:
        sizes.append(size)
        return strategy(size=size)

    monkeypatch.setattr(ray.data, "ActorPoolStrategy", pool)
    monkeypatch.setattr(predict, "CHUNK", 16)
    monkeypatch.setattr(predict, "WORTH_AN_ACTOR", 16)
    models = Path("models/base_cnn")
    (tmp_path / models).mkdir(parents=True)
    shutil.copy(finished_run.path / models / "model.keras", tmp_path / models)

    run, workers = RunDirectory(Location.of(tmp_path)), Workers(2, 1, False, "float32")
    speeds = predict.predict(finished_run.dataset, run, ["base_cnn"], workers)
    assert sizes == [2]
    assert speeds["base_cnn"] > 0
    for table in ("predictions.parquet", "artifacts/gradcam.parquet"):
        one, two = (
            pd.read_parquet(root / models / table) for root in (finished_run.path, tmp_path)
        )
        assert len(one)
        pd.testing.assert_frame_equal(one, two, check_exact=False, atol=1e-5)
