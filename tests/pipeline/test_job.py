"""The stages of the job, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from catdog import console
from catdog.console import output
from catdog.data.prepare import PreparedSet
from catdog.pipeline.event_log import EventLog
from catdog.pipeline.job import Work, _train_one, final_job
from catdog.pipeline.planning import Plan
from catdog.pipeline.session import Session
from catdog.presets import sample
from catdog.runs import Events, RunDirectory
from catdog.storage import Location
from catdog.training.pool import WorkerPool
from tests.here import Here


@dataclass
class Up(Here):
    is_up: bool = True


def test_after_a_report_between_two_models_the_next_training_is_what_is_being_done(
    tmp_path: Path,
) -> None:
    changes = {"storage": str(tmp_path), "name": "run", "seeds": 2}
    config = sample().model_copy(update=changes)
    run, pool = RunDirectory.of(config), Up()
    manifest = {"format": 1, "image_size": 96, "contents": "c"}
    dataset = PreparedSet(Location.of(tmp_path / "set"), manifest)
    plan = Plan(config, run, dataset, "float32", {})
    events = Events(run.root / "events.jsonl")
    session = Session(run, events, EventLog(events))
    work = Work(config, run, session, pool.workers, cast(WorkerPool, pool))

    session.stage("report", "what there is so far")
    job = final_job(work, plan, "base_cnn")
    assert output._activity.text == "training of base_cnn"
    (repeat,) = plan.repeats(job)
    facts = {"history": [], "identity": repeat.identity, "epochs_asked": 4}
    for name in ("trained.json", "predicted.json"):  # done, so that no worker is asked
        (Location.of(repeat.output) / name).write_json(facts)
    session.stage("report", "what there is so far")
    _train_one(work, plan, repeat)
    assert output._activity.text == "training of base_cnn seed 1"
    console.doing("")
