"""``report.json``, schema 1: keys are added, never renamed, for other programs read it.

Accuracies are fractions, losses binary cross-entropy in nats, durations seconds; cat is 0, dog 1.
What is not known is ``null``.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from catdog.config import digest
from catdog.evaluation.intervals import Spread
from catdog.evaluation.metrics import Evaluation
from catdog.report.conclusion import Conclusion
from catdog.report.load import Run, Tree
from catdog.report.results import Ensemble, ModelResult, Pair, Report

SCHEMA_VERSION = 1
HISTORY_KEYS = ("phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy")


def document(report: Report, verdict: Conclusion) -> Tree:
    """The whole of ``report.json``: the first run as the contract says, others beside it."""
    best = report.best
    tree: Tree = {
        "schema_version": SCHEMA_VERSION,
        "verdict": {"sentences": verdict.sentences, "cautions": verdict.cautions},
        "best": best and {"name": best.name, "run": best.run.name},
        **_of_run(report, report.first),
        "comparisons": [_pair(pair) for pair in report.pairs],
        "price_per_hour": report.price_per_hour,
        "other_runs": [_of_run(report, run) for run in report.runs[1:]],
    }
    return dict(_plain(tree))


def _of_run(report: Report, run: Run) -> Tree:
    return {
        "run": _run(run),
        "data": _data(run),
        "models": [_model(model) for model in report.models if model.run is run],
        "ensembles": [_ensemble(each) for each in report.ensembles if each.run is run],
        "sweeps": {name: _sweep(sweep) for name, sweep in run.sweeps.items()},
    }


def _run(run: Run) -> Tree:
    record = run.record
    return {
        "name": run.name,
        "seconds": record.get("seconds"),
        "config": run.config,
        "config_hash": record.get("identity") or digest(run.config),
        "versions": record.get("versions") or {},
        "resumed": bool(record.get("resumed")),
        "status": record.get("status"),
        "command": record.get("command"),
        "git_commit": record.get("git_commit"),
        "hardware": record.get("hardware"),
        "seeds": record.get("seeds"),
        "lost_seconds": record.get("lost_seconds"),
        "notes": record.get("notes") or [],
        "problems": run.problems,
    }


def _data(run: Run) -> Tree:
    known = run.manifest
    keys = ("source", "fingerprint", "files", "kept", "held_back")
    return {
        **{key: known.get(key) for key in keys},
        "rejected": known.get("rejected") or {},
        "splits": known.get("splits") or {},
        "sample": known.get("sample"),
    }


def _model(model: ModelResult) -> Tree:
    facts, calibration = model.files.facts, model.calibration
    return {
        "name": model.name,
        "weights": model.weights,
        "parameters": model.parameters,
        "test": _evaluation(model.test),
        "val": _evaluation(model.val),
        "train": model.training and asdict(model.training),
        "history": [
            {key: row.get(key) for key in HISTORY_KEYS} | row for row in model.files.history
        ],
        "best_epoch": facts.get("best"),
        "calibration": calibration
        and {
            "temperature": calibration.temperature.value,
            "note": calibration.temperature.note,
            "ece": calibration.ece,
            "loss": calibration.loss,
        },
        "seeds": _spread(model.seeds),
        "file_bytes": facts.get("file_bytes"),
        "predict_images_per_second": facts.get("predict_images_per_second"),
        "image_size": facts.get("image_size"),
        "input_scale": facts.get("input_scale"),
        "weights_hash": facts.get("weights_hash"),
        "reproducible": facts.get("reproducible"),
        "varies": facts.get("varies"),
        "exports": model.files.exports,
    }


def _ensemble(ensemble: Ensemble) -> Tree:
    gain = ensemble.gain
    return {
        "name": ensemble.name,
        "test": _evaluation(ensemble.test),
        "against": ensemble.against,
        "accuracy_difference": gain.difference,
        "ci95": gain.ci95,
        "mcnemar_p": gain.mcnemar_p,
    }


def _evaluation(result: Evaluation | None) -> Tree | None:
    return None if result is None else asdict(result)


def _spread(repeats: Spread | None) -> Tree | None:
    return None if repeats is None else repeats._asdict()


def _pair(pair: Pair) -> Tree:
    return {
        "a": pair.a.key,
        "b": pair.b.key,
        "n": pair.result.n,
        "accuracy_difference": pair.result.difference,
        "ci95": list(pair.result.ci95),
        "mcnemar_p": pair.result.mcnemar_p,
        "mcnemar_p_holm": pair.p_holm,
        "only_a_right": pair.result.only_a,
        "only_b_right": pair.result.only_b,
        "over_seeds": _spread(pair.over_seeds),
    }


def _sweep(sweep: Tree) -> Tree:
    keys = ("id", "config", "val_accuracy", "epochs", "seconds", "status", "error")
    trials = [{key: trial.get(key) for key in keys} for trial in sweep.get("trials") or []]
    return {"trials": trials, "best": sweep.get("best"), "seconds": sweep.get("seconds")}


def _plain(value: Any) -> Any:
    """Tuples as lists, and ``null`` for a loss that became NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
