"""Confidence intervals and statistical tests.

Two-sided, with a confidence of 95 % unless told otherwise. Pure functions of counts and values;
equal inputs give equal results: the one method that draws random numbers takes a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, stats


class Interval(NamedTuple):
    low: float
    high: float


class Spread(NamedTuple):
    """Repeats with other seeds: mean, standard deviation (n - 1), range, t interval of the mean.

    ``sd`` and ``mean_ci95`` are ``None`` for a single value.
    """

    n: int
    mean: float
    sd: float | None
    low: float
    high: float
    mean_ci95: Interval | None


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of a proportion (Wilson 1927), inside [0, 1] and never of zero width."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a proportion")
    found = stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    return Interval(float(found.low), float(found.high))


def bootstrap_mean(
    values: npt.ArrayLike, *, seed: int = 0, resamples: int = 4000, confidence: float = 0.95
) -> Interval:
    """Bootstrap interval of a mean, bias-corrected and accelerated (BCa; Efron 1987).

    Losses are skewed by a few confident mistakes, for which the plain percentile interval lies too
    low. Where all values are equal the interval is that value. As :func:`scipy.stats.bootstrap`,
    whose acceleration takes every mean without one value, in n² steps: 7 times as long for 5,000.
    """
    data = np.asarray(values, dtype=np.float64)
    n, mean = data.size, float(data.mean())
    deviation = data - mean
    squares = float(deviation @ deviation)
    if n < 2 or squares <= (1e-12 * abs(mean)) ** 2 * n:
        return Interval(mean, mean)
    rng = np.random.default_rng(seed)
    step = max(1, 2_000_000 // n)  # 16 MB of indices at a time
    means = np.concatenate(
        [
            data[rng.integers(0, n, size=(min(step, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, step)
        ]
    )
    share = (np.sum(means < mean) + np.sum(means <= mean)) / (2 * resamples)
    bias = stats.norm.ppf(np.clip(share, 0.5 / resamples, 1 - 0.5 / resamples))
    acceleration = float((deviation**3).sum()) / (6 * squares**1.5)
    z = stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    levels = stats.norm.cdf(bias + (bias + z) / (1 - acceleration * (bias + z)))
    low, high = np.quantile(means, levels)
    return Interval(float(low), float(high))


def auc_interval(auc: float, dogs: int, cats: int, confidence: float = 0.95) -> Interval:
    """Score interval of an AUC (Newcombe 2006, part 2, method 5).

    Unlike DeLong's it has a width at an AUC of 1, which small test sets do reach.
    """
    z = stats.norm.ppf((1 + confidence) / 2)
    weight = (dogs + cats) / 2 - 1

    def excess(theta: float) -> float:
        shape = 1 + weight * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return float((auc - theta) ** 2 - z**2 * theta * (1 - theta) * shape / (dogs * cats))

    low = 0.0 if auc <= 0 else _bound(excess, auc, 0.0)
    high = 1.0 if auc >= 1 else _bound(excess, auc, 1.0)
    return Interval(low, high)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value that two models are right equally often (McNemar 1947)."""
    if only_a + only_b == 0:
        return 1.0
    return float(stats.binomtest(only_a, only_a + only_b, 0.5).pvalue)


def paired_difference(only_a: int, only_b: int, n: int, confidence: float = 0.95) -> Interval:
    """Score interval of the difference of two paired proportions (Tango 1998).

    Chosen because it leaves out 0 wherever the exact McNemar test has p < 0.05, so that the report
    cannot contradict itself, and because it holds its level on small sets (Fagerland et al. 2014).
    """
    z = stats.norm.ppf((1 + confidence) / 2)

    def excess(delta: float) -> float:
        a, c = 2 * n, -only_b * delta * (1 - delta)
        b = -only_a - only_b + (2 * n - only_a + only_b) * delta
        # The share of "only B" that is likeliest if the true difference is delta.
        likeliest = (math.sqrt(max(0.0, b * b - 4 * a * c)) - b) / (2 * a)
        variance = n * (2 * likeliest + delta * (1 - delta))
        return float((only_a - only_b - n * delta) ** 2 - z**2 * variance)

    observed = (only_a - only_b) / n
    low = -1.0 if observed <= -1 else _bound(excess, observed, -1.0)
    high = 1.0 if observed >= 1 else _bound(excess, observed, 1.0)
    return Interval(low, high)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for how many there are (Holm 1979), in the order given."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


class Association(NamedTuple):
    """Spearman's rank correlation, and how often shuffled values do as well (two-sided)."""

    rho: float
    p: float


def rank_correlation(
    x: Sequence[float], y: Sequence[float], *, seed: int = 0, resamples: int = 9999
) -> Association:
    """Whether two numbers rise together, for few and uneven values; infinities are ranks too.

    The p-value is that of a permutation test, exact up to 7 pairs: its normal approximation needs
    more. Values that are all equal have no association.
    """
    ours, theirs = (ranks - ranks.mean() for ranks in (stats.rankdata(x), stats.rankdata(y)))
    if min(np.ptp(ours), np.ptp(theirs)) == 0:
        return Association(0.0, 1.0)
    length = math.sqrt(np.square(ours).sum() * np.square(theirs).sum())
    # All at once: one call of Pearson's for each took seconds a setting.
    found = stats.permutation_test(
        (ours,),
        lambda shuffled, axis: (shuffled * theirs).sum(axis) / length,
        permutation_type="pairings",
        n_resamples=resamples,
        vectorized=True,
        rng=seed,
    )
    return Association(float(found.statistic), float(found.pvalue))


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of one number over repeats (Student's t for the interval of the mean)."""
    data = np.asarray(values, dtype=np.float64)
    n, mean = data.size, float(data.mean())
    low, high = float(data.min()), float(data.max())
    if n < 2:
        return Spread(n, mean, None, low, high, None)
    sd = float(data.std(ddof=1))
    bounds = stats.t.interval(0.95, n - 1, mean, sd / math.sqrt(n)) if sd else (mean, mean)
    return Spread(n, mean, sd, low, high, Interval(*map(float, bounds)))


def _bound(excess: Callable[[float], float], estimate: float, end: float) -> float:
    """Where a score interval ends between its estimate (inside) and the end of the scale.

    ``excess`` is below 0 inside the interval. It can be exactly 0 at an estimate on the edge of the
    scale, so the search begins a hair beside it.
    """
    inside = estimate + 1e-9 * (end - estimate)
    if excess(end) <= 0:
        return end
    return float(optimize.brentq(excess, inside, end, xtol=1e-12))
