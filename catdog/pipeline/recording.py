"""Write ``history.json`` and ``model.json`` of a finished training."""

from __future__ import annotations

from typing import Any

from catdog.config import ModelName
from catdog.pipeline.planning import Plan
from catdog.report.wording import workers_words
from catdog.storage import Location
from catdog.training.job import TrainingJob


def write_model_files(plan: Plan, job: TrainingJob, facts: dict[str, Any]) -> None:
    """The probe's row and seconds, its features' too, are part of a pretrained model's training."""
    folder = Location.of(job.output)
    name: ModelName = job.architecture.name
    weights = plan.weights.get(name)
    history, probe_seconds = facts["history"], 0.0
    if weights is not None:
        probe = (plan.run.model(name) / "probe.json").read_json()
        history = [probe["row"], *history]
        probe_seconds = probe["seconds"] + probe["feature_seconds"]
    (folder / "history.json").write_json(history)
    record = {
        "name": name,
        "weights": weights.origin if weights else "none",
        "weights_hash": weights.hash if weights else None,
        "input_scale": job.architecture.scale,
        "parameters": facts["parameters"],
        "image_size": job.architecture.model_image_size,
        "precision": facts["precision"],
        "reproducible": facts.get("reproducible"),
        "varies": facts.get("varies"),
        "seed": job.seed,
        "best": {"phase": job.phase, "epoch": facts["best"]["epoch"]},
        "train": facts["train"] | {"seconds": facts["train"]["seconds"] + probe_seconds},
        "file_bytes": facts["file_bytes"],
        "unfrozen_blocks": getattr(job.settings, "unfrozen_blocks", None),
        "settings": job.settings.model_dump(mode="json"),
    }
    (folder / "model.json").write_json(record)
    _note_workers(plan, name, record)


def _note_workers(plan: Plan, name: ModelName, record: dict[str, Any]) -> None:
    """In ``run.json``: models whose bits do, or do not, depend on the number of workers."""
    known: dict[str, str] = plan.run.read().get("reproducible", {})
    words = workers_words(record)
    # One of several seeds on another machine is enough to depend on it.
    if words and (record["reproducible"] is False or name not in known):
        plan.run.update(reproducible=known | {name: words})
