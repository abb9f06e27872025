"""Every number against an independent one: scikit-learn, SciPy, statsmodels, likelihoods."""

from __future__ import annotations

import math
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn import calibration, linear_model
from sklearn import metrics as sk
from statsmodels.stats import contingency_tables, multitest, proportion

from catdog.evaluation import intervals, metrics


def classifier(n: int = 400, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Labels and logits of a middling, overconfident classifier."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    logits = 2.5 * (2 * labels - 1) + rng.normal(0, 3.5, n)
    return labels, np.round(logits) if ties else logits


#: The same cases each time, and no time limit for one: the machine is shared.
steady = settings(max_examples=60, deadline=None, derandomize=True)

samples = st.integers(0, 10_000).map(
    lambda seed: classifier(n=5 + seed % 60, seed=seed, ties=seed % 3 == 0)
)


@pytest.mark.parametrize("ties", [False, True])
def test_evaluation_agrees_with_scikit_learn(ties: bool) -> None:
    labels, logits = classifier(ties=ties)
    found = metrics.evaluate(labels, logits)
    dog = 1 / (1 + np.exp(-logits))
    answers = (dog > 0.5).astype(int)
    assert found.n == 400
    assert found.accuracy == pytest.approx(sk.accuracy_score(labels, answers))
    assert found.loss == pytest.approx(sk.log_loss(labels, dog))
    assert found.auc == pytest.approx(sk.roc_auc_score(labels, dog))
    assert found.f1 == pytest.approx(sk.f1_score(labels, answers))
    assert found.f1_cat == pytest.approx(sk.f1_score(labels, answers, pos_label=0))
    assert found.f1_macro == pytest.approx(sk.f1_score(labels, answers, average="macro"))
    assert found.brier == pytest.approx(sk.brier_score_loss(labels, dog))
    assert np.array_equal(found.confusion, sk.confusion_matrix(labels, answers))


def test_loss_stays_finite_where_probabilities_round_to_one() -> None:
    losses = metrics.cross_entropy([0, 1, 1], [800.0, 800.0, -800.0])
    assert losses.tolist() == [800.0, 0.0, 800.0]


def test_calibration_error_agrees_with_scikit_learns_curve() -> None:
    labels, logits = classifier(3000)
    dog = metrics.probabilities(logits)
    share, mean = calibration.calibration_curve(labels, dog, n_bins=15, strategy="uniform")
    bins = metrics.reliability(labels, logits)
    assert [b.dogs for b in bins] == pytest.approx(share)
    assert [b.probability for b in bins] == pytest.approx(mean)
    counts = np.histogram(dog, np.linspace(0, 1, 16))[0]
    expected = np.average(np.abs(share - mean), weights=counts[counts > 0])
    assert metrics.calibration_error(labels, logits) == pytest.approx(expected)


def test_calibration_error_of_a_known_case() -> None:
    # Ten photos at exactly 0.8 of which five are dogs: off by 0.3.
    logits = np.full(10, math.log(4))
    assert metrics.calibration_error([0, 1] * 5, logits) == pytest.approx(0.3)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_curve_agrees_with_scikit_learn(ties: bool) -> None:
    labels, logits = classifier(ties=ties)
    false, true = metrics.roc_curve(labels, logits)
    expected_false, expected_true, _ = sk.roc_curve(labels, logits, drop_intermediate=True)
    assert np.trapezoid(true, false) == pytest.approx(sk.roc_auc_score(labels, logits))
    # Corners may be counted differently, the curve may not.
    grid = np.linspace(0.003, 0.997, 50)
    ours, theirs = np.interp(grid, false, true), np.interp(grid, expected_false, expected_true)
    assert ours == pytest.approx(theirs)
    assert len(false) <= len(expected_false)


def test_one_class_has_no_auc() -> None:
    assert metrics.evaluate([1, 1, 1], [0.5, -1, 2]).auc is None
    with pytest.raises(ValueError, match="both classes"):
        metrics.roc_curve([0, 0], [1, 2])


@pytest.mark.parametrize(
    "labels, logits", [([], []), ([0, 1], [1.0]), ([0, 2], [1, 1]), ([0, 1], [math.nan, 1])]
)
def test_what_cannot_be_evaluated_is_refused(labels: list[int], logits: list[float]) -> None:
    with pytest.raises(ValueError):
        metrics.evaluate(labels, logits)


# Intervals of one number


@steady
@given(st.integers(0, 3000).flatmap(lambda n: st.tuples(st.integers(0, n + 1), st.just(n + 1))))
def test_wilson_agrees_with_statsmodels(case: tuple[int, int]) -> None:
    successes, n = case
    found = intervals.wilson(successes, n)
    expected = proportion.proportion_confint(successes, n, method="wilson")
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0 <= found.low <= successes / n <= found.high <= 1
    assert found.low < found.high


def test_bootstrap_agrees_with_scipys_bca() -> None:
    labels, logits = classifier(240)
    losses = metrics.cross_entropy(labels, logits)
    found = intervals.bootstrap_mean(losses, resamples=20_000)
    expected = stats.bootstrap(
        (losses,),
        np.mean,
        n_resamples=20_000,
        method="BCa",
        batch=500,
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = expected.high - expected.low
    assert found == pytest.approx((expected.low, expected.high), abs=0.04 * width)


def test_bootstrap_is_the_same_again_and_another_with_another_seed() -> None:
    losses = metrics.cross_entropy(*classifier(100))
    assert intervals.bootstrap_mean(losses, seed=3) == intervals.bootstrap_mean(losses, seed=3)
    assert intervals.bootstrap_mean(losses, seed=3) != intervals.bootstrap_mean(losses, seed=4)


@steady
@given(st.lists(st.floats(0, 20), min_size=1, max_size=60))
def test_bootstrap_stays_within_the_values(values: list[float]) -> None:
    low, high = intervals.bootstrap_mean(values, resamples=500)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_equal_losses_have_an_interval_of_one_point() -> None:
    assert intervals.bootstrap_mean([0.25] * 40) == (0.25, 0.25)
    assert intervals.bootstrap_mean([0.1 + 0.2] * 7) == pytest.approx((0.3, 0.3))


@steady
@given(st.fractions(0, 1), st.integers(1, 500), st.integers(1, 500))
def test_auc_interval_holds_its_estimate(share: Fraction, dogs: int, cats: int) -> None:
    auc = round(share * 2 * dogs * cats) / (2 * dogs * cats)  # ties count half
    low, high = intervals.auc_interval(auc, dogs, cats)
    assert 0 <= low <= auc <= high <= 1
    assert low < high


def test_auc_interval_covers_the_truth_as_often_as_it_says() -> None:
    # Normal scores a distance d apart have an AUC of Φ(d / √2).
    rng, covered = np.random.default_rng(5), 0
    truth = stats.norm.cdf(2.0 / math.sqrt(2))
    for _ in range(600):
        scores = np.concatenate([rng.normal(0, 1, 60), rng.normal(2, 1, 50)])
        labels = np.repeat([0, 1], [60, 50])
        auc = metrics.roc_auc(labels, scores)
        assert auc is not None
        low, high = intervals.auc_interval(auc, 50, 60)
        covered += low <= truth <= high
    assert 0.925 <= covered / 600 <= 0.985, f"covered {covered} of 600, wanted about 95 %"


# Two models on the same photos


@steady
@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_agrees_with_statsmodels(only_a: int, only_b: int) -> None:
    table = [[30, only_a], [only_b, 20]]
    expected = contingency_tables.mcnemar(table, exact=True).pvalue if only_a + only_b else 1.0
    assert intervals.mcnemar(only_a, only_b) == pytest.approx(min(1.0, expected))


def test_tango_interval_of_the_published_example() -> None:
    # Airway reactivity of 21 children (Bentur et al.), as computed in Fagerland et al. 2014.
    assert intervals.paired_difference(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


@pytest.mark.parametrize(
    "only_a, only_b, n",
    [(10, 4, 240), (0, 3, 50), (51, 1, 240), (5, 5, 30), (0, 0, 100), (7, 0, 7)],
)
def test_tango_interval_agrees_with_a_maximised_likelihood(
    only_a: int, only_b: int, n: int
) -> None:
    """At the bounds the score statistic is 1.96, its nuisance parameter found by a search."""

    def statistic(delta: float) -> float:
        def unlikeliness(q: float) -> float:
            p = q + delta
            same = 1 - p - q
            terms = ((only_a, p), (only_b, q), (n - only_a - only_b, same))
            return -sum(k * math.log(max(v, 1e-300)) for k, v in terms if k)

        low, high = max(0.0, -delta), (1 - delta) / 2
        q = optimize.minimize_scalar(
            unlikeliness, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
        ).x
        variance = n * (2 * q + delta - delta**2)
        return abs(only_a - only_b - n * delta) / math.sqrt(variance)

    for bound in intervals.paired_difference(only_a, only_b, n):
        if abs(bound) < 1:
            assert statistic(bound) == pytest.approx(1.959964, abs=2e-3)


@steady
@given(st.integers(0, 80), st.integers(0, 80), st.integers(1, 400))
def test_difference_interval_is_sound(only_a: int, only_b: int, same: int) -> None:
    n = only_a + only_b + same
    low, high = intervals.paired_difference(only_a, only_b, n)
    assert -1 <= low < high <= 1
    assert low <= (only_a - only_b) / n <= high
    turned = intervals.paired_difference(only_b, only_a, n)
    assert turned == pytest.approx((-high, -low), abs=1e-9)
    if intervals.mcnemar(only_a, only_b) < 0.05:
        assert low > 0 or high < 0, "a significant difference whose interval holds 0"


def test_difference_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    draws = rng.multinomial(120, [0.08, 0.04, 0.88], size=1500)
    covered = 0
    for only_a, only_b, _ in draws:
        low, high = intervals.paired_difference(int(only_a), int(only_b), 120)
        covered += low <= 0.04 <= high
    assert 0.93 <= covered / 1500 <= 0.975, f"covered {covered} of 1500, wanted about 95 %"


def test_comparison_counts_the_photos_that_one_alone_gets_right() -> None:
    labels = np.array([0, 0, 1, 1, 1])
    a, b = np.array([-1, -1, 1, 1, -1]), np.array([-1, 1, -1, 1, 1])
    found = metrics.compare(labels, a, b)
    assert (found.n, found.only_a, found.only_b) == (5, 2, 1)
    assert found.difference == pytest.approx(0.2)
    accuracy = [metrics.evaluate(labels, each).accuracy for each in (a, b)]
    assert found.difference == pytest.approx(accuracy[0] - accuracy[1])


@pytest.mark.parametrize(
    "p_values",
    [[0.03], [0.01, 0.04, 0.03], [0.9, 0.9, 0.01], [0.02] * 4, [1.0, 0.0, 0.3, 0.011, 0.04]],
)
def test_holm_agrees_with_statsmodels(p_values: list[float]) -> None:
    assert intervals.holm(p_values) == pytest.approx(
        multitest.multipletests(p_values, method="holm")[1]
    )


def test_a_rank_correlation_agrees_with_scipy_and_is_exact_for_few_pairs() -> None:
    x, y = [1.0, 2.0, 2.0, 5.0, math.inf], [0.1, 0.3, 0.2, 0.5, 0.4]
    found = intervals.rank_correlation(x, y)
    assert found.rho == pytest.approx(stats.spearmanr([1, 2, 2, 5, 9], y).statistic)
    rising = intervals.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])
    # Of the 24 orders, the one seen and its reverse are as strong.
    assert rising.p == pytest.approx(2 / 24)


# Calibration


def test_temperature_is_the_one_that_logistic_regression_finds() -> None:
    labels, logits = classifier(1500, seed=4)
    found = metrics.fit_temperature(labels, logits)
    regression = linear_model.LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-8)
    regression.fit(logits[:, None], labels)
    assert found.value == pytest.approx(1 / regression.coef_[0, 0], rel=1e-3)
    assert found.loss_before == pytest.approx(sk.log_loss(labels, metrics.probabilities(logits)))
    scaled = metrics.probabilities(logits / found.value)
    assert found.loss_after == pytest.approx(sk.log_loss(labels, scaled))
    assert found.note == ""


