"""The linear probe: a head fitted on frozen features.

Logistic regression is the head (one dense unit with a sigmoid) at its optimum: the problem is
convex, so no number of epochs of stochastic descent beats it, and scikit-learn finds it in about a
second. What is left to choose is the strength of the L2 penalty. Fine-tuning starts from this head:
Kumar et al., *Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution*,
ICLR 2022.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catdog.models.weights import pack
from catdog.runs.records import Epoch, Probe, ProbeTrial
from catdog.storage import Location
from catdog.training.inputs import class_weights
from catdog.training.pool import Runner
from catdog.training.progress import Rank
from catdog.transfer.features import FeatureSet
from catdog.transfer.search import Search
from catdog.transfer.trials import OnTrial, TrialStore

#: Values of scikit-learn's ``C`` (inverse strength of the penalty) that are tried, the strongest
#: first; validation loss chooses.
STRENGTHS = (1e-5, 6e-5, 4e-4, 2.5e-3, 1.6e-2, 0.1)

#: Features (n, width) float32 and labels (n,), 0 or 1.
Labelled = tuple[NDArray[np.float32], NDArray[Any]]
#: Kernel (width,) and bias (1,), both float32.
Head = tuple[NDArray[np.float32], NDArray[np.float32]]


def fit(pool: Runner, features: FeatureSet, output: Location, weighed: bool | None) -> Probe:
    """Fit the head for ``features`` on a worker, once.

    Writes ``probe.npz`` (kernel (features, 1), bias (1,)), ``zero.npz`` (the same shapes, for a
    head that starts from nothing) and ``probe.json`` below ``output`` and returns the last.

    Args:
        weighed: the setting ``fine_tune.class_weights``.
    """
    target = output / "probe.json"
    made_from = (features.root.name, weighed)
    if target.exists():
        known = Probe.fitted(target.read_json())[0]
        if known.trials and (known.features, known.class_weights) == made_from:
            return known
    probe, kernel, bias = pool.run([FitTask(features, weighed)])[0][0]
    (output / "probe.npz").write_bytes(pack([kernel[:, None], bias])[0])
    zeros = [np.zeros_like(kernel)[:, None], np.zeros_like(bias)]
    (output / "zero.npz").write_bytes(pack(zeros)[0])
    target.write_json(probe.as_json())
    return probe


def trial_store(folder: Location) -> TrialStore:
    """For a sweep of the head: one trial for each ``C``, ranked by what chooses the probe."""
    search = Search("grid", {"C": STRENGTHS}, {})
    return TrialStore(folder, search, len(STRENGTHS), ranked_by="val_loss")


def record(probe: Probe, store: TrialStore, on_trial: OnTrial) -> None:
    """Write what is missing of the records of a sweep of the head."""
    tried = dict(zip(store.ids, probe.trials, strict=True))
    for key in store.missing():
        point, row = tried[key].config, tried[key].row
        on_trial(store.close(key, point, [row], row.seconds, "finished"))


@dataclass(frozen=True)
class FitTask:
    """Rank 0 fits the head for every ``C``; it takes seconds.

    Returns:
        What becomes ``probe.json``, and the kernel and bias with the least validation loss.
    """

    features: FeatureSet
    weighed: bool | None = None

    def run(self, rank: Rank) -> tuple[Probe, *Head] | None:
        if not rank.is_chief:
            return None
        started = began = time.monotonic()
        train, val = (arrays(self.features, split) for split in ("train", "val"))
        trials, heads = [], []
        for strength, head in zip(STRENGTHS, heads_of(train, STRENGTHS, self.weighed), strict=True):
            row = _row(head, train, val, time.monotonic() - began)
            trials.append(ProbeTrial(config={"C": strength}, row=row))
            heads.append(head)
            began = time.monotonic()
        losses = [trial.row.val_loss for trial in trials]
        best = losses.index(min(losses))
        seconds = time.monotonic() - started
        probe = Probe(
            row=trials[best].row.model_copy(update={"seconds": seconds}),
            trials=trials,
            seconds=seconds,
            features=self.features.root.name,
            feature_seconds=self.features.manifest.get("seconds", 0.0),
            class_weights=self.weighed,
        )
        return probe, *heads[best]


def arrays(features: FeatureSet, split: str) -> Labelled:
    rows = features.rows(split)
    return rows.gather(np.arange(len(rows))).astype(np.float32), rows.labels


def heads_of(train: Labelled, strengths: Sequence[float], weighed: bool | None) -> Iterator[Head]:
    """The head for each of ``strengths``; standardisation is folded in: it takes features as they
    are.
    """
    from sklearn.linear_model import LogisticRegression

    x, y = train
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    scaled = (x - mean) / spread
    weights = class_weights(y, weighed)
    # Each starts from the one before, which is near.
    model = LogisticRegression(
        max_iter=2000, warm_start=True, class_weight=weights and dict(enumerate(weights))
    )
    for strength in strengths:
        model.set_params(C=strength).fit(scaled, y)
        kernel = (model.coef_[0] / spread).astype(np.float32)
        bias = model.intercept_[0] - mean @ (model.coef_[0] / spread)
        yield kernel, np.array([bias], np.float32)


def _row(head: Head, train: Labelled, val: Labelled, seconds: float) -> Epoch:
    """As of an epoch of training."""
    loss, accuracy = measured(head, train)
    val_loss, val_accuracy = measured(head, val)
    return Epoch(
        phase="probe",
        epoch=1,
        loss=loss,
        accuracy=accuracy,
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        seconds=seconds,
    )


def measured(head: Head, split: Labelled) -> tuple[float, float]:
    """(binary cross-entropy in nats, accuracy)"""
    (kernel, bias), (x, labels) = head, split
    logits = (x @ kernel + bias).astype(np.float64)
    loss = np.logaddexp(0, logits) - labels * logits
    return float(loss.mean()), float(((logits > 0) == (labels > 0)).mean())
