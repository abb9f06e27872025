"""The frozen part of a backbone, computed once.

Activations at one or more layers ("boundaries") are written beside the prepared set under their
own fingerprint: photos, architecture, weights, precision, layer, views. Ray Data drives a pool of
model-holding actors; every chunk of photos becomes one shard, so an interrupted extraction goes on
where it was and a second run computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from catdog.config import AugmentationSettings, digest
from catdog.data.prepare import PreparedSet
from catdog.data.shards import Rows, open_rows, write_shard
from catdog.models.registry import POOLED, Architecture
from catdog.storage import Location
from catdog.training.inputs import open_dataset
from catdog.training.trainer import Workers

SPLITS = ("train", "val", "test")
#: Photos a shard: large enough that a pool keeps busy, small enough that little is lost.
CHUNK = 256
#: Photos a forward pass.
BATCH = 64


@dataclass(frozen=True)
class FeatureRequest:
    """What to compute.

    Attributes:
        backbone: URI of the backbone's weights.
        weights_hash: what tells one set of weights from another.
        views: rows kept per training photo; the first is the photo itself, the others are
            augmented. Validation and test photos always have one.
    """

    architecture: Architecture
    backbone: str
    weights_hash: str
    precision: str
    views: int = 1
    augmentation: AugmentationSettings | None = None
    seed: int = 0

    def fingerprint(self, dataset: PreparedSet, boundary: str) -> str:
        # Pooled features feed heads only and are always of the plain photos.
        architecture = asdict(self.architecture) | {"dropout": None}
        facts = [dataset.manifest["fingerprint"], architecture, self.weights_hash, self.precision]
        augmented = (
            self.augmentation.model_dump(mode="json") if self.views_at(boundary) > 1 else None
        )
        return digest(
            [*facts, boundary, self.views_at(boundary), augmented, self.seed if augmented else 0]
        )

    def views_at(self, boundary: str) -> int:
        return 1 if boundary == POOLED else self.views


@dataclass(frozen=True)
class FeatureSet:
    """Kept activations; rows are in the order of the prepared set's rows, views side by side."""

    root: Location
    manifest: dict[str, Any]

    def rows(self, split: str) -> Rows:
        return open_rows([self.root / split / name for name in self.manifest["files"][split]])


def extract(
    dataset: PreparedSet,
    request: FeatureRequest,
    boundaries: Sequence[str],
    storage: Location,
    workers: Workers,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, FeatureSet]:
    """Activations at every boundary in one pass over the photos; what is there is not computed."""
    targets = {
        boundary: storage / "features" / request.fingerprint(dataset, boundary)
        for boundary in boundaries
    }
    missing = {b: t for b, t in targets.items() if not (t / "manifest.json").exists()}
    if missing:
        _compute(dataset, request, missing, workers, on_progress)
    return {b: FeatureSet(t, (t / "manifest.json").read_json()) for b, t in targets.items()}


def _compute(
    dataset: PreparedSet,
    request: FeatureRequest,
    targets: dict[str, Location],
    workers: Workers,
    on_progress: Callable[[int, int], None],
) -> None:
    import ray.data

    chunks = [
        {
            "split": split,
            "start": start,
            "stop": min(start + CHUNK, count),
            "name": f"{start:08d}.arrow",
        }
        for split in SPLITS
        for count in [len(dataset.rows(split))]
        for start in range(0, count, CHUNK)
    ]
    waiting = [
        chunk
        for chunk in chunks
        if not all(
            (target / chunk["split"] / chunk["name"]).exists() for target in targets.values()
        )
    ]
    total = sum(chunk["stop"] - chunk["start"] for chunk in chunks)
    done = total - sum(chunk["stop"] - chunk["start"] for chunk in waiting)
    if waiting:
        uris = {boundary: target.uri for boundary, target in targets.items()}
        pool = min(workers.count, len(waiting))
        written = ray.data.from_items(waiting, override_num_blocks=len(waiting)).map(
            Extractor,
            fn_constructor_args=(dataset.root.uri, request, uris, workers.cpus),
            compute=ray.data.ActorPoolStrategy(size=pool),
            num_cpus=workers.cpus,
            num_gpus=1 if workers.use_gpu else 0,
        )
        for row in written.iter_rows():
            done += int(row["photos"])
            on_progress(done, total)
    files = {split: [c["name"] for c in chunks if c["split"] == split] for split in SPLITS}
    for boundary, target in targets.items():
        views = request.views_at(boundary)
        target_manifest = {"boundary": boundary, "files": files, "photos": total, "views": views}
        (target / "manifest.json").write_json(target_manifest)


