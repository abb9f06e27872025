"""Features, probes and the sweep as stages; the settings that a sweep chose as a config file."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from catdog import console
from catdog.cluster.resources import Resources
from catdog.cluster.workers import Workers
from catdog.config import Config, FineTuneSettings, ModelName, ScratchSettings
from catdog.errors import RunFailed, UserError
from catdog.models.registry import POOLED
from catdog.pipeline.planning import Plan
from catdog.pipeline.session import Session
from catdog.runs.records import Probe
from catdog.storage import Location
from catdog.training.pool import Runner, WorkerPool
from catdog.transfer import probe
from catdog.transfer.features import FeatureSet, extract
from catdog.transfer.trials import TrialStore


def fit_probe(pool: Runner, plan: Plan, name: ModelName) -> Probe:
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
    known = plan.run.read().features or []
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


def concurrent_groups(workers: Workers, resources: Resources) -> int:
    """How many trials of ``workers`` each run at once."""
    if workers.use_gpu:
        return max(1, resources.gpus // workers.count)
    return max(1, resources.cpus // (workers.count * workers.cpus))


def choose(pool: WorkerPool, plan: Plan, name: ModelName, session: Session) -> Plan:
    """Run what is missing of the sweep of ``name``; returns the plan with the best setting.

    Leaves ``trials.json``, ``trials.parquet`` and ``best.yaml``, also when it is interrupted.

    Raises:
        UserError: a head is to be swept and there are no pretrained weights.
        RunFailed: no trial came to a result.
    """
    trial_store = _ledger(plan, name)
    stage = "the head" if plan.config.sweep.stage == "head" else "fine-tuning"
    count = (
        f"{len(trial_store.ids)} trials of {stage} of {name}, {trial_store.search.method} search"
    )
    session.stage("sweep", count)
    if trial_store.search.method == "grid" and trial_store.search.grid_size > len(trial_store.ids):
        console.say(
            f"{len(trial_store.ids)} of the grid's {trial_store.search.grid_size} points, at random"
        )
    started = time.monotonic()
    try:
        if plan.config.sweep.stage == "head":
            ended = session.event_log.trial_ended
            probe.record(fit_probe(pool, plan, name), trial_store, ended)
        else:
            _sweep_fine_tuning(pool, plan, name, trial_store, session)
    except BaseException:
        # Ctrl-C ends the sweep with what there is.
        with suppress(RunFailed):
            _conclude(plan, name, trial_store, session, time.monotonic() - started)
        raise
    return _conclude(plan, name, trial_store, session, time.monotonic() - started)


def _ledger(plan: Plan, name: ModelName) -> TrialStore:
    settings = plan.config.sweep
    if settings.stage == "head" and name not in plan.weights:
        raise UserError(
            f"a sweep of the head needs pretrained weights for {name}: give "
            f"--weights-for {name}=PATH,scale=0..1, or --stage finetune"
        )
    if settings.stage == "head":
        return probe.trial_store(plan.run.sweep(name))
    return TrialStore(plan.run.sweep(name), plan.search(name), settings.trials)


def _sweep_fine_tuning(
    pool: WorkerPool, plan: Plan, name: ModelName, trial_store: TrialStore, session: Session
) -> None:
    from catdog.transfer.sweep import sweep_fine_tuning

    if not trial_store.missing():
        return
    points = trial_store.search.choices(
        ("unfrozen_blocks", "augmentation_strength"), trial_store.trials
    )
    tried = [plan.tried(name, point) for point in points]
    features = kept_features(pool, plan, name, tried)
    sweep_fine_tuning(
        lambda point, output: plan.trial(name, features, point, output),
        trial_store,
        plan.config.sweep,
        pool,
        session.event_log.trial,
    )


def _conclude(
    plan: Plan, name: ModelName, trial_store: TrialStore, session: Session, seconds: float
) -> Plan:
    outcome = trial_store.summarise(seconds)
    assert outcome.best is not None
    session.event_log.ranking(trial_store.ranked())
    best = outcome.best.as_json()
    session.events.add("sweep", model=name, best=best, seconds=outcome.seconds)
    chosen = replace(plan, best=outcome.best.config, swept=name)
    (trial_store.folder / "best.yaml").write_text(_chosen_config(chosen, name).to_yaml())
    return chosen


def _chosen_config(plan: Plan, name: ModelName) -> Config:
    """The run's settings with the sweep's choice in place, without another sweep."""
    config = plan.config
    group = "fine_tune" if name in plan.weights else "scratch"
    changed = plan.tried(name, plan.best or {})
    sweep_off = config.sweep.model_copy(update={"trials": 0, "model": None})
    others = tuple(other for other in config.head_only if other != name)
    update = {group: changed, "sweep": sweep_off, "name": None, "head_only": others}
    return config.model_copy(update=update)
