"""Features of frozen backbones as a stage: which ones a plan needs, with their progress shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from catdog import console
from catdog.config import FineTuneSettings, ModelName, ScratchSettings
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
    plan: Plan,
    name: ModelName,
    trainings: Iterable[ScratchSettings | FineTuneSettings],
    storage: Location,
    workers: Workers,
) -> dict[str, FeatureSet]:
    """Activations that ``trainings`` of ``name`` start from, by boundary; none for pixels."""
    cuts = sorted(plan.kept_cuts(name, trainings))
    return extract_features(plan, name, cuts, storage, workers, LEARNT) if cuts else {}
