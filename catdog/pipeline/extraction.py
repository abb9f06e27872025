"""Features of frozen backbones as a stage: which ones a plan needs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from catdog.config import FineTuneSettings, ModelName, ScratchSettings
from catdog.models.registry import POOLED
from catdog.pipeline.planning import Plan
from catdog.storage import Location
from catdog.training.pool import Runner
from catdog.transfer import probe
from catdog.transfer.features import FeatureSet, extract


def fit_probe(pool: Runner, plan: Plan, name: ModelName) -> dict[str, Any]:
    """The head on the frozen features of ``name``; what is kept is not computed."""
    features = features_of(pool, plan, name, [POOLED])[POOLED]
    weighed = plan.config.fine_tune.class_weights
    return probe.fit(pool, features, plan.run.model(name), weighed)


def features_of(
    pool: Runner, plan: Plan, name: ModelName, boundaries: Sequence[str]
) -> dict[str, FeatureSet]:
    """Activations of ``name`` at ``boundaries``; what is kept is not computed."""
    request = replace(plan.feature_request(name), precision=pool.workers.precision_of(name))
    storage = Location.of(plan.config.storage)
    _note_use(plan, [request.fingerprint(plan.dataset, boundary) for boundary in boundaries])
    return extract(pool, plan.dataset, request, boundaries, storage)


def _note_use(plan: Plan, names: Iterable[str]) -> None:
    """In ``run.json``, before anything is computed: so that nobody removes what is in use."""
    known = plan.run.read().get("features", [])
    if not set(names) <= set(known):
        plan.run.update(features=sorted({*known, *names}))


def kept_features(
    pool: Runner,
    plan: Plan,
    name: ModelName,
    trainings: Iterable[ScratchSettings | FineTuneSettings],
) -> dict[str, FeatureSet]:
    """Activations that ``trainings`` of ``name`` start from, by boundary; none for pixels."""
    cuts = sorted(plan.kept_cuts(name, trainings))
    return features_of(pool, plan, name, cuts) if cuts else {}
