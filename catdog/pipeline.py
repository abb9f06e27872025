"""The whole job, in order: data, weights, probes, sweep, training, predictions, report.

Each stage reads what the one before it wrote and leaves finished work alone, so the same command
after an interruption goes on where it was.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from catdog import console
from catdog.access import check_writable
from catdog.cluster import Resources, describe_hardware, plan_workers, versions
from catdog.config import Config, ModelName
from catdog.connection import connected
from catdog.data.prepare import PreparedSet, prepare
from catdog.errors import UserError
from catdog.extraction import extract_features, kept_features
from catdog.models.registry import POOLED
from catdog.models.weights import Weights, fetch
from catdog.narration import RepeatNarrator, repeat_name
from catdog.nodes import check_nodes
from catdog.planning import Plan
from catdog.preflight import check, check_places
from catdog.recording import write_model_files
from catdog.runs import RunDirectory, lease
from catdog.scaling import wait_for
from catdog.session import Session
from catdog.storage import Location
from catdog.tracking import tracked
from catdog.training.job import TrainingJob
from catdog.training.workers import Workers
from catdog.transfer.features import SPLITS


def run_job(config: Config) -> Location:
    """Run everything that is missing of ``config``'s run; returns the location of its report.

    Raises:
        UserError: something given cannot be used.
        RunFailed: training or sweep came to no result.
    """
    check_places(config)
    run = RunDirectory.of(config)
    if run.is_finished(config):
        console.say(f"{run.root} is finished; nothing is left to do")
        return run.root / "report.html"
    with _at_work(config, run) as session:
        return _run_stages(config, run, session)


def run_sweep(config: Config) -> Location:
    """The job up to its sweep; returns the location of the settings that the sweep chose.

    Raises:
        UserError: something given cannot be used.
        RunFailed: no trial came to a result.
    """
    check_places(config)
    run = RunDirectory.of(config)
    with _at_work(config, run) as session:
        plan, _ = _run_until_training(config, run, session)
        session.finish("tuned")
        return run.sweep(plan.swept or "") / "best.yaml"


@contextmanager
def _at_work(config: Config, run: RunDirectory) -> Iterator[Session]:
    """A session on ``run`` that nobody else works on, with Ray."""
    check_writable(config.storage, "--storage")
    check(config)
    with lease(run, say=console.say), Session.of(run, config, versions()) as session:
        console.say(f"run {config.run_name} in {run.root}")
        chatter = console.chatter_to(_library_log(config))
        with chatter, connected(), tracked(config, run, session):
            yield session


def _library_log(config: Config) -> Path:
    """Where Ray's and TensorFlow's own lines go: on the driver's disk, out of the way."""
    name = config.run_name.replace("/", "-")
    return Path(tempfile.gettempdir()) / f"catdog-{os.getuid()}-{name}.log"


def _run_stages(config: Config, run: RunDirectory, session: Session) -> Location:
    storage = Location.of(config.storage)
    plan, workers = _run_until_training(config, run, session)
    train_models(plan, session, storage, workers)
    predict_test(plan, session, workers)
    repeat_trainings(plan, session, storage, workers)
    session.finish()
    return report(run, session)


def _run_until_training(
    config: Config, run: RunDirectory, session: Session
) -> tuple[Plan, Workers]:
    storage = Location.of(config.storage)
    workers = plan_workers(config, Resources.at_most())
    check_nodes(storage)
    run.update(hardware=describe_hardware(Resources.now()), precision=workers.precision)

    # A cluster that scales from zero has no core for the photos yet.
    wait_for(replace(workers, count=1, cpus=1, use_gpu=False, span=None), console.say)
    # First what can be wrong and is soon seen: a file of weights that does not fit its backbone.
    weights = fetch_weights(config, session, storage)
    dataset = prepare_data(config, run, session, storage)
    wait_for(workers, console.say)
    check_nodes(storage)  # those that have joined since too
    run.update(hardware=describe_hardware(Resources.now()))  # with what has joined
    plan = Plan(config, run, dataset, workers.precision, weights)
    probed = probe_backbones(plan, session, storage, workers)
    return sweep(plan, probed, session, storage, workers), workers


