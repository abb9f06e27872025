"""Logits and verdicts → what a person reads: a label and a calibrated probability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catdog.data.decoding import Rejected
from catdog.data.labels import CLASSES
from catdog.evaluation.metrics import probabilities

#: ``probability`` is that of ``label``; ``probability_dog`` is what to set a threshold on. A file
#: that is no photo has a ``reason`` (those of the data stage) and none of the three.
COLUMNS = ("uri", "label", "probability", "probability_dog", "reason", "detail")


def answer(logit: float, temperature: float) -> dict[str, Any]:
    """Label and calibrated probabilities of one photo."""
    dog = float(probabilities(logit / temperature))
    # By the logit: the label is the one that the report counts, also at a half.
    label = CLASSES[int(logit > 0)]
    probability = dog if logit > 0 else 1 - dog
    return {"label": label, "probability": probability, "probability_dog": dog}


def answers(
    uris: Sequence[str],
    rejected: Sequence[Rejected | None],
    logits: NDArray[Any],
    temperature: float,
) -> pd.DataFrame:
    """A row of :data:`COLUMNS` for each file, in order.

    Args:
        uris: of all files.
        rejected: why a file is no photo, ``None`` where it is one; as long as ``uris``.
        logits: of the photos alone, in their order.
        temperature: as :func:`answer`.
    """
    remaining = iter(np.asarray(logits, np.float64).tolist())
    rows = []
    for uri, bad in zip(uris, rejected, strict=True):
        found = answer(next(remaining), temperature) if bad is None else _no_answer(bad)
        rows.append({"uri": uri, "reason": None, "detail": None} | found)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _no_answer(bad: Rejected) -> dict[str, Any]:
    return {"label": None, "reason": bad.reason, "detail": bad.detail}
