"""The whole job, in order: data, weights, probes, sweep, training, predictions, report.

Each stage reads what the one before it wrote and leaves finished work alone, so the same command
after an interruption goes on where it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from catdog import console
from catdog.cluster import Resources, connected, describe_hardware, plan_workers, versions, wait_for
from catdog.config import Config, ModelName
from catdog.data.prepare import PreparedSet, prepare
from catdog.errors import UserError
from catdog.models.registry import POOLED
from catdog.models.weights import Weights, fetch
from catdog.nodes import check_nodes
from catdog.planning import Plan
from catdog.preflight import check
from catdog.runs import RunDirectory, lease
from catdog.session import Session
from catdog.storage import Location
from catdog.training.trainer import Workers


def run_job(config: Config) -> Location:
    """Run everything that is missing of ``config``'s run; returns the location of its report.

    Raises:
        UserError: something given cannot be used.
        RunFailed: training or sweep came to no result.
    """
    run = RunDirectory.of(config)
    if run.is_finished(config):
        console.say(f"{run.root} is finished; nothing is left to do")
        return run.root / "report.html"
    check(config)
    with lease(run, say=console.say), Session.of(run, config, versions()) as session:
        console.say(f"run {config.run_name} in {run.root}")
        with console.chatter_to(_library_log(config)), connected():
            return _run_stages(config, run, session)


def _library_log(config: Config) -> Path:
    """Where Ray's and TensorFlow's own lines go: on the driver's disk, out of the way."""
    return Path(tempfile.gettempdir()) / f"catdog-{config.run_name}.log"


def _run_stages(config: Config, run: RunDirectory, session: Session) -> Location:
    storage = Location.of(config.storage)
    resources = Resources.of_cluster()
    workers = plan_workers(config, resources)
    check_nodes(storage)
    run.update(hardware=describe_hardware(resources), precision=workers.precision)

    dataset = prepare_data(config, run, session, storage)
    wait_for(workers, console.say)
    weights = fetch_weights(config, session, storage)
    plan = Plan(config, run, dataset, workers.precision, weights)
    probed = probe_backbones(plan, session, storage, workers)
    plan = sweep(plan, probed, session, storage, workers, resources)
    train_models(plan, session, storage, workers)
    predict_test(plan, session, workers)
    session.finish()
    return report(run, session)


def prepare_data(
    config: Config, run: RunDirectory, session: Session, storage: Location
) -> PreparedSet:
    """The prepared set, and copies of its lists in the run directory."""
    session.stage("data", "read, check, split and decode the photos")
    with console.progress("photos", 1.0) as advance:
        dataset = prepare(config.data, storage, config.seed, _counted(advance))
    manifest = dataset.manifest
    for name in ("manifest.json", "rejected.parquet", "photos.parquet"):
        (run.data / name).write_bytes((dataset.root / name).read_bytes())
    rejected = ", ".join(f"{count} {reason}" for reason, count in manifest["rejected"].items())
    parts = [f"{manifest['files']} files, {manifest['kept']} kept"]
    if manifest["held_back"]:
        parts.append(f"{manifest['held_back']} held back as near-duplicates of test photos")
    if rejected:
        parts.append(f"rejected: {rejected}")
    console.say("; ".join(parts))
    session.events.add("data", files=manifest["files"], rejected=manifest["rejected"])
    return dataset


def fetch_weights(config: Config, session: Session, storage: Location) -> dict[ModelName, Weights]:
    """Pretrained weights by backbone; the sample alone goes on where there is no network."""
    found: dict[ModelName, Weights] = {}
    for name in config.models:
        settings = config.weights_of(name)
        try:
            weights = fetch(name, settings, storage)
        except UserError:
            if config.preset != "sample" or settings.source != "imagenet":
                raise
            session.note(
                f"ImageNet weights for {name} cannot be downloaded here: it starts from random "
                "weights, and no transfer takes place"
            )
            continue
        if weights is not None:
            found[name] = weights
    return found


def probe_backbones(
    plan: Plan, session: Session, storage: Location, workers: Workers
) -> dict[ModelName, float]:
    """A head on the frozen features of every pretrained backbone; validation accuracy of each."""
    from catdog.transfer import probe

    accuracies: dict[ModelName, float] = {}
    for name in plan.weights:
        session.stage("probe", f"{name}: a head on frozen features")
        features = _extract(plan, name, [POOLED], storage, workers)[POOLED]
        row = probe.fit(features, plan.run.model(name))["row"]
        accuracies[name] = row["val_accuracy"]
        console.say(
            f"{name} probe  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}"
        )
        session.events.add("probe", model=name, **row)
    return accuracies


def _extract(
    plan: Plan, name: ModelName, boundaries: Iterable[str], storage: Location, workers: Workers
) -> dict[str, Any]:
    from catdog.transfer.features import extract

    with console.progress(f"features of {name}", 1.0) as advance:
        request = plan.feature_request(name)
        return extract(plan.dataset, request, list(boundaries), storage, workers, _counted(advance))


