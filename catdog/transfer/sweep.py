"""Ray Tune over the hyperparameters of fine-tuning.

A trial is a Ray Train run that reports every epoch; ASHA stops the poor ones. The points are drawn
beforehand from the seed, and each trial's outcome is a file: the same command after an interruption
runs only what is missing, and a trial that was under way goes on from its own checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catdog.config import SweepSettings
from catdog.errors import RunFailed
from catdog.runs import RunDirectory
from catdog.storage import Location
from catdog.training.job import TrainingJob
from catdog.training.trainer import Workers, make_trainer, root_cause

#: What a trial holds beside its workers. Not a CPU: on two cores that would starve the workers it
#: waits for; and not nothing, which Tune refuses.
TRIAL_RESOURCES = {"memory": 100e6}

METRIC = "val_accuracy"


@dataclass(frozen=True)
class Trial:
    """One point of the search space and the training that tries it."""

    id: str
    config: dict[str, Any]
    job: TrainingJob


def draw_points(space: SweepSettings, defaults: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """``space.trials`` points: the defaults first, then random ones; the same for the same seed.

    More trials keep the points that fewer had. Keys not in ``defaults`` are left out.
    """
    import numpy as np

    points = [dict(defaults)]
    for index in range(1, space.trials):
        generator = np.random.default_rng([seed, index])
        point = {
            "learning_rate": _log_uniform(generator, *space.learning_rate),
            "unfrozen_blocks": _pick(generator, space.unfrozen_blocks),
            "dropout": _pick(generator, space.dropout),
            "weight_decay": _log_uniform(generator, *space.weight_decay),
        }
        points.append({key: value for key, value in point.items() if key in defaults})
    return points[: space.trials]


def _log_uniform(generator: Any, low: float, high: float) -> float:
    return float(f"{math.exp(generator.uniform(math.log(low), math.log(high))):.3g}")


def _pick(generator: Any, choices: Sequence[Any]) -> Any:
    return choices[int(generator.integers(len(choices)))]


def run_sweep(
    trials: Sequence[Trial],
    settings: SweepSettings,
    workers: Workers,
    concurrent: int,
    run: RunDirectory,
    on_result: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Run what is missing of ``trials``; returns the content of ``trials.json``.

    ``on_result`` gets a dict for every epoch of every trial: id, config and the epoch's row.

    Raises:
        RunFailed: no trial came to a result.
    """
    folder = run.sweep(trials[0].job.name)
    missing = [trial for trial in trials if not _record_of(folder, trial).exists()]
    if missing:
        _tune(missing, settings, workers, concurrent, folder, on_result)
    records = [_record_of(folder, trial).read_json() for trial in trials]
    ranked = sorted(
        (record for record in records if record["val_accuracy"] is not None),
        key=lambda record: (-record["val_accuracy"], record["val_loss"]),
    )
    if not ranked:
        raise RunFailed(f"no trial of the sweep came to a result: {records[0]['error']}")
    result = {
        "trials": records,
        "best": {key: ranked[0][key] for key in ("id", "config", "val_accuracy")},
        "seconds": sum(record["seconds"] for record in records),
    }
    (folder / "trials.json").write_json(result)
    return result


def _record_of(folder: Location, trial: Trial) -> Location:
    return folder / "trials" / f"{trial.id}.json"


def _tune(
    trials: Sequence[Trial],
    settings: SweepSettings,
    workers: Workers,
    concurrent: int,
    folder: Location,
    on_result: Callable[[dict[str, Any]], None],
) -> None:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    by_id = {trial.id: trial for trial in trials}
    # A failed trial is a result; it is not repeated.
    alone = replace(workers, max_restarts=0)

    def run_trial(config: dict[str, Any]) -> None:
        _run_trial(by_id[config["trial"]].job, alone, folder)

    tuner = tune.Tuner(
        tune.with_resources(run_trial, TRIAL_RESOURCES),
        param_space={"trial": tune.grid_search([trial.id for trial in trials])},
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            scheduler=ASHAScheduler(
                # Above the epochs: at max_t Tune would kill trials that end by themselves.
                max_t=max(trial.job.settings.epochs for trial in trials) + 1,
                grace_period=settings.grace_epochs,
                reduction_factor=settings.reduction_factor,
            ),
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=(folder / "ray").uri,
            callbacks=[_recorder(by_id, folder, on_result)],
            verbose=0,
        ),
    )
    tuner.fit()


