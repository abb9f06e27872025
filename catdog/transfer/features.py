"""The frozen part of a backbone, computed once.

Activations at one or more layers ("boundaries") are written beside the prepared set under their
own fingerprint: photos, architecture, weights, precision, layer. The workers that train
compute them, each its share of the photos; every chunk of photos becomes one shard, so an
interrupted extraction goes on where it was and a second run computes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catdog.cluster.numerics import use_onednn
from catdog.config import digest
from catdog.data.graph import full_disk_told
from catdog.data.prepare import PreparedSet
from catdog.data.shards import Rows, open_rows, write_shard
from catdog.errors import UserError
from catdog.models.registry import Architecture
from catdog.runs.messages import PhotosDone
from catdog.storage import Location
from catdog.training.inputs import Chunk, Split, chunks_of, open_dataset, photos_in
from catdog.training.pool import Runner
from catdog.training.progress import Rank

#: What training and sweeps look at; test photos go through the whole network.
SPLITS: tuple[Split, ...] = ("train", "val")
#: Photos a forward pass.
BATCH = 64


@dataclass(frozen=True)
class FeatureRequest:
    """What to compute.

    Attributes:
        backbone: URI of the backbone's weights.
        weights_hash: what tells one set of weights from another.
    """

    architecture: Architecture
    backbone: str
    weights_hash: str
    precision: str

    def fingerprint(self, dataset: PreparedSet, boundary: str) -> str:
        architecture = asdict(self.architecture) | {"dropout": None}
        weights = [self.weights_hash, self.precision]
        return digest([dataset.identity, architecture, *weights, boundary])


@dataclass(frozen=True)
class FeatureSet:
    """Kept activations; rows are in the order of the prepared set's rows."""

    root: Location
    manifest: dict[str, Any]

    def rows(self, split: str) -> Rows:
        return open_rows([self.root / split / name for name in self.manifest["files"][split]])


def extract(
    pool: Runner,
    dataset: PreparedSet,
    request: FeatureRequest,
    boundaries: Sequence[str],
    storage: Location,
) -> dict[str, FeatureSet]:
    """Activations of the training and validation photos at every boundary, in one pass over them;
    what is there is not computed.
    """
    targets = {
        boundary: storage / "features" / request.fingerprint(dataset, boundary)
        for boundary in boundaries
    }
    missing = {b: t for b, t in targets.items() if not (t / "manifest.json").exists()}
    if missing:
        _compute(pool, dataset, request, missing, storage)
    return {b: FeatureSet(t, (t / "manifest.json").read_json()) for b, t in targets.items()}


def _compute(
    pool: Runner,
    dataset: PreparedSet,
    request: FeatureRequest,
    targets: dict[str, Location],
    storage: Location,
) -> None:
    started = time.monotonic()
    chunks = chunks_of(dataset, SPLITS)
    waiting = [
        chunk
        for chunk in chunks
        if not all(_shard(target, chunk).exists() for target in targets.values())
    ]
    if waiting:
        uris = {boundary: target.uri for boundary, target in targets.items()}
        task = ExtractTask(
            dataset.root.uri,
            request,
            uris,
            tuple(waiting),
            storage.uri,
            pool.workers.cpus,
            done=photos_in(chunks) - photos_in(waiting),
        )
        pool.run([task])
    files = {
        split: [_shard(dataset.root, chunk).name for chunk in chunks if chunk["split"] == split]
        for split in SPLITS
    }
    for boundary, target in targets.items():
        seconds = time.monotonic() - started
        manifest = {"boundary": boundary, "seconds": seconds, "files": files}
        (target / "manifest.json").write_json(manifest)


