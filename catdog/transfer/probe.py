"""The linear probe: a head fitted on frozen features.

Logistic regression is the head (one dense unit with a sigmoid) at its optimum, which no number of
epochs of stochastic descent beats; scikit-learn finds it in about a second. Fine-tuning starts
from it: Kumar et al., *Fine-Tuning can Distort Pretrained Features and Underperform
Out-of-Distribution*, ICLR 2022.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catdog.models.weights import pack
from catdog.storage import Location
from catdog.training.pool import Runner
from catdog.training.progress import Rank
from catdog.transfer.features import FeatureSet

#: Inverse strengths of the L2 penalty that are tried; validation loss chooses.
STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 1.0)


def fit(pool: Runner, features: FeatureSet, output: Location) -> dict[str, Any]:
    """Fit the head for ``features`` on a worker, once.

    Writes ``probe.npz`` (kernel (features, 1), bias (1,)), ``zero.npz`` (the same shapes, for a
    head that starts from nothing) and ``probe.json`` below ``output`` and returns the last: ``row``
    for the history, ``test`` sums and seconds.
    """
    target = output / "probe.json"
    if target.exists():
        known: dict[str, Any] = target.read_json()
        if known["features"] == features.root.name:
            return known
    facts, kernel, bias = pool.run([FitTask(features)])[0][0]
    (output / "probe.npz").write_bytes(pack([kernel, bias])[0])
    (output / "zero.npz").write_bytes(pack([np.zeros_like(kernel), np.zeros_like(bias)])[0])
    facts |= {
        "features": features.root.name,
        "feature_seconds": features.manifest.get("seconds", 0.0),
    }
    target.write_json(facts)
    result: dict[str, Any] = facts
    return result


@dataclass(frozen=True)
class FitTask:
    """Rank 0 fits the head; it takes seconds."""

    features: FeatureSet

    def run(self, rank: Rank) -> Any:
        return _fit(self.features) if rank.is_chief else None


def _fit(features: FeatureSet) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any]]:
    started = time.monotonic()
    (x, y), (x_val, y_val), (x_test, y_test) = (
        _arrays(features, s) for s in ("train", "val", "test")
    )
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    best: tuple[float, NDArray[Any], NDArray[Any], float] | None = None
    for strength in STRENGTHS:
        weights, offset = _logistic((x - mean) / spread, y, strength)
        # The standardisation is folded into the head: it takes features as they are.
        kernel = (weights / spread).astype(np.float32)
        bias = np.float32(offset - float(mean @ (weights / spread)))
        loss, _ = _measure(x_val @ kernel + bias, y_val)
        if best is None or loss < best[0]:
            best = (loss, kernel, np.array([bias], np.float32), strength)
    assert best is not None
    _, kernel, bias_array, strength = best
    loss, accuracy = _measure(x @ kernel + bias_array, y)
    val_loss, val_accuracy = _measure(x_val @ kernel + bias_array, y_val)
    test_loss, test_accuracy = _measure(x_test @ kernel + bias_array, y_test)
    seconds = time.monotonic() - started
    facts = {
        "row": {
            "phase": "probe",
            "epoch": 1,
            "loss": loss,
            "accuracy": accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "seconds": seconds,
            "images_per_second": None,
            "learning_rate": None,
        },
        "inverse_penalty": strength,
        "test": {"n": len(y_test), "accuracy": test_accuracy, "loss": test_loss},
        "seconds": seconds,
    }
    return facts, kernel[:, None], bias_array


def _arrays(features: FeatureSet, split: str) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    rows = features.rows(split)
    return rows.gather(np.arange(len(rows))).astype(np.float32), rows.labels


def _logistic(x: NDArray[Any], y: NDArray[Any], strength: float) -> tuple[NDArray[Any], float]:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=2000)
    model.fit(x, y)
    return model.coef_[0], float(model.intercept_[0])


def _measure(logits: NDArray[Any], labels: NDArray[Any]) -> tuple[float, float]:
    """(binary cross-entropy in nats, accuracy)"""
    logits = logits.astype(np.float64)
    loss = np.logaddexp(0, logits) - labels * logits
    return float(loss.mean()), float(((logits > 0) == (labels > 0)).mean())
