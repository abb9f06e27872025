"""Small pictures of the test photos that matter: mistakes, and what the models are unsure of."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catdog.data.prepare import PreparedSet
from catdog.runs import RunDirectory

#: Pictures kept for each model and kind.
PER_KIND = 24
SIDE = 128


def keep_test_thumbnails(dataset: PreparedSet, run: RunDirectory, models: Sequence[str]) -> None:
    """Write ``artifacts/thumbnails.parquet`` (uri, thumbnail: JPEG bytes) from prepared pixels.

    Of those of ``models`` that have predictions.
    """
    rows = dataset.rows("test")
    predicted = [name for name in models if (run.model(name) / "predictions.parquet").exists()]
    logits = np.stack([_test_logits(run, name) for name in predicted])
    labels = rows.labels > 0
    wanted: set[int] = set()
    for logit in logits:
        wrong = np.flatnonzero((logit > 0) != labels)
        wanted.update(wrong[np.argsort(-np.abs(logit[wrong]))][:PER_KIND].tolist())
        wanted.update(np.argsort(np.abs(logit))[:PER_KIND].tolist())
    mean = (1 / (1 + np.exp(-logits))).mean(axis=0)
    wanted.update(np.argsort(np.abs(mean - 0.5))[:PER_KIND].tolist())
    wanted.update(np.flatnonzero(((logits > 0) != labels).all(axis=0))[:PER_KIND].tolist())
    indices = sorted(wanted)
    pixels = rows.gather(np.array(indices, dtype=np.int64))
    table = pd.DataFrame(
        {
            "uri": [rows.uris[index] for index in indices],
            "thumbnail": [_jpeg(picture) for picture in pixels],
        }
    )
    (run.root / "artifacts" / "thumbnails.parquet").write_bytes(table.to_parquet(index=False))


def _test_logits(run: RunDirectory, name: str) -> NDArray[np.float64]:
    """In the order of the prepared set's test rows."""
    content = (run.model(name) / "predictions.parquet").read_bytes()
    table = pd.read_parquet(io.BytesIO(content)).query("split == 'test'")
    return table["logit"].to_numpy(np.float64)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    side = min(SIDE, pixels.shape[0])
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    return encoded.tobytes()
