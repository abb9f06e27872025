"""Ray Tune over the hyperparameters of fine-tuning.

A trial is a Ray Train run that reports every epoch; ASHA stops the poor ones. Each trial's outcome
is a file: the same command after an interruption runs only what is missing, and a trial that was
under way goes on from its own checkpoint.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catdog.errors import RunFailed
from catdog.storage import Location
from catdog.sweep_settings import SweepSettings
from catdog.training.causes import root_cause, was_lost
from catdog.training.checkpoints import CheckpointFolder
from catdog.training.job import DONE, TrainingJob
from catdog.training.trainer import STARTS, make_trainer
from catdog.training.workers import Workers
from catdog.transfer.search import Point
from catdog.transfer.trials import Ledger

#: What a trial holds beside its workers. Not a CPU: on two cores that would starve the workers it
#: waits for; and not nothing, which Tune refuses.
TRIAL_RESOURCES = {"memory": 100e6}

METRIC = "val_accuracy"

#: The training that tries a point, with its files below a folder.
JobOf = Callable[[Point, Location], TrainingJob]


@dataclass(frozen=True)
class Cluster:
    """What the trials run on: the workers of each, and how many trials at once."""

    workers: Workers
    concurrent: int


def sweep_fine_tuning(
    job_of: JobOf,
    ledger: Ledger,
    settings: SweepSettings,
    cluster: Cluster,
    on_result: Callable[[dict[str, Any]], None],
) -> None:
    """Run what is missing of the ledger's trials.

    ``on_result`` gets a dict for every epoch of every trial: id, config and the epoch's row.

    Raises:
        KeyboardInterrupt: Ctrl-C, at once; Tune's own handler would wait for all trials to save.
    """
    missing = ledger.missing()
    if not missing:
        return
    from ray import tune

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    folder = ledger.folder

    def run_trial(config: dict[str, Any]) -> None:
        _run_trial(job_of(config["point"], ledger.output(config["trial"])), cluster.workers, folder)

    # Tune's own means to go on, which nobody uses, with whatever key the storage has in its URI:
    # they stay on this machine.
    with tempfile.TemporaryDirectory(prefix="catdog-tune-") as place:
        tuner = tune.Tuner(
            tune.with_resources(run_trial, TRIAL_RESOURCES),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=_proposer(ledger, missing),
                num_samples=len(missing),
                scheduler=_halving(settings),
                max_concurrent_trials=cluster.concurrent,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=place,
                callbacks=[_recorder(ledger, job_of, on_result)],
                # For a trial's own process, which may be on the lost node.
                failure_config=tune.FailureConfig(max_failures=1),
                verbose=0,
            ),
        )
        tuner.fit()


def _halving(settings: SweepSettings) -> Any:
    """ASHA over epochs, which a trial started again counts on; Tune's own count begins anew."""
    from ray.tune.schedulers import ASHAScheduler

    class Halving(ASHAScheduler):
        def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
            if result["epoch"] >= settings.epochs:
                # It ends by itself; to kill it now would only cost its last words.
                return str(self.CONTINUE)
            return str(super().on_trial_result(tune_controller, trial, result))

    return Halving(
        time_attr="epoch",
        max_t=settings.epochs,
        grace_period=min(settings.grace_epochs, settings.epochs),
        reduction_factor=settings.reduction_factor,
    )


def _proposer(ledger: Ledger, keys: list[str]) -> Any:
    """Gives Tune the points of trials ``keys`` when it has room, so that TPE can learn."""
    from ray.tune.search import Searcher

    class Proposer(Searcher):
        def __init__(self) -> None:
            super().__init__(metric=METRIC, mode="max")
            self.waiting = list(keys)

        def suggest(self, trial_id: str) -> dict[str, Any] | str:
            if not self.waiting:
                return str(Searcher.FINISHED)
            key = self.waiting.pop(0)
            return {"trial": key, "point": ledger.point(key)}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            """The ledger holds the outcome."""

        def save(self, checkpoint_path: str) -> None:
            """The ledger is the state."""

        def restore(self, checkpoint_path: str) -> None:
            """The ledger is the state."""

    return Proposer()


