"""Ray Tune over the hyperparameters of fine-tuning.

A trial leases a worker group of Ray Train, which reports every epoch; ASHA stops the poor ones.
Each trial's outcome is a file: the same command after an interruption runs only what is missing,
and a trial that was under way goes on from its own checkpoint.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from catdog.config.sweep import SweepSettings
from catdog.errors import RunFailed
from catdog.runs.records import Epoch, Point, Training
from catdog.storage import Location
from catdog.training.checkpoints import CheckpointFolder
from catdog.training.job import DONE, TrainingJob
from catdog.training.on_worker import TrainTask
from catdog.training.pool import WorkerPool
from catdog.training.progress import Progress
from catdog.transfer.trials import TrialStore

#: What a trial holds beside its workers. Not a CPU: on two cores that would starve the workers it
#: waits for; and not nothing, which Tune refuses.
TRIAL_RESOURCES = {"memory": 100e6}

METRIC = "val_accuracy"

#: The training that tries a point, with its files below a folder.
JobOf = Callable[[Point, Location], TrainingJob]
OnEpoch = Callable[[str, Point, Epoch], None]


def sweep_fine_tuning(
    job_of: JobOf,
    trial_store: TrialStore,
    settings: SweepSettings,
    pool: WorkerPool,
    on_epoch: OnEpoch,
) -> None:
    """Run what is missing of the sweep's trials, as many at once as ``pool`` has groups.

    ``on_epoch`` is called with every epoch of every trial: its id, its point and the row.

    Raises:
        KeyboardInterrupt: Ctrl-C, at once; Tune's own handler would wait for all trials to save.
    """
    missing = trial_store.missing()
    if not missing:
        return
    from ray import tune

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    board, workers = pool.board, pool.workers

    def run_trial(config: dict[str, Any]) -> None:
        job = job_of(config["point"], trial_store.output(config["trial"]))
        _run_trial(TrainTask(job, workers.precision_of(job.name)), board)

    # Tune's own means to go on, which nobody uses, with whatever key the storage has in its URI:
    # they stay on this machine.
    with tempfile.TemporaryDirectory(prefix="catdog-tune-") as place:
        tuner = tune.Tuner(
            tune.with_resources(run_trial, TRIAL_RESOURCES),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=_proposer(trial_store, missing),
                num_samples=len(missing),
                scheduler=_halving(settings),
                max_concurrent_trials=pool.size,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=place,
                callbacks=[_recorder(trial_store, job_of, board, on_epoch)],
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


def _proposer(trial_store: TrialStore, keys: list[str]) -> Any:
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
            return {"trial": key, "point": trial_store.point(key)}

        def on_trial_complete(
            self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
        ) -> None:
            """The trial_store holds the outcome."""

        def save(self, checkpoint_path: str) -> None:
            """The trial_store is the state."""

        def restore(self, checkpoint_path: str) -> None:
            """The trial_store is the state."""

    return Proposer()


def _run_trial(task: TrainTask, board: Any) -> None:
    """Runs in Tune's trial actor: a worker group of the pool trains, Tune sees its epochs.

    Tune repeats a trial that raises, and cannot be told that only a lost process deserves it: the
    board gives the same outcome to who asks again.
    """
    import ray
    from ray import tune

    ticket = ray.get(board.submit.remote(task, task.job.output, True))
    heard = 0
    while (row := ray.get(board.next_row.remote(ticket, heard))) is not None:
        heard += 1
        tune.report(row.as_json())  # returns when Tune wants another epoch
        ray.get(board.go_on.remote(ticket, row.epoch))
    _, failure = ray.get(board.outcome.remote(ticket))
    if failure is not None:
        raise RunFailed(failure)


def _recorder(trial_store: TrialStore, job_of: JobOf, board: Any, on_epoch: OnEpoch) -> Any:
    """Writes each trial's record at its end and frees the worker group of one that was stopped."""
    import ray
    from ray import tune

    class Recorder(tune.Callback):
        def __init__(self) -> None:
            self.heard: dict[str, list[Epoch]] = {}

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any
        ) -> None:
            key, point = trial.config["trial"], trial.config["point"]
            # Tune adds facts of its own.
            row = Epoch(**{name: result[name] for name in Epoch.model_fields if name in result})
            self.heard.setdefault(key, []).append(row)
            on_epoch(key, point, row)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._close(trial, "stopped", None)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            self._close(trial, "failed", _cause(trial))

        def _close(self, trial: Any, status: str, error: str | None) -> None:
            key, point = trial.config["trial"], trial.config["point"]
            seconds = float((trial.last_result or {}).get("time_total_s", 0.0))
            done = trial_store.output(key) / DONE
            if status != "failed" and done.exists():
                rows, status = Training.fitted(done.read_json())[0].history, "finished"
            else:
                rows = self._rows(key, point)
            trial_store.close(key, point, rows, seconds, status, error)
            # The record is what counts; the weights of a trial are not used again.
            (trial_store.output(key) / "checkpoints").delete_tree()
            ray.get(board.stop.remote(trial_store.output(key).uri))

        def _rows(self, key: str, point: Point) -> list[Epoch]:
            """Each epoch once: those of earlier sessions, and a lost report's, as kept."""
            output = trial_store.output(key)
            identity = job_of(point, output).identity
            kept = CheckpointFolder(output / "checkpoints", identity, lambda _: None).latest()
            rows = [*(Progress.of(kept.meta).history if kept else ()), *self.heard.get(key, ())]
            by_epoch = {row.epoch: row for row in rows}
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
