"""The verdict says nothing that the numbers do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest

from catdog.report.conclusion import Conclusion, judge
from catdog.report.load import load
from catdog.report.results import assemble
from catdog.runs.records import Model
from catdog.storage import Location

EASY, MIDDLE, HARD = (3.0, 0.3), (1.6, 0.8), (0.6, 1.0)


def verdict_on(*runs: Any) -> Conclusion:
    return judge(assemble([load(Location.of(run.path)) for run in runs]))


def plain(text: str) -> str:
    return text.replace("\u00a0", " ").replace("\u202f", " ")


def answers(run: Any, model: str, wrong: Sequence[int]) -> None:
    """Rewrite a model's test predictions: right but for the photos at these positions."""
    file = run.path / "models" / model / "predictions.parquet"
    table = pd.read_parquet(file)
    test = table.index[table["split"] == "test"]
    sign = 2.0 * table.loc[test, "label"] - 1
    sign.iloc[list(wrong)] *= -1
    table.loc[test, "logit"] = (2 * sign).astype("float32")
    table.to_parquet(file)


def test_a_clear_winner_is_named_with_difference_interval_and_p(
    new_run: Callable[..., Any],
) -> None:
    run = new_run(n_test=200)
    answers(run, "efficientnet_lite0", range(4))
    answers(run, "resnet50v2", range(20))
    answers(run, "base_cnn", range(60))
    verdict = verdict_on(run)
    # 16 photos of 200: 8 points; exact McNemar of 16 to 0 is 2 / 2¹⁶.
    assert plain(verdict.headline).startswith(
        "EfficientNet-Lite0 is better than ResNet50V2 by 8.0 points ("
    )
    assert plain(verdict.headline).endswith("), McNemar p < 0.001.")
    assert "It is also better than Base CNN." in verdict.support
    assert "98.0 % of 200 test photos" in plain(verdict.support)


def test_a_difference_that_chance_explains_is_not_claimed(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=200)
    answers(run, "efficientnet_lite0", range(10))
    answers(run, "resnet50v2", range(13))
    answers(run, "base_cnn", range(60))
    verdict = verdict_on(run)
    assert plain(verdict.headline) == (
        "EfficientNet-Lite0 cannot be told apart from ResNet50V2 on 200 test photos."
    )
    assert "1.5 points" in plain(verdict.support)
    assert "Both are better than Base CNN." in verdict.support


def test_a_small_p_that_the_number_of_pairs_explains_is_not_claimed(
    new_run: Callable[..., Any],
) -> None:
    run = new_run(n_test=200)
    # 6 to 0 has p = 0.031, and with three comparisons 0.094.
    answers(run, "efficientnet_lite0", range(4))
    answers(run, "resnet50v2", range(10))
    answers(run, "base_cnn", range(7))
    verdict = verdict_on(run)
    assert "cannot be told apart" in verdict.headline
    assert "better" not in verdict.headline
    assert "better" not in verdict.support


def test_equal_models_are_called_equal(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=50, models=["resnet50v2", "efficientnet_lite0"])
    answers(run, "efficientnet_lite0", [0, 1])
    answers(run, "resnet50v2", [2, 3])
    verdict = verdict_on(run)
    assert "gets as many: a difference of 0.0 points" in plain(verdict.support)
    assert "behind" not in verdict.support


def test_the_one_model_with_results_is_not_compared(new_run: Callable[..., Any]) -> None:
    verdict = verdict_on(new_run(n_test=40, models=["base_cnn"]))
    assert verdict.headline.startswith("Base CNN gets")
    assert "no comparison" in verdict.support
    assert verdict.transfer == ""


@pytest.mark.parametrize(
    "ours, words", [(range(4), "bought 28.0 points ("), (range(60), "bought nothing")]
)
def test_what_transfer_bought(new_run: Callable[..., Any], ours: range, words: str) -> None:
    run = new_run(n_test=200, models=["base_cnn", "efficientnet_lite0"])
    answers(run, "efficientnet_lite0", ours)
    answers(run, "base_cnn", range(60))
    for model, seconds in (("base_cnn", 576.0), ("efficientnet_lite0", 477.0)):
        run.change(f"models/{model}/model.json", Model, train={"epochs": 3, "seconds": seconds})
    transfer = plain(verdict_on(run).transfer)
    assert f"Transfer with EfficientNet-Lite0 {words}" in transfer
    assert "in 99 s less training (8.0 min against 9.6 min)." in transfer


def test_transfer_that_did_harm_is_called_so(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=200, models=["base_cnn", "efficientnet_lite0"])
    answers(run, "base_cnn", range(4))
    answers(run, "efficientnet_lite0", range(60))
    assert "Transfer did not pay: EfficientNet-Lite0 is 28.0 points" in plain(
        verdict_on(run).transfer
    )


def test_random_weights_are_not_called_transfer(new_run: Callable[..., Any]) -> None:
    verdict = verdict_on(new_run(n_test=40, weights="none"))
    assert verdict.transfer == (
        "No model here began with pretrained weights: this says nothing about transfer."
    )
    assert any("began with random weights" in caution for caution in verdict.cautions)
    assert any("could not be downloaded" in caution for caution in verdict.cautions)