@steady
@given(samples)
def test_temperature_never_makes_validation_worse_nor_changes_an_answer(case: Any) -> None:
    labels, logits = case
    found = metrics.fit_temperature(labels, logits)
    assert found.loss_after <= found.loss_before + 1e-9
    assert np.array_equal(
        metrics.correct(labels, logits), metrics.correct(labels, logits / found.value)
    )


def test_a_faultless_validation_set_leaves_the_temperature_alone() -> None:
    found = metrics.fit_temperature([0, 1, 1], [-2.0, 3.0, 1.0])
    assert found.value == 1.0
    assert "no mistake" in found.note


def test_a_model_that_is_always_wrong_is_not_called_calibrated() -> None:
    found = metrics.fit_temperature([0, 1, 1], [2.0, -3.0, -1.0])
    assert found.value == pytest.approx(metrics.TEMPERATURE_RANGE[1], rel=0.01)
    assert "not calibrated" in found.note


# Repeats


def test_spread_over_seeds_agrees_with_scipy() -> None:
    values = [0.91, 0.93, 0.9]
    found = intervals.spread(values)
    assert (found.n, found.low, found.high) == (3, 0.9, 0.93)
    assert found.mean == pytest.approx(np.mean(values))
    assert found.sd == pytest.approx(stats.tstd(values))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean_ci95 == pytest.approx((expected.low, expected.high))


def test_one_seed_has_no_spread() -> None:
    found = intervals.spread([0.9])
    assert (found.sd, found.mean_ci95) == (None, None)


def test_metrics_import_neither_ray_nor_tensorflow() -> None:
    heavy = {"ray", "tensorflow", "keras"}
    code = f"import sys, catdog.evaluation.metrics; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
