"""The whole job, in order: data, weights, probes, sweep, trainings, report.

Each stage reads what the one before it wrote and leaves finished work alone, so the same command
after an interruption goes on where it was. Models come in the order of their cost, and the report
is written anew after each.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from catdog import console
from catdog.cluster.connection import connected
from catdog.cluster.nodes import check_nodes
from catdog.cluster.resources import Resources, describe_hardware, plan_workers, versions
from catdog.cluster.scaling import wait_for
from catdog.cluster.workers import Workers
from catdog.config import Config, ModelName
from catdog.data.prepare import PreparedSet
from catdog.errors import UserError
from catdog.models.weights import RANDOM, Weights, fetch, is_installed
from catdog.pipeline.event_log import measures
from catdog.pipeline.planning import Plan
from catdog.pipeline.preflight import check, check_places
from catdog.pipeline.preparation import WHAT, account_line, prepared
from catdog.pipeline.recording import write_model_files
from catdog.pipeline.session import Session
from catdog.pipeline.tracking import tracked
from catdog.pipeline.tuning import concurrent_groups, fit_probe, kept_features
from catdog.report.ending import show
from catdog.runs import RunDirectory, lease
from catdog.runs.records import Training
from catdog.storage import Location
from catdog.storage.access import check_writable
from catdog.training.job import TrainingJob, read_done
from catdog.training.pool import WorkerPool

#: A report between two models takes some seconds; trainings of seconds do not wait for one each.
REPORT_EVERY_S = 60.0


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
        show(run.root)
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
        with _until_photos(config, run, session) as (work, dataset, weights):
            plan = sweep(work, transfer(work, dataset, weights, finish=False))
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


@dataclass
class Work:
    """What the stages of one session share; ``pool`` holds the worker groups."""

    config: Config
    run: RunDirectory
    session: Session
    workers: Workers
    pool: WorkerPool
    reported: float = -math.inf

    @property
    def storage(self) -> Location:
        return Location.of(self.config.storage)


def _run_stages(config: Config, run: RunDirectory, session: Session) -> Location:
    with _until_photos(config, run, session) as (work, dataset, weights):
        plan = sweep(work, transfer(work, dataset, weights))
        _use_changing_nodes(work)
        train_models(work, plan)
        repeat_trainings(work, plan)
    session.finish()
    return report(run, session)


@contextmanager
def _until_photos(
    config: Config, run: RunDirectory, session: Session
) -> Iterator[tuple[Work, PreparedSet, dict[ModelName, Weights]]]:
    """What needs no worker group, and then a pool of them."""
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
    size = concurrent_groups(workers, Resources.now()) if config.sweep.trials else 1
    pool = WorkerPool(
        workers, run.root / "ray", session.event_log, size=size, xla=config.compute.xla
    )
    with pool:
        yield Work(config, run, session, workers, pool), dataset, weights


def _use_changing_nodes(work: Work) -> None:
    """Trials share the cluster and keep their number of workers; the final trainings need not."""
    if work.workers.span:
        work.pool.rest()
        work.pool.elastic = True


def prepare_data(
    config: Config, run: RunDirectory, session: Session, storage: Location
) -> PreparedSet:
    """The prepared set, and copies of its lists in the run directory."""
    session.stage("data", WHAT)
    dataset = prepared(config, storage, owner=str(run.root))
    manifest = dataset.manifest
    for name in ("manifest.json", "rejected.parquet", "photos.parquet"):
        (run.data / name).write_bytes((dataset.root / name).read_bytes())
    console.say(account_line(manifest))
    session.events.add("data", files=manifest["files"], rejected=manifest["rejected"])
    return dataset


def fetch_weights(config: Config, session: Session, storage: Location) -> dict[ModelName, Weights]:
    """Weights by backbone; where there is no network random ones, but for a cluster's hours."""
    found: dict[ModelName, Weights] = {}
    if any(config.weights_of(name).pretrained for name in config.models):
        session.stage("weights", "pretrained ones, read or downloaded once and checked")
    for name in config.models:
        settings = config.weights_of(name)
        try:
            weights = fetch(name, settings, storage)
        except UserError:
            downloaded = settings.source == "imagenet" and not is_installed(name, settings)
            if config.preset == "cluster" or not downloaded:
                raise
            session.note(
                f"ImageNet weights for {name} cannot be downloaded here: a head on the features of "
                "its first blocks, with random weights, stands in for it: no transfer takes place"
            )
            weights = Weights("", RANDOM, "", settings.scale)
        if weights is not None:
            found[name] = weights
    return found