def _run_trial(job: TrainingJob, workers: Workers, folder: Location) -> None:
    """Runs in Tune's trial actor: one Ray Train run, whose epochs Tune sees."""
    import ray.train
    from ray import tune
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    trial = tune.get_context().get_trial_id()
    run_config = ray.train.RunConfig(
        name=f"trial-{trial}",
        storage_path=(folder / "ray").uri,
        callbacks=[TuneReportCallback(), _group_noter(folder / "groups" / trial)],
    )
    try:
        result = make_trainer([job], workers, run_config).fit()
    except TrainingFailedError as error:
        raise RunFailed(root_cause(error)) from error
    if "failure" in (result.return_value or {}):
        raise RunFailed(result.return_value["failure"])


def _group_noter(target: Location) -> Any:
    """Notes the worker group's placement group, which outlives a trial that Tune stops."""
    from ray.train.v2._internal.execution.callback import WorkerGroupCallback

    class GroupNoter(WorkerGroupCallback):
        def after_worker_group_start(self, worker_group: Any) -> None:
            handle = worker_group._worker_group_state.placement_group_handle
            target.write_text(handle.placement_group.id.hex())

    return GroupNoter()


def _recorder(
    points: dict[str, Trial], folder: Location, on_result: Callable[[dict[str, Any]], None]
) -> Any:
    """Writes each trial's record at its end and frees what it leaves reserved."""
    from ray import tune

    class Recorder(tune.Callback):
        def __init__(self) -> None:
            self.rows: dict[str, list[dict[str, Any]]] = {}

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
        ) -> None:
            ours = points[trial.config["trial"]]
            row = {key: result.get(key) for key in ROW_KEYS}
            self.rows.setdefault(ours.id, []).append(row)
            on_result({"id": ours.id, "config": ours.config, **row})

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            ours = points[trial.config["trial"]]
            epochs = len(self.rows.get(ours.id, []))
            status = "finished" if epochs >= ours.job.settings.epochs else "stopped"
            self._close(trial, ours, status, None)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            # The file on the driver's disk; the copy in storage may come later.
            lines = Path(trial.error_file).read_text().strip().splitlines()
            cause = lines[-1].partition("RunFailed: ")[2] or lines[-1]
            self._close(trial, points[trial.config["trial"]], "failed", cause)

        def _close(self, trial: Any, ours: Trial, status: str, error: str | None) -> None:
            _free_group(folder / "groups" / trial.trial_id)
            rows = self.rows.get(ours.id, [])
            best = max(rows, key=lambda r: (r["val_accuracy"], -r["val_loss"]), default=None)
            record = {
                "id": ours.id,
                "config": ours.config,
                "val_accuracy": best and best["val_accuracy"],
                "val_loss": best and best["val_loss"],
                "epochs": len(rows),
                "seconds": float(trial.last_result.get("time_total_s", 0.0)),
                "status": status,
                "error": error,
                "history": rows,
            }
            _record_of(folder, ours).write_json(record)
            # The record is what counts; the weights of a trial are not used again.
            (Location.of(ours.job.output) / "checkpoints").delete_tree()

    return Recorder()


ROW_KEYS = (
    "phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy",
    "seconds", "images_per_second", "learning_rate",
)  # fmt: skip


def _free_group(note: Location) -> None:
    """Remove the placement group that Ray Train leaves when Tune stops a trial.

    Ray's own cleaner asks the dashboard, which is not there on a local cluster, so the workers'
    cores would stay reserved and the next trial would wait for ever.
    """
    from ray._raylet import PlacementGroupID
    from ray.util.placement_group import PlacementGroup, remove_placement_group

    if not note.exists():
        return
    remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(note.read_text()))))
