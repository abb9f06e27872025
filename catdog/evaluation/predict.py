"""Predictions of finished models on validation and test, every row exactly once.

The workers that trained a model predict with it, each its share of the photos, which are read by
row from the prepared set. ``predictions.parquet`` is the only input of every metric and picture.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from catdog.config import ModelName
from catdog.data.prepare import PreparedSet
from catdog.evaluation.gradcam import explained_mistakes, most_confident
from catdog.models.saving import load_keras, logits_of
from catdog.runs import RunDirectory, TrainingId
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
                what = f"predictions of {self.training}"
                done = {"done": count, "total": len(mine)}
                rank.tell({"kind": "progress", "what": what, **done})
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
