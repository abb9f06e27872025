"""A whole training in this process: when it stops, and which weights it validates and keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.config import ScratchSettings
from catdog.data.shards import write_shard
from catdog.models.registry import Architecture
from catdog.storage import Location
from catdog.training.job import TrainingJob
from tests.tiny import evaluated_by_keras, make_job, train_here, write_rows

pytestmark = pytest.mark.timeout(120)
SHOWN = ("loss", "accuracy", "val_loss", "val_accuracy")


def test_patience_ends_a_training_that_gets_no_better_and_it_stays_ended(tmp_path: Path) -> None:
    write_rows(tmp_path)
    job = make_job(tmp_path, "model", epochs=30, patience=2, learning_rate=3e-3)
    rows = train_here(job)
    best = max(rows, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert len(rows) == best.epoch + 2 < 30
    assert train_here(job) == []
    assert evaluated_by_keras(job)[0] == pytest.approx(best.val_loss, abs=1e-6)


def test_averaged_weights_are_validated_kept_and_go_on_with_the_rest(tmp_path: Path) -> None:
    write_rows(tmp_path)
    options = {"epochs": 3, "dropout": 0.3, "ema_momentum": 0.95}
    whole_job = make_job(tmp_path, "whole", **options)
    whole = train_here(whole_job)
    stopped = make_job(tmp_path, "stopped", **options)
    rows = train_here(stopped, 1) + train_here(stopped)
    assert [[getattr(row, key) for key in SHOWN] for row in rows] == [
        [getattr(row, key) for key in SHOWN] for row in whole
    ]
    best = max(whole, key=lambda row: (row.val_accuracy, -row.val_loss))
    assert evaluated_by_keras(whole_job) == pytest.approx(
        (best.val_loss, best.val_accuracy), abs=1e-6
    )
    plain = train_here(make_job(tmp_path, "plain", **(options | {"ema_momentum": None})))
    assert [row.loss for row in plain] == [row.loss for row in whole], "the same steps"
    assert all(
        row.val_loss != averaged.val_loss for row, averaged in zip(plain, whole, strict=True)
    )


@pytest.mark.slow
def test_a_backbone_from_random_weights_trains_in_float32(tmp_path: Path) -> None:
    """Its batch normalisation learns, which the sums that are reproducible do not provide for."""
    generator = np.random.default_rng(0)
    files = {}
    for split in ("train", "val"):
        pixels = generator.integers(0, 256, (8, 32, 32, 3), np.uint8)
        target = Location.of(tmp_path / split / "0.arrow")
        write_shard(target, pixels, labels=np.arange(8) % 2, uris=[str(n) for n in range(8)])
        files[split] = ["0.arrow"]
    Location.of(tmp_path / "manifest.json").write_json({"files": files})
    job = TrainingJob(
        output=str(tmp_path / "model"),
        architecture=Architecture("resnet50v2", 32, 32, "-1..1", dropout=0.0),
        phase="scratch",
        settings=ScratchSettings(epochs=2, warmup_epochs=0),
        batch_size=8,
        seed=0,
        dataset="",
        photos="",
        features=str(tmp_path),
    )
    first, second = train_here(job)
    assert np.isfinite(second.val_loss)
    assert second.loss < first.loss


def test_trials_that_differ_in_numbers_share_a_trace_and_nothing_else(tmp_path: Path) -> None:
    write_rows(tmp_path)
    one = {"epochs": 1, "dropout": 0.2, "weight_decay": 0.01, "learning_rate": 1e-3}
    other = one | {"dropout": 0.4, "weight_decay": 0.5, "label_smoothing": 0.1, "epochs": 2}
    trials = [
        replace(make_job(tmp_path, f"trial-{number}", **options), keep_model=False)
        for number, options in enumerate((one, other))
    ]
    kept: dict[str, Any] = {}
    first, second = (train_here(trial, kept=kept) for trial in trials)
    model_trainer = kept["model_trainer"].trainer
    assert model_trainer.step._train.experimental_get_tracing_count() == 1
    alone = train_here(replace(trials[1], output=str(tmp_path / "alone")))
    assert [[getattr(row, key) for key in SHOWN] for row in second] == [
        [getattr(row, key) for key in SHOWN] for row in alone
    ]
    assert second[0].loss != first[0].loss
    plain = replace(make_job(tmp_path, "plain", **(one | {"dropout": 0.0})), keep_model=False)
    train_here(plain, kept=kept)
    assert kept["model_trainer"].trainer is not model_trainer, "no dropout is another trace"
