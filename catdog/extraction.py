"""Features of frozen backbones as a stage: which ones a plan needs."""

from __future__ import annotations

from collections.abc import Iterable

from catdog.config import FineTuneSettings, ModelName, ScratchSettings
from catdog.planning import Plan
from catdog.storage import Location
from catdog.training.pool import Runner
from catdog.transfer.features import LEARNT, FeatureSet, extract


def kept_features(
    pool: Runner,
    plan: Plan,
    name: ModelName,
    trainings: Iterable[ScratchSettings | FineTuneSettings],
) -> dict[str, FeatureSet]:
    """Activations that ``trainings`` of ``name`` start from, by boundary; none for pixels."""
    cuts = sorted(plan.kept_cuts(name, trainings))
    if not cuts:
        return {}
    storage = Location.of(plan.config.storage)
    return extract(pool, plan.dataset, plan.feature_request(name), cuts, storage, LEARNT)
