"""Metrics of binary predictions. Pure functions of labels and logits.

Labels are 0 (cat) or 1 (dog). A logit is the log odds of dog, so a photo is called a dog where its
logit is above 0. All intervals are two-sided with a confidence of 95 % unless told otherwise.
Nothing here imports Ray or TensorFlow, and equal inputs give equal results: the one method that
draws random numbers takes a seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from catdog.evaluation.intervals import (
    Interval,
    auc_interval,
    bootstrap_mean,
    mcnemar,
    paired_difference,
    wilson,
)

Array: TypeAlias = npt.NDArray[Any]

#: Equal-width bins of the probability of dog, for calibration (Guo et al. 2017 use 15 as well).
CALIBRATION_BINS = 15
#: Range in which a temperature is looked for; at its ends calibration has failed anyway.
TEMPERATURE_RANGE = (0.05, 20.0)


class Bin(NamedTuple):
    """A bin of a reliability diagram: ``n`` photos with a probability in (``low``, ``high``].

    ``probability`` is their mean probability of dog, ``dogs`` the share that are dogs.
    """

    low: float
    high: float
    n: int
    probability: float
    dogs: float


class Temperature(NamedTuple):
    """A temperature fitted on validation and the loss (nats) there before and after.

    ``note`` says why the value is not an ordinary optimum, and is empty where it is one.
    """

    value: float
    loss_before: float
    loss_after: float
    note: str


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of photos. Fractions are in [0, 1], losses in nats.

    ``auc`` is ``None`` where only one class is present; ``confusion`` has a row for each true class
    and a column for each answer, cat first; ``f1`` takes dog as the positive class.
    """

    n: int
    accuracy: float
    accuracy_ci95: Interval
    loss: float
    loss_ci95: Interval
    auc: float | None
    auc_ci95: Interval | None
    f1: float
    f1_cat: float
    f1_macro: float
    ece: float
    brier: float
    confusion: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Comparison:
    """Model A against model B on the same photos.

    ``only_a`` photos are right in A alone, ``only_b`` in B alone. ``difference`` is the accuracy of
    A less that of B, ``ci95`` Tango's interval of it, ``mcnemar_p`` the exact two-sided p-value.
    """

    n: int
    only_a: int
    only_b: int
    difference: float
    ci95: Interval
    mcnemar_p: float


