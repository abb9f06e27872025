"""Features of frozen backbones as a stage: which ones a plan needs, with their progress shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from catdog import console
from catdog.config import ModelName
from catdog.planning import Plan
from catdog.storage import Location
from catdog.training.inputs import Split
from catdog.training.workers import Workers
from catdog.transfer.features import LEARNT, FeatureSet, extract


def extract_features(
    plan: Plan,
    name: ModelName,
    boundaries: Iterable[str],
    storage: Location,
    workers: Workers,
    splits: Sequence[Split],
) -> dict[str, FeatureSet]:
    """Activations of ``name`` at ``boundaries`` for ``splits``; what is kept is not computed."""
    request = plan.feature_request(name)
    with console.progress(f"features of {name}", 1.0) as advance:
        return extract(
            plan.dataset,
            request,
            list(boundaries),
            storage,
            workers,
            console.counted(advance),
            splits,
        )


def kept_features(
    plan: Plan, name: ModelName, cuts: set[str], storage: Location, workers: Workers
) -> dict[str, FeatureSet]:
    """Activations at ``cuts``, where the settings keep them instead of augmenting pixels."""
    if name not in plan.weights or not getattr(plan.settings(name), "views", 0):
        return {}
    return extract_features(plan, name, sorted(cuts - {"pixels"}), storage, workers, LEARNT)
