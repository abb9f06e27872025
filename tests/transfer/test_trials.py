"""What a sweep leaves: records, the ranking and its tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from catdog.config.sweep import SweepSettings
from catdog.errors import RunFailed
from catdog.runs.records import Epoch
from catdog.storage import Location
from catdog.transfer.search import Search
from catdog.transfer.trials import TrialStore, ranking

DEFAULTS: dict[str, Any] = {"learning_rate": 1e-4, "unfrozen_blocks": 2}


def trial_store(folder: Path, trials: int = 3, method: Any = "random") -> TrialStore:
    settings = SweepSettings(search=method, unfrozen_blocks=(1, "all"))
    return TrialStore(Location.of(folder), Search.of(settings, DEFAULTS, 0), trials)


def rows(*accuracies: float) -> list[Epoch]:
    return [
        Epoch(epoch=epoch, val_accuracy=accuracy, val_loss=1 - accuracy)
        for epoch, accuracy in enumerate(accuracies, start=1)
    ]


def test_a_record_is_the_best_epoch(tmp_path: Path) -> None:
    book = trial_store(tmp_path)
    record = book.close("000", book.point("000"), rows(0.6, 0.8, 0.7), 3.0, "finished")
    assert (record.val_accuracy, record.epochs) == (0.8, 3)
    assert record.val_loss == pytest.approx(0.2)
    assert book.missing() == ["001", "002"]


def test_the_ranking_puts_failed_trials_last(tmp_path: Path) -> None:
    book = trial_store(tmp_path)
    book.close("000", book.point("000"), rows(0.7), 1.0, "stopped")
    book.close("001", book.point("001"), [], 1.0, "failed", "the loss is nan after epoch 1")
    book.close("002", book.point("002"), rows(0.9), 1.0, "finished")
    assert [record.id for record in ranking(book.records())] == ["002", "000", "001"]
    outcome = book.summarise(2.0)
    assert outcome.best.id == "002"
    assert outcome.best.config == book.point("002")


def test_trials_may_be_ranked_by_loss_alone(tmp_path: Path) -> None:
    book = replace(trial_store(tmp_path), ranked_by="val_loss")
    for key, loss in zip(book.ids, (0.4, 0.2, 0.3), strict=True):
        row = Epoch(epoch=1, val_accuracy=loss, val_loss=loss)
        book.close(key, book.point(key), [row], 1.0, "finished")
    assert [trial.id for trial in book.ranked()] == ["001", "002", "000"]
    assert book.summarise(1.0).best.id == "001"


def test_a_trial_that_failed_after_the_best_epoch_of_all_is_not_chosen(tmp_path: Path) -> None:
    book = trial_store(tmp_path)
    book.close("000", book.point("000"), rows(0.95), 1.0, "failed", "the loss is nan in epoch 2")
    book.close("001", book.point("001"), rows(0.8), 1.0, "finished")
    book.close("002", book.point("002"), [], 1.0, "stopped")
    assert [record.id for record in ranking(book.records())] == ["001", "002", "000"]
    assert book.summarise(1.0).best.id == "001"


def test_the_table_is_ranked_and_holds_the_settings(tmp_path: Path) -> None:
    book = trial_store(tmp_path, trials=6)
    for number, key in enumerate(book.ids):
        book.close(key, book.point(key), rows(0.5 + number / 100), 1.0, "finished")
    book.summarise(6.0)
    table = pd.read_parquet(tmp_path / "trials.parquet")
    assert list(table["rank"]) == [1, 2, 3, 4, 5, 6]
    assert list(table["id"]) == ["005", "004", "003", "002", "001", "000"]
    assert set(table["unfrozen_blocks"]) <= {"1", "2", "all"}
    assert table["learning_rate"].dtype == "float64"
    assert table["error"].isna().all()


def test_a_point_is_decided_once(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    book = trial_store(tmp_path, trials=8, method="tpe")
    before = book.point("006")
    for key in book.ids[:5]:
        book.close(key, book.point(key), rows(0.5), 1.0, "finished")
    assert book.point("006") == before, "an interrupted trial would go on with other settings"


def test_an_interrupted_sweep_is_summarised_as_far_as_it_came(tmp_path: Path) -> None:
    book = trial_store(tmp_path)
    book.close("000", book.point("000"), rows(0.7), 1.0, "finished")
    assert len(book.summarise(1.0).trials) == 1
    book.close("001", book.point("001"), rows(0.8), 1.0, "finished")
    assert book.summarise(2.5).seconds == pytest.approx(3.5), "the time of both sessions"


def test_a_sweep_without_any_result_says_why(tmp_path: Path) -> None:
    book = trial_store(tmp_path)
    book.close("000", book.point("000"), [], 1.0, "failed", "the loss is nan after epoch 1")
    with pytest.raises(RunFailed, match="the loss is nan after epoch 1"):
        book.summarise(1.0)
