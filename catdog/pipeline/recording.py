"""Write ``history.json`` and ``model.json`` of a finished training."""

from __future__ import annotations

from catdog.config import ModelName
from catdog.pipeline.planning import Plan
from catdog.report.wording import workers_words
from catdog.runs.records import Epoch, Model, Probe, Training
from catdog.storage import Location
from catdog.training.job import TrainingJob


def write_model_files(plan: Plan, job: TrainingJob, training: Training) -> None:
    """The probe's row and seconds, its features' too, are part of a pretrained model's training."""
    folder = Location.of(job.output)
    name: ModelName = job.architecture.name
    weights = plan.weights.get(name)
    history, probe_seconds = training.history, 0.0
    if weights is not None:
        probe = Probe.fitted((plan.run.model(name) / "probe.json").read_json())[0]
        history = [probe.row, *history]
        probe_seconds = probe.seconds + probe.feature_seconds
    (folder / "history.json").write_json([row.as_json() for row in history])
    seconds = (training.train.seconds or 0.0) + probe_seconds
    record = Model(
        name=name,
        weights=weights.origin if weights else "none",
        weights_hash=weights.hash if weights else None,
        input_scale=job.architecture.scale,
        parameters=training.parameters,
        image_size=job.architecture.model_image_size,
        precision=training.precision,
        reproducible=training.reproducible,
        varies=training.varies,
        seed=job.seed,
        best=Epoch(phase=job.phase, epoch=training.best.epoch),
        train=training.train.model_copy(update={"seconds": seconds}),
        file_bytes=training.file_bytes,
        unfrozen_blocks=getattr(job.settings, "unfrozen_blocks", None),
        settings=job.settings.model_dump(mode="json"),
    )
    (folder / "model.json").write_json(record.as_json())
    _note_workers(plan, name, record)


def _note_workers(plan: Plan, name: ModelName, record: Model) -> None:
    """In ``run.json``: models whose bits do, or do not, depend on the number of workers."""
    known = plan.run.read().reproducible
    words = workers_words(record)
    # One of several seeds on another machine is enough to depend on it.
    if words and (record.reproducible is False or name not in known):
        plan.run.update(reproducible=known | {name: words})
