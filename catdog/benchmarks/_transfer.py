"""What the parts about transfer learning share: prepared photos, and backbones to compute with.

Weights are drawn at random: a forward pass costs the same whatever they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from catdog import console
from catdog.benchmarks import _photos
from catdog.cluster.connection import connected
from catdog.cluster.resources import Resources, plan_workers
from catdog.cluster.workers import Workers
from catdog.config import ComputeSettings, Config, DataSettings, ModelName
from catdog.data.prepare import PreparedSet, prepare
from catdog.models.registry import Architecture
from catdog.storage import Location
from catdog.transfer.features import FeatureRequest


@dataclass(frozen=True)
class Bench:
    """Prepared photos on a local cluster.

    Attributes:
        workers: one, with all cores.
        facts: of the measurement, for the result.
    """

    dataset: PreparedSet
    storage: Location
    workers: Workers
    cores: int
    facts: dict[str, Any]

    def request(self, name: ModelName) -> FeatureRequest:
        """The frozen part of ``name``, its weights in storage."""
        import ray

        size = self.facts["image_size"]
        architecture = Architecture(name, size, size, "-1..1", dropout=0.0)
        content, hashed = ray.get(ray.remote(num_cpus=1)(_draw_weights).remote(architecture))
        target = self.storage / f"{name}.npz"
        target.write_bytes(content)
        return FeatureRequest(architecture, target.uri, hashed, self.workers.precision_of(name))


@contextmanager
def bench(arguments: argparse.Namespace) -> Iterator[Bench]:
    """Photos, or drawings, prepared in a temporary folder; a cluster of this machine."""
    count, size = arguments.photos, arguments.image_size
    with (
        _photos.workplace(arguments.work) as work,
        console.chatter_to(work / "libraries.log"),
        connected(),
    ):
        storage = Location.of(work)
        source = arguments.data and str(_photos.repeated(arguments.data, count, size, work))
        settings = DataSettings(
            source=source, image_size=size, drawings=count, max_rejected=1.0, min_per_class=1
        )
        dataset = prepare(settings, storage, 0)
        resources = Resources.at_most()
        config = Config(preset="laptop", compute=ComputeSettings(workers=1))
        workers = plan_workers(config, resources)
        facts = {
            "photos": dataset.manifest["kept"],
            "image_size": size,
            "real_photos": arguments.data is not None,
            "precision": workers.precision,
            "cores": resources.cpus,
            "rounds": arguments.rounds,
        }
        yield Bench(dataset, storage, workers, resources.cpus, facts)


def _draw_weights(architecture: Architecture) -> tuple[bytes, str]:
    from catdog.models import registry
    from catdog.models.weights import pack

    model = registry.build(architecture)
    return pack([variable.numpy() for variable in registry.backbone_variables(model)])