@dataclass(frozen=True)
class ExtractTask:
    """Each rank writes the shards of its share of ``chunks``.

    Attributes:
        targets: URI of the folder of each boundary.
        done: photos that an earlier session has done.
    """

    dataset: str
    request: FeatureRequest
    targets: dict[str, str]
    chunks: tuple[Chunk, ...]
    storage: str
    threads: int
    done: int

    def run(self, rank: Rank) -> None:
        mine = self.chunks[rank.rank :: rank.world_size]
        if not mine:
            return
        storage, name = Location.of(self.storage), self.request.architecture.name
        extractor = Extractor(self.dataset, self.request, self.targets, self.threads)
        left, done = photos_in(mine), 0
        share = photos_in(self.chunks) / left
        for chunk in mine:
            with full_disk_told(storage):
                row = extractor(chunk)
            done += row["photos"]
            check_room(storage, left - done, row["bytes"] / row["photos"])
            if rank.is_chief:
                total = self.done + photos_in(self.chunks)
                reached = min(total, self.done + round(done * share))
                rank.tell(PhotosDone(f"features of {name}", reached, total))


def check_room(storage: Location, photos: int, bytes_each: float) -> None:
    """Whether the activations of so many more photos fit, by what those before them took.

    Raises:
        UserError: they do not; what is kept already serves the next run.
    """
    free, needed = storage.free_bytes(), photos * bytes_each
    if free is not None and needed > free:
        raise UserError(
            f"not enough disk under {storage}: the activations of {photos} more photos need "
            f"{needed / 2**30:.2f} GiB and {free / 2**30:.2f} GiB are free; give another "
            "--storage, delete old folders of features/, or let every training augment its pixels, "
            "of which nothing is kept: some fine_tune.augmentation, and no 0 in "
            "sweep.augmentation_strength"
        )


def _shard(target: Location, chunk: Chunk) -> Location:
    return target / chunk["split"] / f"{chunk['start']:08d}.arrow"


class Extractor:
    """Holds the frozen part of a backbone and turns chunks of photos into shards."""

    def __init__(
        self, dataset: str, request: FeatureRequest, targets: dict[str, str], threads: int
    ) -> None:
        use_onednn()
        import tensorflow as tf

        # Batches side by side, as a small convolution does not share cores well.
        self.streams = ThreadPoolExecutor(min(threads, 4))
        import keras

        from catdog.models import registry
        from catdog.models.weights import load_backbone

        keras.backend.clear_session()
        keras.config.set_dtype_policy(request.precision)
        self.dataset = open_dataset(dataset)
        self.request = request
        self.targets = {boundary: Location(uri) for boundary, uri in targets.items()}
        model = registry.build(request.architecture)
        load_backbone(model, request.backbone)
        outputs = [registry.find_layer(model, boundary).output for boundary in targets]
        trunk = keras.Model(model.input, outputs)
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
        self.plain = tf.function(
            lambda pixels: trunk(pixels, training=False),
            input_signature=signature,
            autograph=False,
        )

    def __call__(self, chunk: Chunk) -> dict[str, Any]:
        rows = self.dataset.rows(chunk["split"])
        indices = np.arange(chunk["start"], chunk["stop"])
        size = 0
        for boundary, output in self._forward(rows, indices).items():
            size += write_shard(
                _shard(self.targets[boundary], chunk),
                output,
                labels=rows.labels[indices],
                uris=[rows.uris[index] for index in indices],
            )["bytes"]
        return {"photos": len(indices), "bytes": size}

    def _forward(self, rows: Rows, indices: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Activations of the photos at ``indices`` by boundary: (photos, *shape) each."""
        batches = [indices[at : at + BATCH] for at in range(0, len(indices), BATCH)]
        outputs = list(self.streams.map(lambda at: self._activations(rows.gather(at)), batches))
        parts = zip(*outputs, strict=True)
        return {name: np.concatenate(each) for name, each in zip(self.targets, parts, strict=True)}

    def _activations(self, pixels: NDArray[np.uint8]) -> list[NDArray[Any]]:
        outputs = self.plain(pixels)
        outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return [output.numpy() for output in outputs]