def test_a_backbone_that_a_note_names_is_not_named_twice(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=120, weights="none")
    run.change_run(notes=["efficientnet_lite0 starts from random weights", "resnet50v2: random"])
    assert verdict_on(run).cautions == [
        "efficientnet_lite0 starts from random weights.",
        "resnet50v2: random.",
    ]


def test_models_that_learned_nothing_are_not_praised(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=120, models=["base_cnn", "efficientnet_lite0"])
    answers(run, "base_cnn", range(0, 120, 2))
    answers(run, "efficientnet_lite0", range(4))
    caution = next(c for c in verdict_on(run).cautions if "Always answering" in c)
    assert plain(caution) == (
        "Always answering “cat” would be right for 50.0 % of the test photos; "
        "nothing shows that Base CNN can do better."
    )


def test_drawings_are_called_drawings(new_run: Callable[..., Any]) -> None:
    cautions = verdict_on(new_run(n_test=40, sample=True)).cautions
    assert any("built-in drawings" in caution for caution in cautions)
    assert not any("drawings" in c for c in verdict_on(new_run("real", n_test=40)).cautions)


def test_few_photos_are_a_caution(new_run: Callable[..., Any]) -> None:
    assert any("48" in caution for caution in verdict_on(new_run(n_test=48)).cautions)
    assert verdict_on(new_run("many", n_test=120)).cautions == []


def test_a_failed_run_says_why_in_one_line(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=120)
    run.change_run(status="failed", error="out of memory\nTraceback (most recent call last)")
    (run.path / "models/resnet50v2/predictions.parquet").unlink()
    assert verdict_on(run).cautions == [
        "This run failed: out of memory. The report shows what there is.",
        "No test results for ResNet50V2.",
    ]


def test_nothing_evaluated_is_no_verdict(new_run: Callable[..., Any]) -> None:
    run = new_run(n_test=20)
    for model in run.predictions:
        (run.path / "models" / model / "predictions.parquet").unlink()
    verdict = verdict_on(run)
    assert "nothing to compare" in verdict.headline
    assert verdict.transfer == ""


def test_of_two_runs_each_model_carries_its_run(new_run: Callable[..., Any]) -> None:
    one = new_run("one", n_test=150, models=["base_cnn"])
    two = new_run("two", n_test=150, models=["efficientnet_lite0"])
    answers(one, "base_cnn", range(50))
    answers(two, "efficientnet_lite0", range(5))
    verdict = verdict_on(one, two)
    assert "EfficientNet-Lite0 (two) is better than Base CNN (one)" in verdict.headline


def test_runs_on_other_photos_are_told_and_on_copies_of_the_same_are_not(
    new_run: Callable[..., Any],
) -> None:
    one, two = (new_run(name, n_test=150, models=["base_cnn"]) for name in ("one", "two"))
    told = "The runs used different sets of photos."

    def notes() -> str:
        return " ".join(verdict_on(one, two).cautions)

    assert told not in notes()
    manifest = two.path / "data/manifest.json"
    facts = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(facts | {"fingerprint": "listed anew", "image_size": 96}))
    assert told not in notes()
    manifest.write_text(json.dumps(facts | {"contents": "other photos"}))
    assert told in notes()


def test_the_most_accurate_is_not_best_where_another_beats_it_on_the_same_photos(
    new_run: Callable[..., Any],
) -> None:
    """A run with easier photos of its own: what counts is the photos that both have."""
    one = new_run("one", n_test=200, models=["base_cnn"])
    two = new_run("two", n_test=200, models=["efficientnet_lite0"])
    answers(one, "base_cnn", range(40))
    answers(two, "efficientnet_lite0", range(5))
    file = two.path / "models/efficientnet_lite0/predictions.parquet"
    table = pd.read_parquet(file)
    test = table.index[table["split"] == "test"]
    more = table.loc[test].copy()
    more["uri"] = "/hard" + more["uri"]
    more["logit"] *= -1
    pd.concat([table, more]).to_parquet(file)
    verdict = verdict_on(one, two)
    assert verdict.headline.startswith("EfficientNet-Lite0 (two) is better than Base CNN (one)")


@pytest.mark.parametrize("seed", range(12))
def test_better_is_said_only_where_the_tests_say_so(new_run: Callable[..., Any], seed: int) -> None:
    skill = {
        "base_cnn": HARD,
        "resnet50v2": MIDDLE,
        "efficientnet_lite0": EASY if seed % 2 else MIDDLE,
    }
    run = new_run(n_test=60 + 20 * seed, seed=seed, skill=skill)
    report = assemble([load(Location.of(run.path))])
    verdict = judge(report)
    best, second = report.evaluated[:2]
    pair = report.pair(best, second)
    assert pair is not None
    assert ("is better than" in verdict.headline) == (pair.p_holm < 0.05)
    if pair.p_holm < 0.05:
        assert pair.gain_ci95(best).low > 0