def _run_trial(job: TrainingJob, workers: Workers, folder: Location) -> None:
    """Runs in Tune's trial actor: one Ray Train run, whose epochs Tune sees.

    Tune repeats it when it raises, and cannot be told that only a lost process deserves it: so what
    failed by itself is noted, and fails again at once.
    """
    import ray.train
    from ray import tune
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.tune.integration.ray_train import TuneReportCallback

    from catdog.training.groups import GroupNote, release

    trial = tune.get_context().get_trial_id()
    failed = Location.of(job.output) / f"failed-{trial}.txt"
    if failed.exists():
        raise RunFailed(failed.read_text())
    # Of a first attempt whose process was lost; its workers' cores would stay reserved.
    release(folder / "groups" / trial)
    run_config = ray.train.RunConfig(
        name=f"trial-{trial}",
        **(folder / "ray").for_ray(),
        callbacks=[TuneReportCallback(), GroupNote(folder / "groups" / trial)],
        failure_config=ray.train.FailureConfig(controller_failure_limit=STARTS),
    )
    # Ray Train's own restarts would repeat what failed by itself too.
    alone = replace(workers, max_restarts=0)
    cause = None
    for left in reversed(range(1 + workers.max_restarts)):
        try:
            result = make_trainer([job], alone, run_config).fit()
            cause = (result.return_value or {}).get("failure")
            break
        except TrainingFailedError as error:
            cause = root_cause(error)
            if not left or not was_lost(error):
                break
    if cause:
        failed.write_text(cause)
        raise RunFailed(cause)


def _recorder(ledger: Ledger, job_of: JobOf, on_result: Callable[[dict[str, Any]], None]) -> Any:
    """Writes each trial's record at its end and frees what it leaves reserved."""
    from ray import tune

    from catdog.training.groups import release

    class Recorder(tune.Callback):
        def __init__(self) -> None:
            self.heard: dict[str, list[dict[str, Any]]] = {}

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
        ) -> None:
            key, point = trial.config["trial"], trial.config["point"]
            row = {name: result.get(name) for name in ROW_KEYS}
            self.heard.setdefault(key, []).append(row)
            on_result({"id": key, "config": point, **row})

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._close(trial, "stopped", None)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._close(trial, "failed", _cause(trial))

        def _close(self, trial: Any, status: str, error: str | None) -> None:
            release(ledger.folder / "groups" / trial.trial_id)
            key, point = trial.config["trial"], trial.config["point"]
            seconds = float((trial.last_result or {}).get("time_total_s", 0.0))
            done = ledger.output(key) / DONE
            if status != "failed" and done.exists():
                rows, status = done.read_json()["history"], "finished"
            else:
                rows = self._rows(key, point)
            ledger.close(key, point, rows, seconds, status, error)
            # The record is what counts; the weights of a trial are not used again.
            (ledger.output(key) / "checkpoints").delete_tree()

        def _rows(self, key: str, point: Point) -> list[dict[str, Any]]:
            """Each epoch once: those of earlier sessions, and a lost report's, as kept."""
            output = ledger.output(key)
            identity = job_of(point, output).identity
            kept = CheckpointFolder(output / "checkpoints", identity, lambda _: None).latest()
            rows = [*(kept.meta["history"] if kept else ()), *self.heard.get(key, ())]
            by_epoch = {row["epoch"]: row for row in rows}
            return [by_epoch[epoch] for epoch in sorted(by_epoch)]

    return Recorder()


def _cause(trial: Any) -> str:
    """Why a trial failed, in one line; from the driver's disk: the storage's copy comes later."""
    try:
        lines = Path(trial.error_file).read_text().strip().splitlines()
    except (OSError, TypeError):
        lines = []
    if not lines:
        return "its process ended: killed, or out of memory"
    return lines[-1].partition("RunFailed: ")[2] or lines[-1]


ROW_KEYS = (
    "phase", "epoch", "loss", "accuracy", "val_loss", "val_accuracy",
    "seconds", "images_per_second", "learning_rate",
)  # fmt: skip
