"""Features of frozen backbones as a stage: which ones a plan needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from catdog.config import FineTuneSettings, ModelName, ScratchSettings
from catdog.pipeline.planning import Plan
from catdog.storage import Location
from catdog.training.inputs import Split
from catdog.training.pool import Runner
from catdog.transfer.features import LEARNT, SPLITS, FeatureSet, extract


def features_of(
    pool: Runner,
    plan: Plan,
    name: ModelName,
    boundaries: Sequence[str],
    splits: Sequence[Split] = SPLITS,
) -> dict[str, FeatureSet]:
    """Activations of ``name`` at ``boundaries``; what is kept is not computed."""
    request = replace(plan.feature_request(name), precision=pool.workers.precision_of(name))
    storage = Location.of(plan.config.storage)
    return extract(pool, plan.dataset, request, boundaries, storage, splits)


def kept_features(
    pool: Runner,
    plan: Plan,
    name: ModelName,
    trainings: Iterable[ScratchSettings | FineTuneSettings],
) -> dict[str, FeatureSet]:
    """Activations that ``trainings`` of ``name`` start from, by boundary; none for pixels."""
    cuts = sorted(plan.kept_cuts(name, trainings))
    return features_of(pool, plan, name, cuts, LEARNT) if cuts else {}
