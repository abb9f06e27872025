"""``report.json``, schema 1: keys are added, never renamed, for other programs read it.

Accuracies are fractions, losses binary cross-entropy in nats, durations seconds; cat is 0, dog 1.
What is not known is ``null``.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TypeAlias

from catdog.config import digest
from catdog.evaluation.intervals import Spread
from catdog.evaluation.metrics import Evaluation
from catdog.report.conclusion import Conclusion
from catdog.report.load import Run
from catdog.report.results import Ensemble, ModelResult, Pair, Report
from catdog.runs.records import Sweep

SCHEMA_VERSION = 1
Tree: TypeAlias = dict[str, object]


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
    plain = _plain(tree)
    assert isinstance(plain, dict)
    return plain


def _of_run(report: Report, run: Run) -> Tree:
    return {
        "run": _run(run),
        "data": _data(run),
        "models": [_model(model) for model in report.models if model.run is run],
        "ensembles": [_ensemble(each) for each in report.ensembles if each.run is run],
        "sweeps": {name: _sweep(sweep) for name, sweep in run.sweeps.items()},
    }


def _run(run: Run) -> Tree:
    known = {"seconds", "versions", "resumed", "status", "command", "git_commit", "hardware"}
    return {
        **run.record.model_dump(include=known | {"seeds", "notes"}),
        "name": run.name,
        "config": run.config,
        "config_hash": run.record.identity or digest(run.config),
        "problems": run.problems,
        # A key of the schema that no run has known.
        "lost_seconds": None,
    }


def _data(run: Run) -> Tree:
    known = {"source", "fingerprint", "sample", "files", "kept", "held_back", "rejected", "splits"}
    return run.manifest.model_dump(include=known)


def _model(model: ModelResult) -> Tree:
    facts, calibration = model.files.facts, model.calibration
    known = {"file_bytes", "predict_images_per_second", "image_size", "input_scale", "weights_hash"}
    return {
        **facts.model_dump(include=known | {"reproducible", "varies"}),
        "name": model.name,
        "weights": model.weights,
        "parameters": model.parameters,
        "test": _evaluation(model.test),
        "val": _evaluation(model.val),
        "train": model.training and asdict(model.training),
        "history": [row.model_dump() for row in model.files.history],
        "best_epoch": facts.best.as_json() or None,
        "calibration": calibration
        and {
            "temperature": calibration.temperature.value,
            "note": calibration.temperature.note,
            "ece": calibration.ece,
            "loss": calibration.loss,
        },
        "seeds": _spread(model.seeds),
        "exports": {name: export.as_json() for name, export in model.files.exports.items()},
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


def _sweep(sweep: Sweep) -> Tree:
    trials = [trial.model_dump(exclude={"history"}) for trial in sweep.trials]
    return {"best": sweep.best and sweep.best.as_json(), "seconds": sweep.seconds, "trials": trials}


def _plain(value: object) -> object:
    """Tuples as lists, and ``null`` for a loss that became NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