class Extractor:
    """Holds the frozen part in a Ray Data actor and turns chunks of photos into shards."""

    def __init__(
        self, dataset: str, request: FeatureRequest, targets: dict[str, str], threads: int
    ) -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        import keras

        from catdog.models import registry
        from catdog.models.weights import unpack
        from catdog.training.step import make_augmentation

        keras.config.set_dtype_policy(request.precision)
        self.dataset = open_dataset(dataset)
        self.request = request
        self.targets = {boundary: Location(uri) for boundary, uri in targets.items()}
        model = registry.build(request.architecture)
        arrays = unpack(Location.of(request.backbone).read_bytes())
        for variable, array in zip(registry.backbone_variables(model), arrays, strict=True):
            variable.assign(array)
        outputs = [registry.find_layer(model, boundary).output for boundary in targets]
        trunk = keras.Model(model.input, outputs)
        signature = [tf.TensorSpec((None, *model.input_shape[1:]), tf.uint8)]
        self.plain = tf.function(
            lambda pixels: trunk(pixels, training=False), input_signature=signature
        )
        self.augmentation = make_augmentation(request.augmentation) if request.views > 1 else None
        if self.augmentation is not None:
            self.augmentation.build(model.input_shape)

    def __call__(self, chunk: dict[str, Any]) -> dict[str, Any]:
        split, start, stop = chunk["split"], int(chunk["start"]), int(chunk["stop"])
        rows = self.dataset.rows(split)
        indices = np.arange(start, stop)
        # The same photo draws the same views in any run and on any actor.
        self._reseed(start)
        views = self.request.views if split == "train" else 1
        parts: dict[str, list[list[np.ndarray[Any, Any]]]] = {b: [] for b in self.targets}
        for view in range(views):
            seen: dict[str, list[np.ndarray[Any, Any]]] = {b: [] for b in self.targets}
            for at in range(0, len(indices), BATCH):
                pixels = rows.gather(indices[at : at + BATCH])
                if view and self.augmentation is not None:
                    pixels = self._augmented(pixels)
                outputs = self.plain(pixels)
                outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
                for boundary, output in zip(self.targets, outputs, strict=True):
                    seen[boundary].append(output.numpy())
            for boundary in self.targets:
                if view < (1 if split != "train" else self.request.views_at(boundary)):
                    parts[boundary].append([np.concatenate(seen[boundary])])
        for boundary, target in self.targets.items():
            self._write(target / split / chunk["name"], rows, indices, parts[boundary])
        return {"photos": stop - start}

    def _augmented(self, pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert self.augmentation is not None
        drawn = self.augmentation(pixels, training=True).numpy()
        return np.clip(np.rint(drawn.astype(np.float32)), 0, 255).astype(np.uint8)

    def _reseed(self, start: int) -> None:
        if self.augmentation is None:
            return
        for index, state in enumerate(self.augmentation.variables):
            words = np.random.SeedSequence([self.request.seed, start, index]).generate_state(2)
            state.assign(words.astype(np.uint32))

    def _write(
        self,
        target: Location,
        rows: Rows,
        indices: np.ndarray[Any, Any],
        views: list[list[np.ndarray[Any, Any]]],
    ) -> None:
        stacked = np.stack([view[0] for view in views], axis=1)  # (photos, views, *shape)
        flat = stacked.reshape(-1, *stacked.shape[2:])
        photo = np.repeat(indices, len(views))
        write_shard(
            target,
            flat,
            labels=rows.labels[photo],
            uris=[rows.uris[index] for index in photo],
        )