def transfer(
    work: Work,
    dataset: PreparedSet,
    weights: Mapping[ModelName, Weights],
    *,
    finish: bool = True,
) -> Plan:
    """A head on the frozen features of every backbone that has weights, the cheapest first.

    With ``finish`` what ends with its head is a model with a report, and so is the first of all
    before a fine-tuning that augments pixels in every epoch begins.
    """
    plan = Plan(work.config, work.run, dataset, work.workers.precision, dict(weights))
    for name in plan.probes_in_order():
        work.session.stage("probe", f"{name}: a head on frozen features")
        plan.weights[name] = _drawn_if_random(work, plan, name)
        row = fit_probe(work.pool, plan, name).row
        console.say(f"{name} probe  {measures(row)}")
        work.session.events.add("probe", model=name, **row.as_json())
        plan.probed[name] = row.val_accuracy
        first_look = len(plan.probed) == 1 and not work.config.fine_tune.keeps_activations
        if finish and (plan.is_head_alone(name) or first_look):
            _finish_probe(work, plan, name)
    return plan


def _drawn_if_random(work: Work, plan: Plan, name: ModelName) -> Weights:
    weights = plan.weights[name]
    if not weights.is_random:
        return weights
    from catdog.transfer.random_backbone import draw

    seed = work.config.seed
    return draw(work.pool, plan.dataset, plan.architecture(name), seed, work.storage)


def _finish_probe(work: Work, plan: Plan, name: ModelName) -> None:
    """The probe as a model of the report, unless fine-tuning has come further already."""
    job = plan.probe_job(name)
    if plan.is_head_alone(name) or read_done(replace(job, phase="finetune")) is None:
        _train_one(work, plan, job)


def sweep(work: Work, plan: Plan) -> Plan:
    """The plan with the best setting found; the same plan where no sweep is asked for."""
    settings = plan.config.sweep
    name = settings.model or plan.swept_by_default()
    if not settings.trials or name is None:
        return plan
    from catdog.pipeline.tuning import choose

    return choose(work.pool, plan, name, work.session)


def train_models(work: Work, plan: Plan) -> None:
    """All models, one after the other; the report is written anew after each."""
    work.session.stage("training", str(work.workers))
    for name in plan.in_order_of_cost():
        if not plan.is_head_alone(name):
            _train_one(work, plan, final_job(work, plan, name))


def repeat_trainings(work: Work, plan: Plan) -> None:
    """The final trainings and predictions again with other seeds, where ``seeds`` asks for them.

    The photos of each split, the probe's head and the sweep's choice stay as they are: heads on
    frozen features come out the same and are not repeated.
    """
    if work.config.seeds < 2:
        return
    trained = [name for name in plan.in_order_of_cost() if not plan.is_head_alone(name)]
    jobs = [job for name in trained for job in plan.repeats(final_job(work, plan, name))]
    work.session.stage("seeds", f"{len(jobs)} trainings with other seeds")
    for job in jobs:
        _train_one(work, plan, job)


def final_job(work: Work, plan: Plan, name: ModelName) -> TrainingJob:
    """The training of ``name`` for the comparison, from kept features where they serve."""
    console.doing(f"training of {name}")  # no longer the report on the model before
    return plan.job(name, kept_features(work.pool, plan, name, [plan.settings(name)]))


def _train_one(work: Work, plan: Plan, job: TrainingJob) -> None:
    """Train, predict, and report what there is; what is done already is not done again."""
    from catdog.evaluation.predict import keep_test_thumbnails, predict
    from catdog.training.pool import train_in

    assert job.training is not None
    if not work.pool.is_up:
        wait_for(work.workers, console.say)  # other work may have taken what was given back
    console.doing(f"training of {job.title}")
    (training,) = train_in(work.pool, [job])
    work.session.event_log.record_epochs(job.title, job.settings.epochs, training.history)
    folder = work.run.training(job.training)
    predicted = folder / "predicted.json"
    if predicted.exists() and Training.fitted(predicted.read_json())[0] == training:
        return
    console.doing(f"predictions of {job.title}")
    write_model_files(plan, job, training)
    speed = predict(work.pool, plan.dataset, work.run, job.training)
    model = folder / "model.json"
    model.write_json(model.read_json() | {"predict_images_per_second": speed})
    keep_test_thumbnails(plan.dataset, work.run, plan.config.models)
    predicted.write_json(training.as_json())
    if time.monotonic() - work.reported > REPORT_EVERY_S:
        from catdog.report import build

        work.session.stage("report", "what there is so far")
        console.say(str(build([work.run.root])))
        work.reported = time.monotonic()


def report(run: RunDirectory, session: Session) -> Location:
    from catdog.report import build

    session.stage("report")
    page = build([run.root])
    show(run.root)
    return page
