"""``--track mlflow``: a run's settings, epochs, test results and report on an MLflow server.

The run directory stays the truth. What MLflow is told is derived from ``events.jsonl`` and
``report.json``, and the server is asked what it has: so an interrupted run goes on as the same
MLflow run, an epoch is never there twice, and what was missed while the server was away is sent
when the run ends or goes on. No failure of the server stops a run or holds it up for long.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from typing import Any

from catdog import console
from catdog.config import Config
from catdog.config.tracking import TrackingSettings
from catdog.errors import UserError, install_command
from catdog.pipeline.session import Session
from catdog.redact import without_secrets
from catdog.runs import RunDirectory, asked
from catdog.runs.records import Epoch, Event

#: MLflow's own defaults wait 120 s for an answer and ask eight times: minutes for each epoch.
BOUNDS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    # It would tell its makers of this use, and print a line of its own.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}

#: What of an epoch's or a probe's row is a metric.
MEASURED = set(Epoch.model_fields) - {"phase", "epoch"}
#: What of a test's result is a metric.
TESTED = ("accuracy", "loss", "auc", "ece")
#: MLflow takes so many parameters or tags at once, and values of so many characters.
AT_ONCE = 100
LONGEST = 500


def check_tracking(settings: TrackingSettings) -> None:
    """Before any work: the package is there, and it is known where to track.

    Raises:
        UserError: it is not.
    """
    if settings.to is None:
        return
    if find_spec("mlflow") is None:
        raise UserError(f"--track mlflow needs the package mlflow: {install_command('mlflow')}")
    uri = _uri(settings)
    if not uri:
        raise UserError(
            "--track mlflow: track where? Set MLFLOW_TRACKING_URI=http://…, "
            "or give --set tracking.uri=http://…"
        )
    if not uri.startswith(("http://", "https://", "databricks")):
        raise UserError(
            f"--track mlflow: {_shown(settings)} is not the address of a server (http://…)"
        )


@contextmanager
def tracked(config: Config, run: RunDirectory, session: Session) -> Iterator[None]:
    """What happens within is told to MLflow, where the settings ask for it."""
    if config.tracking.to is None:
        yield
        return
    tracker = Tracker(config, run)
    session.events.heard = tracker.hear
    tracker.begin(session.events.recorded())
    try:
        yield
    except KeyboardInterrupt:
        tracker.end("KILLED")
        raise
    except BaseException:
        tracker.end("FAILED")
        raise
    tracker.end("FINISHED")


class Tracker:
    """One MLflow run for one run directory; ``run.json`` keeps its id."""

    def __init__(self, config: Config, run: RunDirectory) -> None:
        self.config = config
        self.run = run
        self._client: Any = None
        self._id = ""
        self._rows: list[Event] = []
        self._sent: set[tuple[str, int]] = set()
        self._away = False

    def begin(self, events: Sequence[Event]) -> None:
        """``events`` of earlier sessions, which may not have told of them."""
        for event in events:
            self._remember(event)
        self._try(self._send)
        if not self._away:
            uri, name = _shown(self.config.tracking), self.config.tracking.experiment
            console.say(f"tracked by MLflow: {uri}, experiment {name}, run {self._id}")

    def hear(self, event: Event) -> None:
        """One event of the run, as it is written down."""
        if self._remember(event) and not self._away:
            self._try(self._send)

    def end(self, status: str) -> None:
        """``status`` is MLflow's: FINISHED, FAILED or KILLED. Tries once more after a failure."""
        self._try(lambda: self._conclude(status))

    def _remember(self, event: Event) -> bool:
        if event.event not in ("epoch", "probe"):
            return False
        name = event.model + ("/probe" if event.event == "probe" else "")
        self._rows.append(event.model_copy(update={"model": name}))
        return True

    def _try(self, act: Callable[[], None]) -> None:
        """``act``, whose failure is one line for the whole session."""
        try:
            act()
        except Exception as error:
            if not self._away:
                cause = next(iter(str(error).strip().splitlines()), type(error).__name__)
                console.warn(
                    f"MLflow at {_shown(self.config.tracking)} cannot be told of this run, which "
                    f"goes on: {without_secrets(cause)[:200]}"
                )
            self._away = True

    def _send(self) -> None:
        """All rows that the server does not have."""
        if not self._id:
            self._open()
        from mlflow.entities import Metric

        metrics = []
        for row in self._rows:
            if (row.model, row.epoch) in self._sent:
                continue
            at = int(datetime.fromisoformat(row.time).timestamp() * 1000)
            for key, value in row.model_dump(include=MEASURED, exclude_unset=True).items():
                if value is not None:
                    metrics.append(Metric(f"{row.model}/{key}", float(value), at, row.epoch))
        for start in range(0, len(metrics), AT_ONCE):
            self._client.log_batch(self._id, metrics=metrics[start : start + AT_ONCE])
        self._sent |= {(row.model, row.epoch) for row in self._rows}
        self._rows.clear()

    def _open(self) -> None:
        """The MLflow run of ``run.json``, or a new one."""
        for name, value in BOUNDS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(_uri(self.config.tracking))
        found = self._known()
        if found is None:
            experiment = self.config.tracking.experiment
            known = self._client.get_experiment_by_name(experiment)
            number = known.experiment_id if known else self._client.create_experiment(experiment)
            found = self._client.create_run(number, run_name=self.config.run_name)
            self.run.update(mlflow=found.info.run_id)
        run_id = found.info.run_id
        self._client.update_run(run_id, status="RUNNING")
        self._client.log_batch(run_id, tags=_entries("RunTag", self._tags()))
        self._log_settings(run_id, found.data.params)
        models = {row.model for row in self._rows}
        for model in models & {key.rpartition("/")[0] for key in found.data.metrics}:
            history = self._client.get_metric_history(run_id, f"{model}/val_loss")
            self._sent |= {(model, metric.step) for metric in history}
        self._id = run_id

    def _known(self) -> Any:
        """The run that an earlier session made; ``None`` where this server has none such."""
        from mlflow.exceptions import MlflowException

        run_id = self.run.read().mlflow
        if not run_id:
            return None
        try:
            found = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return found if found.info.lifecycle_stage == "active" else None

    def _tags(self) -> dict[str, str]:
        record = self.run.read()
        tags = {"run": self.config.run_name, "directory": self.run.root.uri}
        tags |= {f"version.{name}": text for name, text in record.versions.items()}
        # A parameter cannot be changed, and these may grow from one command to the next.
        tags |= {f"asked.{name}": str(count) for name, count in asked(self.config).items()}
        if record.git_commit:
            tags["git_commit"] = record.git_commit
        return {name: without_secrets(text) for name, text in tags.items()}

    def _log_settings(self, run_id: str, known: Mapping[str, str]) -> None:
        tree = without_secrets(self.config.model_dump(mode="json", exclude={"tracking"}))
        entries = {key: str(value)[:LONGEST] for key, value in flat(tree) if key not in known}
        params = _entries("Param", entries)
        for start in range(0, len(params), AT_ONCE):
            self._client.log_batch(run_id, params=params[start : start + AT_ONCE])

    def _conclude(self, status: str) -> None:
        self._send()
        if status == "FINISHED" and (self.run.root / "report.json").exists():
            for name, value in tested((self.run.root / "report.json").read_json()):
                self._client.log_metric(self._id, name, value)
            self._send_report()
        self._client.set_terminated(self._id, status)
        if self._away:
            console.say("MLflow answers again and has been told of the whole run")

    def _send_report(self) -> None:
        """The report as an artifact; a server may keep none, or where this process cannot write."""
        text = (self.run.root / "report.html").read_text()
        try:
            self._client.log_text(self._id, text, "report.html")
        except Exception as error:
            console.warn(f"MLflow does not take report.html: {type(error).__name__}")


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``("a.b", 1)``."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def tested(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The results on test photos in ``report.json``, by MLflow's names: ``base_cnn/test_auc``.

    MLflow takes no ``+``: ``base_cnn+tta`` is ``base_cnn_tta`` there.
    """
    for entry in [*report["models"], *report["ensembles"]]:
        name = re.sub(r"[^\w. -]", "_", entry["name"], flags=re.ASCII)
        for key in TESTED:
            value = entry["test"].get(key)
            if value is not None:
                yield f"{name}/test_{key}", float(value)


def _entries(kind: str, values: Mapping[str, str]) -> list[Any]:
    import mlflow.entities

    return [getattr(mlflow.entities, kind)(key, value) for key, value in values.items()]


def _shown(settings: TrackingSettings) -> str:
    """The server for people; a URI may carry a password."""
    return str(without_secrets(_uri(settings)))


def _uri(settings: TrackingSettings) -> str:
    return settings.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
