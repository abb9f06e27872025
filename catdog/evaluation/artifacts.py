"""Small pictures of the test photos that matter: mistakes, and what the models are unsure of."""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd

from catdog.data.prepare import PreparedSet
from catdog.runs import RunDirectory

#: Pictures kept for each model and kind.
PER_KIND = 24
SIDE = 128


def keep_test_thumbnails(dataset: PreparedSet, run: RunDirectory, models: Sequence[str]) -> None:
    """Write ``artifacts/thumbnails.parquet`` (uri, thumbnail: JPEG bytes) from prepared pixels."""
    rows = dataset.rows("test")
    wanted: set[int] = set()
    for name in models:
        content = (run.model(name) / "predictions.parquet").read_bytes()
        table = pd.read_parquet(io.BytesIO(content)).query("split == 'test'")
        logit, label = table["logit"].to_numpy(), table["label"].to_numpy()
        wrong = np.flatnonzero((logit > 0) != (label > 0))
        wanted.update(wrong[np.argsort(-np.abs(logit[wrong]))][:PER_KIND].tolist())
        wanted.update(np.argsort(np.abs(logit))[:PER_KIND].tolist())
    indices = sorted(wanted)
    pixels = rows.gather(np.array(indices, dtype=np.int64))
    table = pd.DataFrame(
        {
            "uri": [rows.uris[index] for index in indices],
            "thumbnail": [_jpeg(picture) for picture in pixels],
        }
    )
    (run.root / "artifacts" / "thumbnails.parquet").write_bytes(table.to_parquet(index=False))


def _jpeg(pixels: np.ndarray) -> bytes:
    side = min(SIDE, pixels.shape[0])
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    return encoded.tobytes()
