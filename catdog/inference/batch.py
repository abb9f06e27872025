"""Batch prediction of unlabelled photos with Ray Data actors that hold the model.

An actor reads, checks, decodes and predicts: pixels never travel, and while the model looks at one
batch, threads decode the next. Pixels come from the very function that prepares a run's photos, so
a photo of the run gets the answer that the run gave it: a label and a calibrated probability.
"""

from __future__ import annotations

import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from catdog.cluster.numerics import use_onednn
from catdog.data import sources
from catdog.data.decoding import Rejected, Workspace
from catdog.data.inspection import contents, judge_unlabelled
from catdog.data.labels import CLASSES
from catdog.data.sources import Listing
from catdog.data.unpacking import unpacked
from catdog.errors import UserError
from catdog.evaluation.metrics import probabilities
from catdog.inference.finished import FinishedModel
from catdog.models.saving import load_keras, logits_of
from catdog.storage import Location

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


BATCH = 64
#: Files of one block, whole batches: enough to hide its first decoding, few enough to share out.
_MOST = 8 * BATCH


@dataclass(frozen=True)
class Pool:
    """Actors to predict with: how many, with how many CPU cores each, on GPUs or not."""

    count: int
    cpus: int
    use_gpu: bool

    @classmethod
    def of_cluster(cls) -> Pool:
        """One actor for each GPU; without any one for each node, with all its cores."""
        from catdog.cluster.resources import Resources

        found = Resources.at_most()
        use_gpu = found.gpus > 0
        count = found.places(use_gpu)
        return cls(count, found.cpus_each(count, use_gpu), use_gpu)


def list_photos(data: str) -> Listing:
    """The files at a path or URI: a folder, archive, table, bucket or single photo.

    Raises:
        UserError: there is no such place, or it holds no files.
    """
    listing = sources.list_source(data, labelled=False)
    if not len(listing.files):
        raise UserError(f"--data: {listing.source} holds no files")
    return listing


def predict_files(
    listing: Listing,
    model: FinishedModel,
    pool: Pool,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """A row of :data:`catdog.inference.batch.COLUMNS` for every file, sorted by path.

    Ray must be initialised. Raises what unpacking an archive raises.
    """
    import ray.data

    with _scratch(model) as scratch:
        listing = unpacked(listing, scratch)
        blocks = list(_blocks(listing.files, pool))
        predicted = ray.data.from_arrow(blocks).map_batches(
            Predictor,
            fn_constructor_args=(model, listing.bases, pool.cpus),
            batch_size=None,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=min(pool.count, len(blocks))),
            num_cpus=pool.cpus,
            num_gpus=1 if pool.use_gpu else 0,
        )
        done, tables = 0, []
        for table in predicted.iter_batches(batch_size=None, batch_format="pandas"):
            tables.append(table)
            done += len(table)
            on_progress(done, len(listing.files))
    found = pd.concat(tables, ignore_index=True)
    return found.sort_values("index").drop(columns="index").reset_index(drop=True)


def predict_here(listing: Listing, model: FinishedModel) -> pd.DataFrame:
    """As :func:`predict_files`, in this process and without Ray: quicker for a few files."""
    with tempfile.TemporaryDirectory() as folder:
        listing = unpacked(listing, lambda: Location.of(folder))
        table = next(_blocks(listing.files, Pool(1, 1, False), len(listing.files)))
        found = Predictor(model, listing.bases, None)(table).to_pandas()
    return found.drop(columns="index")


@contextmanager
def _scratch(model: FinishedModel) -> Iterator[Callable[[], Location]]:
    """Where an archive is unpacked: this machine's disk, or, for several nodes, beside the run."""
    import ray

    if len(ray.nodes()) == 1:
        with tempfile.TemporaryDirectory(prefix="catdog-predict-") as folder:
            yield lambda: Location.of(folder)
        return
    place = model.folder / f".predict-{uuid.uuid4().hex[:8]}"
    try:
        yield lambda: place
    finally:
        place.delete_tree()


def _blocks(files: pa.Table, pool: Pool, rows: int | None = None) -> Iterator[pa.Table]:
    """The listing in pieces, numbered; several for each actor, so that a slow one costs little."""
    rows = rows or min(_MOST, BATCH * -(-len(files) // (4 * pool.count * BATCH)))
    numbered = files.append_column("index", pa.array(np.arange(len(files))))
    for start in range(0, len(files), rows):
        yield numbered.slice(start, rows).combine_chunks()


class Predictor:
    """Holds the model in a Ray Data actor; a block of listed files → their answers."""

    def __init__(
        self, model: FinishedModel, bases: Sequence[Location], threads: int | None
    ) -> None:
        use_onednn()
        import tensorflow as tf

        if threads is not None:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        cv2.setNumThreads(1)  # decoding shares the cores by photos
        loaded = load_keras(model.file)
        self.size = int(loaded.input_shape[1])
        self.forward = logits_of(loaded)
        self.forward(np.zeros((1, self.size, self.size, 3), np.uint8))  # traced
        self.temperature, self.bases, self.threads = model.temperature, bases, threads or 1

    def __call__(self, block: pa.Table) -> pa.Table:
        rejected: list[Rejected | None] = []
        logits = [np.zeros(0, np.float32)]
        for batch in decoded(block, self.bases, self.size, self.threads):
            rejected += batch.rejected
            if len(batch.pixels):
                logits.append(self.forward(batch.pixels).numpy())
        uris = block.column("uri").to_pylist()
        table = answers(uris, rejected, np.concatenate(logits), self.temperature)
        table["index"] = block.column("index").to_numpy()
        return pa.Table.from_pandas(table, schema=_SCHEMA, preserve_index=False)


_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("label", pa.string()),
        ("probability", pa.float64()),
        ("probability_dog", pa.float64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("index", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Batch:
    """``pixels``: uint8 (photos, size, size, 3); ``rejected``: of every file, None for photos."""

    pixels: NDArray[np.uint8]
    rejected: list[Rejected | None]


def decoded(block: pa.Table, bases: Sequence[Location], size: int, threads: int) -> Iterator[Batch]:
    """The files of a block in batches, each decoded while the one before it is used."""
    entries = contents(block, bases)
    workspaces = threading.local()

    def judge(entry: dict[str, Any], data: bytes | Rejected, slot: Any) -> Rejected | None:
        if isinstance(data, Rejected):
            return data
        if not hasattr(workspaces, "own"):
            workspaces.own = Workspace()
        verdict = judge_unlabelled(entry, data, size, workspaces.own, slot)
        return verdict if isinstance(verdict, Rejected) else None

    def next_batch() -> Batch | None:
        files = list(islice(entries, BATCH))
        if not files:
            return None
        pixels = np.empty((len(files), size, size, 3), np.uint8)
        jobs = [
            decoders.submit(judge, *file, slot) for file, slot in zip(files, pixels, strict=True)
        ]
        rejected = [job.result() for job in jobs]
        good = [verdict is None for verdict in rejected]
        return Batch(pixels if all(good) else pixels[good], rejected)

    with ThreadPoolExecutor(threads) as decoders, ThreadPoolExecutor(1) as ahead:
        waiting = ahead.submit(next_batch)
        while (batch := waiting.result()) is not None:
            waiting = ahead.submit(next_batch)
            yield batch