def prepare_data(
    config: Config, run: RunDirectory, session: Session, storage: Location
) -> PreparedSet:
    """The prepared set, and copies of its lists in the run directory."""
    session.stage("data", "read, check, split and decode the photos")
    with console.progress("photos", 1.0) as advance:
        counted = console.counted(advance)
        dataset = prepare(config.data, storage, config.seed, counted, owner=str(run.root))
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
    if any(config.weights_of(name).pretrained for name in config.models):
        session.stage("weights", "pretrained ones, read or downloaded once and checked")
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
        features = extract_features(plan, name, [POOLED], storage, workers, SPLITS)[POOLED]
        row = probe.fit(features, plan.run.model(name))["row"]
        accuracies[name] = row["val_accuracy"]
        console.say(
            f"{name} probe  loss {row['loss']:.4f}  accuracy {row['accuracy']:.4f}  "
            f"val_loss {row['val_loss']:.4f}  val_accuracy {row['val_accuracy']:.4f}"
        )
        session.events.add("probe", model=name, **row)
    return accuracies


def sweep(
    plan: Plan,
    probed: dict[ModelName, float],
    session: Session,
    storage: Location,
    workers: Workers,
) -> Plan:
    """The plan with the best setting found; the same plan where no sweep is asked for."""
    settings = plan.config.sweep
    backbones = [name for name in plan.config.models if name != "base_cnn"]
    if not settings.trials or not backbones:
        return plan
    best_probe = max(probed, key=lambda name: probed[name]) if probed else backbones[0]
    from catdog.tuning import choose

    wait_for(workers, console.say)
    name = settings.model or best_probe
    return choose(plan, name, session, storage, workers, Resources.now())


def train_models(plan: Plan, session: Session, storage: Location, workers: Workers) -> None:
    """All models, one after the other in one worker group; ``model.json`` marks each as done."""
    session.stage("training", str(workers))
    from catdog.training.trainer import train

    jobs = final_jobs(plan, storage, workers)
    wait_for(workers, console.say)  # other work may have taken what the last stage gave back
    facts = train(jobs, workers, plan.run.root / "ray", session.narrator)
    for job, fact in zip(jobs, facts, strict=True):
        session.narrator.record_epochs(job.name, job.settings.epochs, fact["history"])
        write_model_files(plan, job, fact)


def final_jobs(plan: Plan, storage: Location, workers: Workers) -> list[TrainingJob]:
    """The training of every model for the comparison, with kept features where they serve."""
    jobs = []
    for name in plan.config.models:
        features = kept_features(plan, name, [plan.settings(name)], storage, workers)
        jobs.append(plan.job(name, features))
    return jobs


def repeat_trainings(plan: Plan, session: Session, storage: Location, workers: Workers) -> None:
    """The final trainings and predictions again with other seeds, where ``seeds`` asks for them.

    The photos of each split, the probe's head and the sweep's choice stay as they are.
    """
    jobs = [repeat for job in final_jobs(plan, storage, workers) for repeat in plan.repeats(job)]
    if not jobs:
        return
    from catdog.evaluation.predict import predict
    from catdog.training.trainer import train

    session.stage("seeds", f"{len(jobs)} trainings with other seeds")
    narrator = RepeatNarrator(session.events, jobs)
    wait_for(workers, console.say)
    facts = train(jobs, workers, plan.run.root / "ray" / "seeds", narrator)
    for job, fact in zip(jobs, facts, strict=True):
        name = repeat_name(job.name, job.seed)
        narrator.record_epochs(name, job.settings.epochs, fact["history"])
        write_model_files(plan, job, fact)
    names = [f"{job.name}/seeds/{job.seed}" for job in jobs]
    with console.progress("predictions", 1.0) as advance:
        predict(plan.dataset, plan.run, names, workers, console.counted(advance))


def predict_test(plan: Plan, session: Session, workers: Workers) -> None:
    """Predictions on validation and test, and thumbnails of the test photos that matter."""
    from catdog.evaluation.artifacts import keep_test_thumbnails
    from catdog.evaluation.predict import predict

    session.stage("evaluation", "predictions on validation and test")
    names = plan.config.models
    with console.progress("predictions", 1.0) as advance:
        speeds = predict(plan.dataset, plan.run, names, workers, console.counted(advance))
    for name, speed in speeds.items():
        target = plan.run.model(name) / "model.json"
        target.write_json(target.read_json() | {"predict_images_per_second": speed})
    keep_test_thumbnails(plan.dataset, plan.run, names)


def report(run: RunDirectory, session: Session) -> Location:
    from catdog.report import build

    session.stage("report")
    return build([run.root])
