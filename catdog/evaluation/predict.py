"""Predictions of finished models on validation and test, every row exactly once.

The workers that trained a model predict with it, each its share of the photos, which are read by
row from the prepared set. ``predictions.parquet`` is the only input of every metric and picture:
beside it lie small pictures of the test photos that matter, mistakes and what models are unsure of.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catdog.config import ModelName
from catdog.data.prepare import PreparedSet
from catdog.evaluation.gradcam import explained_mistakes, most_confident
from catdog.models.saving import load_keras, logits_of
from catdog.runs import RunDirectory, TrainingId
from catdog.runs.messages import PhotosDone
from catdog.storage import Location
from catdog.training.inputs import Chunk, Split, chunks_of, open_dataset
from catdog.training.pool import Runner
from catdog.training.progress import Rank

EVALUATED: tuple[Split, ...] = ("val", "test")
BATCH = 64


def predict(pool: Runner, dataset: PreparedSet, run: RunDirectory, training: TrainingId) -> float:
    """Write ``predictions.parquet`` of a trained model: uri, split, label, logit, logit_tta.

    ``logit_tta`` is the mean of the logits of a photo and its mirror image. Beside it
    ``artifacts/gradcam.parquet``: what the most confident mistakes on test rest on.

    Returns:
        Photos per second of one forward pass, over all workers.
    """
    folder = run.training(training)
    chunks = tuple(chunks_of(dataset, EVALUATED))
    task = PredictTask(dataset.root.uri, (folder / "model.keras").uri, training, chunks)
    parts = [part for rank in pool.run([task])[0] for part in rank]
    table = pd.concat([part.table for part in parts], ignore_index=True)
    table = table.sort_values(["split", "row"])
    kept = most_confident([part.mistakes for part in parts]).drop(columns="certainty")
    (folder / "artifacts" / "gradcam.parquet").write_bytes(kept.to_parquet(index=False))
    columns = ["uri", "split", "label", "logit", "logit_tta"]
    content = table[columns].reset_index(drop=True).to_parquet(index=False)
    (folder / "predictions.parquet").write_bytes(content)
    # All workers compute at once; their rate is the sum.
    speeds = [part.images_per_second for part in parts]
    return float(np.median(speeds)) * min(pool.workers.count, len(chunks))


class Part(NamedTuple):
    """What a chunk of photos came to: predictions, and mistakes with their pictures."""

    table: pd.DataFrame
    mistakes: pd.DataFrame
    images_per_second: float


@dataclass(frozen=True)
class PredictTask:
    """Each rank predicts its share of ``chunks`` with the model in ``file``."""

    dataset: str
    file: str
    training: TrainingId
    chunks: tuple[Chunk, ...]

    def run(self, rank: Rank) -> list[Part]:
        import keras

        keras.backend.clear_session()
        mine = self.chunks[rank.rank :: rank.world_size]
        if not mine:
            return []
        predictor = Predictor(self.dataset, self.file, self.training.model)
        parts = []
        for count, chunk in enumerate(mine, start=1):
            parts.append(predictor(chunk))
            if rank.is_chief:
                rank.tell(PhotosDone(f"predictions of {self.training}", count, len(mine)))
        return parts


class Predictor:
    """Holds a model."""

    def __init__(self, dataset: str, file: str, name: ModelName) -> None:
        self.dataset, self.name = open_dataset(dataset), name
        self.model = load_keras(Location.of(file))
        self.forward = logits_of(self.model)

    def __call__(self, chunk: Chunk) -> Part:
        split = chunk["split"]
        rows = self.dataset.rows(split)
        indices = np.arange(chunk["start"], chunk["stop"])
        batches = [rows.gather(indices[at : at + BATCH]) for at in range(0, len(indices), BATCH)]
        self.forward(batches[0][:2])  # traced before it is timed
        started = time.monotonic()
        logits = np.concatenate([self.forward(pixels).numpy() for pixels in batches])
        seconds = time.monotonic() - started
        mirrored = np.concatenate([self.forward(pixels[:, :, ::-1]).numpy() for pixels in batches])
        uris = [rows.uris[index] for index in indices]
        labels = rows.labels[indices]
        frame = pd.DataFrame(
            {
                "row": indices,
                "uri": uris,
                "split": split,
                "label": labels,
                "logit": logits.astype(np.float32),
                "logit_tta": ((logits + mirrored) / 2).astype(np.float32),
            }
        )
        # Explained here, where model and pixels are at hand; of validation photos none.
        shown = len(indices) if split == "test" else 0
        mistakes = explained_mistakes(
            self.model,
            self.name,
            uris[:shown],
            labels[:shown],
            np.concatenate(batches),
            frame["logit"].to_numpy()[:shown],
        )
        return Part(frame, mistakes, len(indices) / seconds)


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
