"""The sweep's part of the report: what each setting did, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from catdog.report.load import load
from catdog.report.sweeps import SweepView, by_setting, sweep_view
from catdog.runs.records import Sweep, Trial
from catdog.storage import Location


def trials(accuracies: list[float], **settings: list[Any]) -> list[Trial]:
    return [
        Trial(
            id=f"{index:03d}",
            config={key: values[index] for key, values in settings.items()},
            val_accuracy=float(accuracy),
            epochs=2,
            status="finished",
        )
        for index, accuracy in enumerate(accuracies)
    ]


def view_of(run: Any, change: Callable[[Sweep], None]) -> SweepView:
    file = Location.of(run.path / "sweeps/efficientnet_lite0/trials.json")
    sweep = Sweep.fitted(file.read_json())[0]
    change(sweep)
    file.write_json(sweep.as_json())
    return sweep_view(load(Location.of(run.path)), "efficientnet_lite0", None)


def words_of(views: Any) -> dict[str, str]:
    return {view.title: view.words.replace("\u00a0", " ").replace("\u202f", " ") for view in views}


def test_each_setting_that_varied_has_a_chart_and_one_that_did_not_has_none() -> None:
    made = trials(
        [0.8, 0.85, 0.9], learning_rate=[1e-4, 1e-3, 1e-2], dropout=[0.2] * 3, warm=[1, 2, 1]
    )
    assert [view.title for view in by_setting(made, "002")] == ["Learning rate", "warm"]


def test_a_clear_effect_is_told_apart_from_chance() -> None:
    accuracies = list(np.linspace(0.7, 0.9, 8))
    made = trials(
        accuracies,
        learning_rate=list(np.geomspace(1e-5, 1e-2, 8)),
        dropout=[0.2, 0.4, 0.0, 0.1, 0.4, 0.0, 0.3, 0.2],
    )
    words = words_of(by_setting(made, None))
    assert words["Learning rate"] == (
        "Rank correlation +1.00 over 8 trials, p = 0.0004 corrected for 2 settings (Holm)."
    )
    assert words["Dropout"].endswith("chance alone does as much.")


def test_few_trials_are_not_interpreted() -> None:
    made = trials([0.7, 0.8, 0.9, 0.95], dropout=[0.0, 0.1, 0.2, 0.3])
    assert words_of(by_setting(made, None)) == {"Dropout": "Too few trials to tell what it did."}


def test_names_numbers_and_rates_have_axes_of_their_own() -> None:
    rates = [1e-4, 2e-4, 3e-4, 5e-4, 8e-4, 1e-3]
    made = trials(
        [0.7, 0.8, 0.85, 0.9, 0.91, 0.92],
        learning_rate=rates,
        unfrozen_blocks=[1, 2, 8, 1, 2, 8],
        strength=[0.50, 0.60, 0.71, 0.83, 0.92, 1.04],
    )
    rate, blocks, strength = (view.chart for view in by_setting(made, None))
    assert ">3e-4<" in rate or ">2e-4<" in rate
    assert [f">{text}<" in blocks for text in (1, 2, 8, 5)] == [True, True, True, False]
    assert ">0.8<" in strength


def test_all_blocks_are_more_than_any_number_of_them() -> None:
    made = trials([0.7, 0.8, 0.9, 0.95, 0.96], unfrozen_blocks=[1, 2, 4, 8, "all"])
    (view,) = by_setting(made, "004")
    assert "+1.00" in view.words
    assert view.chart.index(">8<") < view.chart.index(">all<")


def test_equal_accuracies_are_no_effect() -> None:
    made = trials([0.9] * 6, dropout=[0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    assert "chance alone" in words_of(by_setting(made, None))["Dropout"]


def test_a_failed_trial_is_last_with_its_cause_and_in_no_chart(new_run: Any) -> None:
    def fail(sweep: Sweep) -> None:
        trial = sweep.trials[0]
        trial.status, trial.error, trial.val_accuracy = "failed", "the loss is NaN", 0.999

    view = view_of(new_run(n_test=20), fail)
    failed = {trial.id for trial in view.trials if trial.has_failed}
    assert view.trials[-1].id in failed
    assert view.trials[0].id not in failed
    assert view.failures == [("000", "the loss is NaN"), ("005", "out of memory")]
    assert all("trial 000" not in setting.chart for setting in view.by_setting)


@pytest.mark.parametrize("startup", [0.0, 30.0])
def test_what_a_trial_costs_beside_its_epochs_is_told(new_run: Any, startup: float) -> None:
    def give_seconds(sweep: Sweep) -> None:
        for trial in sweep.trials:
            for row in trial.history:
                row.seconds = 10.0
            trial.seconds = 10.0 * len(trial.history) + startup

    words = view_of(new_run(n_test=20), give_seconds).words.replace("\u00a0", " ")
    assert ("30 s a trial went not to its epochs" in words) == bool(startup)