def _kept_features(
    plan: Plan, name: ModelName, cuts: set[str], storage: Location, workers: Workers
) -> dict[str, Any]:
    """Activations at ``cuts``, where the settings keep them instead of augmenting pixels."""
    if name not in plan.weights or not plan.config.fine_tune.views:
        return {}
    return _extract(plan, name, sorted(cuts - {"pixels"}), storage, workers)


def sweep(
    plan: Plan,
    probed: dict[ModelName, float],
    session: Session,
    storage: Location,
    workers: Workers,
    resources: Resources,
) -> Plan:
    """The plan with the best setting found; the same plan where no sweep is asked for."""
    settings = plan.config.sweep
    backbones = [name for name in plan.config.models if name != "base_cnn"]
    if not settings.trials or not backbones:
        return plan
    best_probe = max(probed, key=lambda name: probed[name]) if probed else backbones[0]
    name = settings.model or best_probe
    from catdog.transfer.sweep import run_sweep

    session.stage("sweep", f"{settings.trials} trials of {name}")
    trial_settings = [trial.job.settings for trial in plan.trials(name, {})]
    cuts = {plan.boundary_of(name, tried) for tried in trial_settings}
    trials = plan.trials(name, _kept_features(plan, name, cuts, storage, workers))
    concurrent = max(1, resources.cpus // (workers.count * workers.cpus))
    if workers.use_gpu:
        concurrent = max(1, resources.gpus // workers.count)
    outcome = run_sweep(trials, settings, workers, concurrent, plan.run, session.narrator.trial)
    session.narrator.ranking(outcome["trials"])
    best = outcome["best"]["config"]
    session.events.add("sweep", model=name, best=outcome["best"], seconds=outcome["seconds"])
    chosen = replace(plan, best=best, swept=name)
    (plan.run.sweep(name) / "best.yaml").write_text(_chosen_config(chosen, name).to_yaml())
    return chosen


def _chosen_config(plan: Plan, name: ModelName) -> Config:
    """The run's settings with the sweep's choice in place, without another sweep."""
    config = plan.config
    group = "fine_tune" if name in plan.weights else "scratch"
    changed = getattr(config, group).model_copy(update=dict(plan.best or {}))
    sweep_off = config.sweep.model_copy(update={"trials": 0})
    return config.model_copy(update={group: changed, "sweep": sweep_off, "name": None})


def train_models(plan: Plan, session: Session, storage: Location, workers: Workers) -> None:
    """All models, one after the other in one worker group; ``model.json`` marks each as done."""
    session.stage("training", f"{workers.count} workers, {workers.cpus} CPU cores each")
    from catdog.training.trainer import train

    jobs = []
    for name in plan.config.models:
        cut = plan.boundary_of(name, plan.settings(name))
        jobs.append(plan.job(name, _kept_features(plan, name, {cut}, storage, workers)))
    facts = train(jobs, workers, plan.run.root / "ray", session.narrator)
    for job, fact in zip(jobs, facts, strict=True):
        _write_model_files(plan, job, fact)


def _write_model_files(plan: Plan, job: Any, facts: dict[str, Any]) -> None:
    folder = Location.of(job.output)
    name: ModelName = job.name
    weights = plan.weights.get(name)
    history, probe_seconds = facts["history"], 0.0
    if weights is not None:
        probe = (folder / "probe.json").read_json()
        history = [probe["row"], *history]
        probe_seconds = probe["seconds"]
    (folder / "history.json").write_json(history)
    record = {
        "name": name,
        "weights": weights.origin if weights else "none",
        "weights_hash": weights.hash if weights else None,
        "input_scale": job.architecture.scale,
        "parameters": facts["parameters"],
        "image_size": job.architecture.look_size,
        "precision": facts["precision"],
        "seed": job.seed,
        "best": {"phase": job.phase, "epoch": facts["best"]["epoch"]},
        "train": facts["train"] | {"seconds": facts["train"]["seconds"] + probe_seconds},
        "file_bytes": facts["file_bytes"],
        "unfrozen_blocks": getattr(job.settings, "unfrozen_blocks", None),
        "settings": job.settings.model_dump(mode="json"),
    }
    (folder / "model.json").write_json(record)


def predict_test(plan: Plan, session: Session, workers: Workers) -> None:
    """Predictions on validation and test, and thumbnails of the test photos that matter."""
    from catdog.evaluation.artifacts import keep_test_thumbnails
    from catdog.evaluation.predict import predict

    session.stage("evaluation", "predictions on validation and test")
    names = plan.config.models
    with console.progress("predictions", 1.0) as advance:
        speeds = predict(plan.dataset, plan.run, names, workers, _counted(advance))
    for name, speed in speeds.items():
        target = plan.run.model(name) / "model.json"
        target.write_json(target.read_json() | {"predict_images_per_second": speed})
    keep_test_thumbnails(plan.dataset, plan.run, names)


def report(run: RunDirectory, session: Session) -> Location:
    from catdog.report import build

    session.stage("report")
    return build([run.root])


def _counted(advance: console.Advance) -> Any:
    return lambda done, total: advance(done / max(total, 1), f"{done} of {total}")
