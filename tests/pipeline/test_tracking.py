"""``--track mlflow`` against a real MLflow server, one that is away, and one that is not there."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from catdog.config import Config
from catdog.config.tracking import TrackingSettings
from catdog.errors import UserError
from catdog.pipeline import tracking
from catdog.pipeline.session import Session
from catdog.pipeline.tracking import check_tracking, flat, tracked
from catdog.presets import sample
from catdog.runs import RunDirectory
from tests.mlflow_server import Server
from tests.ports import free_port

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("mlflow")
    made = Server(tmp_path_factory.mktemp("mlflow"), free_port())
    made.start()
    yield made
    made.stop()


@pytest.fixture
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """What tracking sets in the environment is taken back, and waits are short."""
    for name, value in tracking.BOUNDS.items():
        monkeypatch.setenv(name, value)


def config_for(tmp_path: Path, uri: str, **changes: Any) -> Config:
    settings = TrackingSettings(to="mlflow", uri=uri, experiment=tmp_path.name)
    base = {"storage": str(tmp_path), "name": "run", "tracking": settings}
    return sample().model_copy(update=base | changes)


def epoch(session: Session, number: int) -> None:
    row = {"loss": 1 / number, "val_loss": 2 / number, "val_accuracy": 0.5, "phase": "scratch"}
    session.events.add("epoch", model="base_cnn", epoch=number, epochs=4, **row)


REPORT = {
    "models": [{"name": "base_cnn", "test": {"accuracy": 0.75, "loss": 0.5, "auc": None}}],
    "ensembles": [{"name": "base_cnn+tta", "test": {"accuracy": 0.8}}],
}


def work(config: Config, *epochs: int, report: bool = False, fails: bool = False) -> None:
    """One session on a run: these epochs and, where asked for, a report or a failure."""
    run = RunDirectory.of(config)
    with Session.of(run, config, {"ray": "2.60.0"}) as session, tracked(config, run, session):
        for number in epochs:
            epoch(session, number)
        if fails:
            raise RuntimeError("stopped here")
        if report:
            session.finish()
            (run.root / "report.json").write_json(REPORT)
            (run.root / "report.html").write_text("<p>report</p>")


def steps(client: Any, run: Any) -> list[int]:
    return [m.step for m in client.get_metric_history(run.info.run_id, "base_cnn/val_loss")]


def test_a_run_is_tracked_over_two_sessions_and_no_epoch_twice(
    server: Server, tmp_path: Path, bounds: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(tmp_path, server.uri)
    with pytest.raises(RuntimeError, match="stopped here"):
        work(config, 1, 2, fails=True)
    client, first = server.only_run(tmp_path.name)
    assert first.info.status == "FAILED"

    more = config.scratch.model_copy(update={"epochs": 9})
    # Epoch 2 is trained again where its checkpoint was damaged.
    work(config_for(tmp_path, server.uri, scratch=more), 2, 3, report=True)
    client, done = server.only_run(tmp_path.name)
    assert (done.info.run_id, done.info.status) == (first.info.run_id, "FINISHED")
    assert steps(client, done) == [1, 2, 3]
    assert done.data.metrics["base_cnn/loss"] == pytest.approx(1 / 3)
    assert done.data.metrics["base_cnn/test_accuracy"] == 0.75
    assert done.data.metrics["base_cnn_tta/test_accuracy"] == 0.8
    assert done.data.params["scratch.learning_rate"] == str(config.scratch.learning_rate)
    assert done.info.run_name == "run"
    assert done.data.tags["version.ray"] == "2.60.0"
    assert done.data.tags["asked.epochs"] == "9"
    assert [file.path for file in client.list_artifacts(done.info.run_id)] == ["report.html"]
    assert "note:" not in capsys.readouterr().out


def test_a_server_that_goes_away_is_one_line_and_gets_the_rest_when_it_is_back(
    server: Server, tmp_path: Path, bounds: None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for(tmp_path, server.uri)
    run = RunDirectory.of(config)
    with Session.of(run, config, {}) as session, tracked(config, run, session):
        epoch(session, 1)
        server.stop()
        began = time.monotonic()
        for number in (2, 3, 4):
            epoch(session, number)
        assert time.monotonic() - began < 15
        server.start()
    client, done = server.only_run(tmp_path.name)
    assert steps(client, done) == [1, 2, 3, 4]
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("note: MLflow at") for line in printed) == 1
    assert printed[-1].startswith("MLflow answers again")


def test_a_server_that_is_not_there_costs_a_line_and_seconds(
    tmp_path: Path, bounds: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    config = config_for(tmp_path, f"http://127.0.0.1:{free_port()}")
    began = time.monotonic()
    work(config, 1, 2)
    assert time.monotonic() - began < 20
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "MLflow" in line]
    assert "which goes on" in line
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["sessions"]) == 1


@pytest.mark.parametrize(
    "uri, expected",
    [(None, "MLFLOW_TRACKING_URI"), ("sqlite:///here.db", "not the address of a server")],
)
def test_it_must_be_known_where_to_track(
    uri: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=expected):
        check_tracking(TrackingSettings(to="mlflow", uri=uri))


def test_a_package_that_is_missing_is_one_line_before_any_work(
    project: Path, tmp_path: Path
) -> None:
    script = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'mlflow' else find(name, *a)\n"
        f"sys.path.insert(0, {str(project)!r})\n"
        "sys.argv = ['jobs/train.py', '--track', 'mlflow', '--storage', "
        f"{str(tmp_path / 'runs')!r}]\n"
        f"import runpy; runpy.run_path({str(project / 'jobs/train.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "pip install --constraint constraints.txt --editable '.[mlflow]'" in line
    assert not (tmp_path / "runs").exists()


def test_tracking_does_not_make_another_run(tmp_path: Path) -> None:
    assert config_for(tmp_path, "http://a").identity == config_for(tmp_path, "http://b").identity


def test_settings_are_named_by_their_path() -> None:
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": None})) == {"a.b": 1, "a.c": {}, "d": None}


def test_a_password_in_the_address_is_not_shown() -> None:
    uri = "ftp://somebody:hidden@example.org/mlflow"
    with pytest.raises(UserError, match=r"ftp://example\.org/mlflow") as caught:
        check_tracking(TrackingSettings(to="mlflow", uri=uri))
    assert "hidden" not in str(caught.value)
