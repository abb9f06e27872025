"""Align several models' predictions on the same photos, and average them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from catdog.evaluation import metrics
from catdog.evaluation.metrics import Array
from catdog.report.load import Predictions


def aligned(all_predictions: Sequence[Predictions]) -> tuple[Array, list[Array]] | None:
    """Labels and each model's logits on the photos that all have judged; ``None``: there are none.

    A photo whose label differs between two runs is left out, for it was not the same question.
    """
    rows = shared_photos(all_predictions)
    if rows is None:
        return None
    picked = [
        (p.labels[index], p.logits[index]) for p, index in zip(all_predictions, rows, strict=True)
    ]
    return picked[0][0], [logits for _, logits in picked]


def shared_photos(all_predictions: Sequence[Predictions]) -> list[npt.NDArray[np.intp]] | None:
    """For each model the rows of the photos that all have judged, in one order of photos."""
    tables = [dict(zip(p.uris, p.labels, strict=True)) for p in all_predictions]
    first, *others = tables
    common = [
        uri for uri, label in first.items() if all(other.get(uri) == label for other in others)
    ]
    if not common:
        return None
    places = [{uri: i for i, uri in enumerate(p.uris)} for p in all_predictions]
    return [np.array([place[uri] for uri in common]) for place in places]


def averaged(logits: Sequence[Array]) -> Array:
    """Logit of the mean probability of several models, all (n,)."""
    mean = np.mean([metrics.probabilities(each) for each in logits], axis=0)
    # 1e-12 keeps a photo on which all are certain finite; it changes no decision.
    mean = np.clip(mean, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(mean) - np.log1p(-mean))