def checked(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[Array, Array]:
    """Labels as int64 and logits as float64, both of shape (n,), n > 0.

    Raises:
        ValueError: shapes differ, nothing is given, a label is not 0 or 1, a logit is not finite.
    """
    truth = np.asarray(labels).astype(np.int64)
    scores = np.asarray(logits, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != scores.shape or not truth.size:
        raise ValueError(f"labels {truth.shape} and logits {scores.shape}: need equal (n,), n > 0")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError("labels must be 0 (cat) or 1 (dog)")
    if not np.isfinite(scores).all():
        raise ValueError(f"{int((~np.isfinite(scores)).sum())} logits are not finite")
    return truth, scores


def probabilities(logits: npt.ArrayLike) -> Array:
    """Probability of dog, float64 of the shape of ``logits``."""
    return np.asarray(special.expit(np.asarray(logits, dtype=np.float64)))


def cross_entropy(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Array:
    """Binary cross-entropy of each photo in nats, (n,); finite for every finite logit."""
    truth, scores = checked(labels, logits)
    return np.asarray(np.logaddexp(0.0, scores) - truth * scores)


def correct(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Array:
    """Which photos are right, bool (n,)."""
    truth, scores = checked(labels, logits)
    return np.asarray((scores > 0) == (truth == 1))


def confusion(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[tuple[int, int], ...]:
    """Counts ``[[cat→cat, cat→dog], [dog→cat, dog→dog]]``."""
    truth, scores = checked(labels, logits)
    counts = np.bincount(2 * truth + (scores > 0), minlength=4)
    return (int(counts[0]), int(counts[1])), (int(counts[2]), int(counts[3]))


def f1_score(hits: int, false_alarms: int, misses: int) -> float:
    """Harmonic mean of precision and recall; 0 where nothing was there to find or was found."""
    whole = 2 * hits + false_alarms + misses
    return 2 * hits / whole if whole else 0.0


def roc_auc(labels: npt.ArrayLike, logits: npt.ArrayLike) -> float | None:
    """Area under the ROC curve: the chance that a dog scores above a cat, ties counting half.

    ``None`` where one class is missing.
    """
    from sklearn.metrics import roc_auc_score

    truth, scores = checked(labels, logits)
    return float(roc_auc_score(truth, scores)) if 0 < truth.sum() < truth.size else None


def roc_curve(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[Array, Array]:
    """False and true positive rates from (0, 0) to (1, 1), corners only; dog is positive.

    Raises:
        ValueError: one class is missing.
    """
    truth, scores = checked(labels, logits)
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.flatnonzero(np.diff(scores[order])), truth.size - 1)
    dogs = np.append(0, np.cumsum(truth[order])[last_of_tie])
    cats = np.append(0, last_of_tie + 1 - dogs[1:])
    if not dogs[-1] or not cats[-1]:
        raise ValueError("a ROC curve needs photos of both classes")
    turns = (np.diff(dogs, 2) != 0) | (np.diff(cats, 2) != 0)
    keep = np.concatenate([[True], turns, [True]])
    return cats[keep] / cats[-1], dogs[keep] / dogs[-1]


def reliability(
    labels: npt.ArrayLike, logits: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> list[Bin]:
    """The bins of equal width of the probability of dog that hold photos, lowest first."""
    truth, scores = checked(labels, logits)
    dog = probabilities(scores)
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], dog)
    counts = np.bincount(index, minlength=bins)
    sums = np.bincount(index, weights=dog, minlength=bins)
    dogs = np.bincount(index, weights=truth, minlength=bins)
    return [
        Bin(
            float(edges[i]),
            float(edges[i + 1]),
            int(counts[i]),
            float(sums[i] / counts[i]),
            float(dogs[i] / counts[i]),
        )
        for i in np.flatnonzero(counts)
    ]


def calibration_error(
    labels: npt.ArrayLike, logits: npt.ArrayLike, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error: mean distance of probability and share of dogs over the bins.

    Bins of equal width of the probability of dog (Naeini et al. 2015, for two classes), weighted
    by their photos. In [0, 1]; a perfect model scores above 0 on a small set, by chance.
    """
    filled = reliability(labels, logits, bins)
    return sum(b.n * abs(b.probability - b.dogs) for b in filled) / sum(b.n for b in filled)


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Temperature:
    """Temperature T that minimises the loss of ``logits / T`` (Guo et al. 2017).

    Fit it on validation, apply it to test. Where every photo is right the loss falls for ever as T
    goes to 0, which would make the model certain of everything: then T stays 1.
    """
    truth, scores = checked(labels, logits)
    before = float(cross_entropy(truth, scores).mean())
    if correct(truth, scores).all() or not np.any(scores):
        note = "no mistake on validation to fit a temperature from; left at 1"
        return Temperature(1.0, before, before, note)
    low, high = (math.log(bound) for bound in TEMPERATURE_RANGE)
    # The loss is convex in 1/T, so it has one valley in log T.
    found = optimize.minimize_scalar(
        lambda log_t: cross_entropy(truth, scores / math.exp(log_t)).mean(),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-8},
    )
    value = math.exp(found.x)
    stuck = min(found.x - low, high - found.x) < 1e-3
    note = "at the end of the range that was searched: not calibrated" if stuck else ""
    return Temperature(value, before, float(found.fun), note)


def evaluate(labels: npt.ArrayLike, logits: npt.ArrayLike, *, seed: int = 0) -> Evaluation:
    """All that is said of one model on one set of photos; ``seed`` is the bootstrap's.

    Raises:
        ValueError: as :func:`checked`.
    """
    truth, scores = checked(labels, logits)
    losses = cross_entropy(truth, scores)
    (cat_cat, cat_dog), (dog_cat, dog_dog) = confusion(truth, scores)
    f1, f1_cat = f1_score(dog_dog, cat_dog, dog_cat), f1_score(cat_cat, dog_cat, cat_dog)
    auc = roc_auc(truth, scores)
    dogs = int(truth.sum())
    return Evaluation(
        n=truth.size,
        accuracy=(cat_cat + dog_dog) / truth.size,
        accuracy_ci95=wilson(cat_cat + dog_dog, truth.size),
        loss=float(losses.mean()),
        loss_ci95=bootstrap_mean(losses, seed=seed),
        auc=auc,
        auc_ci95=None if auc is None else auc_interval(auc, dogs, truth.size - dogs),
        f1=f1,
        f1_cat=f1_cat,
        f1_macro=(f1 + f1_cat) / 2,
        ece=calibration_error(truth, scores),
        brier=float(((probabilities(scores) - truth) ** 2).mean()),
        confusion=((cat_cat, cat_dog), (dog_cat, dog_dog)),
    )


def compare(labels: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> Comparison:
    """Models with logits ``a`` and ``b`` on the same photos, all (n,)."""
    right_a, right_b = correct(labels, a), correct(labels, b)
    n = right_a.size
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return Comparison(
        n=n,
        only_a=only_a,
        only_b=only_b,
        difference=(only_a - only_b) / n,
        ci95=paired_difference(only_a, only_b, n),
        mcnemar_p=mcnemar(only_a, only_b),
    )
