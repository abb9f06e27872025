"""Predictions of finished models on validation and test, every row exactly once.

Ray Data drives a pool of actors that hold all models; the pictures are read by row from the
prepared set. ``predictions.parquet`` is the only input of every metric and picture.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pandas as pd

from catdog.config import ModelName
from catdog.data.prepare import PreparedSet
from catdog.evaluation.finished import logits_of
from catdog.evaluation.gradcam import explained_mistakes, most_confident
from catdog.models.export import load_keras
from catdog.runs import RunDirectory
from catdog.storage import Location
from catdog.training.inputs import Chunk, chunks_of, open_dataset, photos_in
from catdog.training.workers import Workers

CHUNK = 256
#: Photos, times models, that an actor of its own is worth: TensorFlow takes some 5 to 10 s in it.
WORTH_AN_ACTOR = 256
BATCH = 64


def predict(
    dataset: PreparedSet,
    run: RunDirectory,
    models: Sequence[str],
    workers: Workers,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, float]:
    """Write ``predictions.parquet`` of ``models``: uri, split, label, logit, logit_tta.

    ``logit_tta`` is the mean of the logits of a photo and its mirror image. Beside it
    ``artifacts/gradcam.parquet``: what the most confident mistakes on test rest on.

    Returns:
        Photos per second of one forward pass, by model.
    """
    import ray.data

    chunks = chunks_of(dataset, ("val", "test"), CHUNK)
    total = photos_in(chunks) * len(models)
    actors = min(workers.count, len(chunks), -(-total // WORTH_AN_ACTOR))
    uris = {name: (run.model(name) / "model.keras").uri for name in models}
    predicted = ray.data.from_items(chunks, override_num_blocks=len(chunks)).flat_map(
        Predictor,
        fn_constructor_args=(dataset.root.uri, uris, workers.precision, workers.cpus),
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=workers.cpus,
        num_gpus=1 if workers.use_gpu else 0,
    )
    done, frames = 0, []
    mistakes: dict[str, list[pd.DataFrame]] = {name: [] for name in models}
    for row in predicted.iter_rows():
        frames.append(pd.read_parquet(io.BytesIO(row["table"])))
        mistakes[row["model"]].append(pd.read_parquet(io.BytesIO(row["mistakes"])))
        done += len(frames[-1])
        on_progress(done, total)
    table = pd.concat(frames, ignore_index=True).sort_values(["model", "split", "row"])
    for model, parts in mistakes.items():
        kept = most_confident(parts).drop(columns="certainty").to_parquet(index=False)
        (run.model(model) / "artifacts" / "gradcam.parquet").write_bytes(kept)
    speeds = {}
    for name, rows in table.groupby("model"):
        columns = ["uri", "split", "label", "logit", "logit_tta"]
        content = rows[columns].reset_index(drop=True).to_parquet(index=False)
        (run.model(str(name)) / "predictions.parquet").write_bytes(content)
        # Several actors work at once; the pool's rate is the sum of theirs.
        speeds[str(name)] = float(rows["images_per_second"].median()) * actors
    return speeds


class Predictor:
    """Holds the models in a Ray Data actor."""

    def __init__(self, dataset: str, models: dict[str, str], precision: str, threads: int) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.dataset = open_dataset(dataset)
        self.models = {name: load_keras(Location.of(uri)) for name, uri in models.items()}
        self.forward = {name: logits_of(model) for name, model in self.models.items()}

    def __call__(self, chunk: Chunk) -> list[dict[str, Any]]:
        split = chunk["split"]
        rows = self.dataset.rows(split)
        indices = np.arange(chunk["start"], chunk["stop"])
        batches = [rows.gather(indices[at : at + BATCH]) for at in range(0, len(indices), BATCH)]
        tables = []
        for name, forward in self.forward.items():
            forward(batches[0][:1])  # traced before it is timed
            started = time.monotonic()
            logits = np.concatenate([forward(pixels).numpy() for pixels in batches])
            seconds = time.monotonic() - started
            mirrored = np.concatenate([forward(pixels[:, :, ::-1]).numpy() for pixels in batches])
            frame = pd.DataFrame(
                {
                    "model": name,
                    "row": indices,
                    "uri": [rows.uris[index] for index in indices],
                    "split": split,
                    "label": rows.labels[indices],
                    "logit": logits.astype(np.float32),
                    "logit_tta": ((logits + mirrored) / 2).astype(np.float32),
                    "images_per_second": len(indices) / seconds,
                }
            )
            mistakes = self._mistakes(name, frame, batches)
            tables.append(
                {
                    "model": name,
                    "table": frame.to_parquet(index=False),
                    "mistakes": mistakes.to_parquet(index=False),
                }
            )
        return tables

    def _mistakes(self, name: str, frame: pd.DataFrame, batches: list[Any]) -> pd.DataFrame:
        """Explained here, where model and pixels are at hand; of validation photos none."""
        rows = frame if frame["split"].iloc[0] == "test" else frame.head(0)
        return explained_mistakes(
            self.models[name],
            cast(ModelName, name),
            rows["uri"].tolist(),
            rows["label"].to_numpy(),
            np.concatenate(batches),
            rows["logit"].to_numpy(),
        )
