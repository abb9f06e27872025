"""The report's numbers against independent computations on the predictions they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk
from statsmodels.stats import contingency_tables, multitest

from catdog.report import build
from catdog.report.load import load
from catdog.report.results import Report, assemble
from catdog.runs import Events, RunDirectory
from catdog.storage import Location


def assembled(*runs: Any, price: float | None = None) -> Report:
    return assemble([load(Location.of(run.path)) for run in runs], price)


@pytest.fixture(scope="module")
def report(finished_run: Any) -> Report:
    return assembled(finished_run, price=1.5)


def dog(table: pd.DataFrame, column: str = "logit") -> np.ndarray:
    return 1 / (1 + np.exp(-table[column].to_numpy(np.float64)))


def test_each_model_is_evaluated_on_its_test_rows(report: Report, finished_run: Any) -> None:
    assert [model.name for model in report.models] == [
        "base_cnn",
        "resnet50v2",
        "efficientnet_lite0",
    ]
    for model in report.models:
        table = finished_run.test(model.name)
        assert model.test is not None
        assert model.test.n == len(table) == 240
        assert model.test.accuracy == pytest.approx(
            sk.accuracy_score(table["label"], dog(table) > 0.5)
        )
        assert model.test.loss == pytest.approx(sk.log_loss(table["label"], dog(table)))
        assert model.test.auc == pytest.approx(sk.roc_auc_score(table["label"], table["logit"]))


def test_models_are_ranked_by_accuracy_then_loss(report: Report) -> None:
    keys = [(-m.test.accuracy, m.test.loss) for m in report.evaluated if m.test]
    assert keys == sorted(keys)


def test_the_average_is_of_probabilities(report: Report, finished_run: Any) -> None:
    tables = [finished_run.test(m).set_index("uri").sort_index() for m in finished_run.predictions]
    mean = np.mean([dog(table) for table in tables], axis=0)
    labels = tables[0]["label"]
    average = next(e for e in report.ensembles if e.name == "average")
    assert average.test.accuracy == pytest.approx(sk.accuracy_score(labels, mean > 0.5))
    assert average.test.loss == pytest.approx(sk.log_loss(labels, mean))
    assert average.test.auc == pytest.approx(sk.roc_auc_score(labels, mean))
    best = max(report.models, key=lambda m: m.test.accuracy if m.test else 0)
    assert average.against == best.name
    assert best.test is not None
    expected = average.test.accuracy - best.test.accuracy
    assert average.gain.difference == pytest.approx(expected)


def test_mirror_images_are_evaluated(report: Report, finished_run: Any) -> None:
    table = finished_run.test("resnet50v2")
    mirrored = next(e for e in report.ensembles if e.name == "resnet50v2+tta")
    assert mirrored.test.loss == pytest.approx(sk.log_loss(table["label"], dog(table, "logit_tta")))


def test_all_pairs_are_compared_on_the_same_photos(report: Report, finished_run: Any) -> None:
    assert len(report.pairs) == 3
    for pair in report.pairs:
        a = finished_run.test(pair.a.name).set_index("uri").sort_index()
        b = finished_run.test(pair.b.name).set_index("uri").sort_index()
        right_a = (a["logit"] > 0) == (a["label"] == 1)
        right_b = (b["logit"] > 0) == (b["label"] == 1)
        table = pd.crosstab(right_a, right_b).reindex([True, False]).T.reindex([True, False]).T
        expected = contingency_tables.mcnemar(table.fillna(0), exact=True)
        assert pair.result.mcnemar_p == pytest.approx(expected.pvalue)
        assert pair.result.difference == pytest.approx(right_a.mean() - right_b.mean())
        assert pair.result.ci95.low <= pair.result.difference <= pair.result.ci95.high


def test_p_values_are_corrected_for_their_number(report: Report) -> None:
    raw = [pair.result.mcnemar_p for pair in report.pairs]
    assert [pair.p_holm for pair in report.pairs] == pytest.approx(
        multitest.multipletests(raw, method="holm")[1]
    )


def test_temperature_comes_from_validation_and_is_judged_on_test(
    report: Report, finished_run: Any
) -> None:
    for model in report.models:
        assert model.calibration is not None
        temperature = model.calibration.temperature.value
        table = finished_run.predictions[model.name]
        val, test = table[table["split"] == "val"], finished_run.test(model.name)

        def loss(rows: pd.DataFrame, t: float) -> float:
            return float(sk.log_loss(rows["label"], 1 / (1 + np.exp(-rows["logit"] / t))))

        assert loss(val, temperature) <= min(loss(val, temperature * f) for f in (0.97, 1.03))
        assert model.calibration.loss == pytest.approx(loss(test, temperature), rel=1e-5)
        assert temperature > 1, "the made-up models are too confident"


def test_seeds_are_summed_up_by_mean_and_spread(report: Report, finished_run: Any) -> None:
    for model in report.models:
        accuracies = []
        for seed in (0, 1, 2):
            folder = finished_run.path / "models" / model.name
            # The model's own training has seed 0, so its repeat of seed 0 is not counted twice.
            source = folder if seed == 0 else folder / "seeds" / str(seed)
            table = pd.read_parquet(source / "predictions.parquet")
            test = table[table["split"] == "test"]
            accuracies.append(sk.accuracy_score(test["label"], test["logit"] > 0))
        assert model.seeds is not None
        assert model.seeds.n == 3
        assert model.seeds.mean == pytest.approx(np.mean(accuracies))
        assert model.seeds.sd == pytest.approx(stats.tstd(accuracies))


def test_cost_is_time_times_price(report: Report) -> None:
    for model in report.models:
        assert model.training is not None
        assert model.training.seconds is not None
        assert model.training.cost == pytest.approx(1.5 * model.training.seconds / 3600)


def test_restarts_are_counted_from_events_where_the_model_is_not_finished(
    new_run: Callable[..., Any],
) -> None:
    run = new_run(n_test=30)
    (run.path / "models/base_cnn/model.json").unlink()
    (run.path / "models/base_cnn/predictions.parquet").unlink()
    model = assembled(run).models[0]
    assert model.test is None
    assert model.training is not None
    assert (model.training.epochs, model.training.restarts) == (3, 1)
    assert model.training.seconds == pytest.approx(sum(row.seconds for row in model.files.history))


def test_runs_are_compared_on_the_photos_they_share(new_run: Callable[..., Any]) -> None:
    one = new_run("one", n_test=60, models=["base_cnn"], seed=1)
    two = new_run("two", n_test=60, models=["base_cnn"], seed=2)
    folder = two.path / "models/base_cnn"
    table = pd.read_parquet(folder / "predictions.parquet")
    shortened = table[~table["uri"].isin(table.loc[table["split"] == "test", "uri"].head(10))]
    shortened.to_parquet(folder / "predictions.parquet")
    report = assembled(one, two)
    assert [model.key for model in report.models] == ["base_cnn", "base_cnn @ two"]
    assert [pair.result.n for pair in report.pairs] == [50]


def test_runs_without_shared_photos_are_not_compared(new_run: Callable[..., Any]) -> None:
    one, two = new_run("one", n_test=30), new_run("two", n_test=30)
    for model in two.predictions:
        file = two.path / "models" / model / "predictions.parquet"
        table = pd.read_parquet(file)
        table["uri"] = "/elsewhere" + table["uri"]
        table.to_parquet(file)
    report = assembled(one, two)
    assert len(report.pairs) == 6
    assert all(pair.a.run is pair.b.run for pair in report.pairs)


def test_two_runs_of_one_name_are_told_apart(new_run: Callable[..., Any]) -> None:
    first = new_run("here/photos", n_test=20, models=["base_cnn"])
    second = new_run("there/photos", n_test=20, models=["base_cnn"])
    keys = [model.key for model in assembled(first, second).models]
    assert keys == ["base_cnn", "base_cnn @ photos #2"]


def test_predictions_that_are_not_numbers_are_left_out_and_said(
    new_run: Callable[..., Any],
) -> None:
    run = new_run(n_test=20)
    file = run.path / "models/base_cnn/predictions.parquet"
    table = pd.read_parquet(file)
    table.loc[table["split"] == "test", "logit"] = np.float32(np.nan)
    table.to_parquet(file)
    report = assembled(run)
    assert report.models[0].test is None
    assert any("20 of 20 test predictions are not numbers" in p for p in report.first.problems)


def test_a_photo_predicted_twice_counts_once(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20, models=["base_cnn"])
    file = run.path / "models/base_cnn/predictions.parquet"
    table = pd.read_parquet(file)
    pd.concat([table, table]).to_parquet(file)
    test = assembled(run).models[0].test
    assert test is not None
    assert test.n == 20


def test_results_do_not_depend_on_the_order_of_rows(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=40)
    before = assembled(run)
    for model in run.predictions:
        file = run.path / "models" / model / "predictions.parquet"
        pd.read_parquet(file).sample(frac=1, random_state=3).to_parquet(file)
    after = assembled(run)
    assert [m.test for m in after.models] == [m.test for m in before.models]
    assert [p.result for p in after.pairs] == [p.result for p in before.pairs]


def test_a_history_with_nan_is_shown_and_json_stays_json(new_run: Callable[..., Any]) -> None:
    from catdog.report import build

    run = new_run(n_test=20, models=["base_cnn"])
    file = run.path / "models/base_cnn/history.json"
    rows = json.loads(file.read_text())
    rows[-1]["loss"] = rows[-1]["val_loss"] = float("nan")
    file.write_text(json.dumps(rows))
    build([Location.of(run.path)])

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    tree = json.loads((run.path / "report.json").read_text(), parse_constant=refuse)
    assert tree["models"][0]["history"][-1]["loss"] is None


def test_a_run_on_gpus_that_began_again_from_the_start_is_told(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=30)
    run.change_run(hardware={"cpus": 16, "gpus": ["2 × L4"]})
    events = Events.open(RunDirectory(Location.of(run.path)))
    events.add("restart", model="base_cnn", epoch=0, step=0)
    page = build([Location.of(run.path)]).read_text().replace("\u00a0", " ")
    assert "GPU: 2 × L4" in page
    assert "Restart from the beginning." in page
    assert "2 restarts" in page
    assert page.count('class="restart"') >= 4, "two lines in each of two curves"
