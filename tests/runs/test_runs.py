"""The run directory: claimed by one run, held by one command, never wiped."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from catdog import runs
from catdog.config import Config
from catdog.errors import RunFailed, UserError
from catdog.presets import sample
from catdog.runs import Events, RunDirectory, lease, leases
from catdog.storage import Location


def config_in(folder: Path, **changes: object) -> Config:
    return sample().model_copy(update={"storage": str(folder), "name": "mine", **changes})


def test_a_run_of_other_settings_is_refused(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    RunDirectory.of(config).claim(config)
    other = config_in(tmp_path, seed=1)
    with pytest.raises(UserError, match="other settings"):
        RunDirectory.of(other).claim(other)


def test_the_settings_of_a_run_are_written_for_the_next_command(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    RunDirectory.of(config).claim(config)
    assert "preset: sample" in (tmp_path / "mine" / "config.yaml").read_text()


def test_a_finished_run_is_finished_until_more_is_asked_for(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    run = RunDirectory.of(config)
    run.claim(config)
    assert not run.is_finished(config)
    run.update(status="finished", asked=runs.asked(config))
    (run.root / "report.html").write_text("")
    assert run.is_finished(config)
    more = config.scratch.model_copy(update={"epochs": config.scratch.epochs + 1})
    assert not run.is_finished(config.model_copy(update={"scratch": more}))


def test_events_are_appended_across_sessions(tmp_path: Path) -> None:
    run = RunDirectory(Location.of(tmp_path))
    Events.open(run).add("begin", command="a")
    Events.open(run).add("resume", command="b")
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["begin", "resume"]


def test_a_second_command_is_refused_while_the_first_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.2)
    monkeypatch.setattr(leases, "LEASE_S", 5.0)
    run = RunDirectory(Location.of(tmp_path))
    said: list[str] = []
    with (
        lease(run, say=said.append),
        pytest.raises(UserError, match="in use"),
        lease(run, say=said.append),
    ):
        pass
    assert "may be in use" in said[0]
    assert not (tmp_path / "lease.json").exists()


def test_a_command_whose_run_was_taken_over_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.1)
    run = RunDirectory(Location.of(tmp_path))
    ended, file = threading.Event(), tmp_path / "lease.json"

    def overtake() -> None:
        while not (file.exists() and json.loads(file.read_text())["beat"] >= 0):
            if ended.wait(0.01):
                return
        # As the other command does, again and again: the first may be overwritten by a renewal.
        for beat in itertools.count():
            if ended.wait(0.15):
                return
            (run.root / "lease.json").write_json({"holder": "other", "beat": beat})

    other = threading.Thread(target=overtake)
    other.start()
    try:
        with pytest.raises(RunFailed, match="taken over"), lease(run):
            time.sleep(20)
    finally:
        ended.set()
        other.join()
    assert json.loads(file.read_text())["holder"] == "other"


def test_of_two_commands_that_start_at_once_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has seen no lease either, and writes its own after this one."""
    file = tmp_path / "lease.json"
    other = json.dumps({"holder": "other", "beat": -1})
    monkeypatch.setattr(leases, "SETTLE_S", 0)
    monkeypatch.setattr(leases.time, "sleep", lambda seconds: file.write_text(other))
    with (
        pytest.raises(UserError, match="in use by another command"),
        lease(RunDirectory(Location.of(tmp_path))),
    ):
        pytest.fail("both work on it")
    assert file.read_text() == other, "the other's lease is gone"


def test_a_command_that_is_stopped_while_it_takes_the_lease_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(seconds: float) -> None:
        assert (tmp_path / "lease.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(leases.time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt), lease(RunDirectory(Location.of(tmp_path))):
        pytest.fail("it was interrupted")
    assert not (tmp_path / "lease.json").exists()


def hold_for_ever(path: str) -> None:
    with lease(RunDirectory(Location.of(path))):
        time.sleep(60)


def test_the_lease_of_a_killed_command_runs_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_S", 2.0)
    holder = multiprocessing.get_context("spawn").Process(
        target=hold_for_ever, args=(str(tmp_path),)
    )
    holder.start()
    deadline = time.monotonic() + 30
    while not (tmp_path / "lease.json").exists():
        assert time.monotonic() < deadline, "the holder never took the lease"
        time.sleep(0.05)
    holder.kill()
    holder.join()
    with lease(RunDirectory(Location.of(tmp_path)), say=lambda line: None):
        assert (tmp_path / "lease.json").exists()
