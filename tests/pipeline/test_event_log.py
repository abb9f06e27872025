"""How far a training is: a bar on a terminal, lines in a log."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catdog.pipeline.event_log import EventLog
from catdog.runs import Events
from catdog.runs.messages import EpochEnded, FirstStep, Resumed, Started, Trained
from catdog.runs.records import Epoch, Training, TrainingFacts
from catdog.storage import Location

SCRIPT = """
import sys, time
from catdog.pipeline import event_log
from catdog.runs import Events
from catdog.runs.messages import EpochEnded, Step
from catdog.runs.records import Epoch
from catdog.storage import Location

event_log.TELL_EVERY_S = 0.2
event_log = event_log.EventLog(Events(Location.of(sys.argv[1])))
for number in (10, 20, 30):
    time.sleep(0.25)
    event_log(Step("base_cnn", 2, 3, number, 40, images_per_second=231.4, left_s=83.0))
time.sleep(0.3)
row = Epoch(epoch=2, seconds=60.0, loss=0.5, accuracy=0.75, val_loss=0.6, val_accuracy=0.7,
            images_per_second=230.0)
event_log(EpochEnded("base_cnn", 3, row))
event_log.close()
"""
EPOCH = "base_cnn epoch 2/3  loss 0.5000  accuracy 0.7500  val_loss 0.6000  val_accuracy 0.7000"


def command(tmp_path: Path) -> list[str]:
    return [sys.executable, "-c", SCRIPT, str(tmp_path / "events.jsonl")]


@pytest.mark.timeout(60)
def test_a_terminal_shows_a_bar_with_steps_speed_and_time_left(
    project: Path, tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        command(tmp_path), cwd=project, stdout=theirs, stderr=subprocess.PIPE, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.stderr is not None
        assert process.wait() == 0, process.stderr.read().decode()
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(r"base_cnn epoch 2/3 .* 75% +step 30/40  231 images/s  1:23 left", text), text
    assert EPOCH in text


@pytest.mark.timeout(60)
def test_a_log_gets_a_line_now_and_then_and_no_bar(project: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path), cwd=project, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines[0] == "base_cnn epoch 2/3  step 10/40  231 images/s  1:23 left"
    assert lines[-1].startswith(EPOCH)
    assert len(lines) == 4
    assert "\x1b" not in done.stdout


def test_the_wait_for_a_first_step_is_told_for_each_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = Events(Location.of(tmp_path / "events.jsonl"))
    event_log = EventLog(events, since=time.monotonic() - 31.0)
    event_log(FirstStep("base_cnn"))
    event_log(FirstStep("base_cnn"))  # in a group that was started again
    best, took = Epoch(epoch=1, val_accuracy=0.5), TrainingFacts(seconds=60.0)
    event_log(Trained("base_cnn", Training(best=best, train=took)))
    event_log(FirstStep("resnet50v2"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "base_cnn: first step 31 s after the start"
    assert lines[2] == "resnet50v2: first step 0 s after the end of base_cnn"
    noted = [event for event in map(json.loads, events.lines) if event["event"] == "first_step"]
    assert [(event["model"], event["after"]) for event in noted] == [
        ("base_cnn", "the start"),
        ("resnet50v2", "the end of base_cnn"),
    ]


def test_a_group_that_was_lost_before_its_first_checkpoint_is_told_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = Events(Location.of(tmp_path / "events.jsonl"))
    event_log = EventLog(events)
    start, stepped = Started("base_cnn", "scratch", 2, []), FirstStep("base_cnn")
    for message in (start, stepped, start._replace(workers=1), stepped):
        event_log(message)
    assert "base_cnn: again from the start with 1 worker" in capsys.readouterr().out
    for message in (start, Resumed("base_cnn", 2, 3, 0, 2, []), stepped):
        event_log(message)
    assert "again from the start" not in capsys.readouterr().out
    noted = [event for event in map(json.loads, events.lines) if event["event"] == "restart"]
    assert [event["epoch"] for event in noted] == [0, 2]


def test_an_epoch_that_no_driver_heard_of_is_recorded_once_when_the_run_goes_on(
    tmp_path: Path,
) -> None:
    rows = [
        Epoch(
            epoch=number, loss=0.5, accuracy=0.7, val_loss=0.6, val_accuracy=0.7,
            seconds=1.0, images_per_second=9.0,
        )
        for number in (1, 2, 3)
    ]  # fmt: skip
    first = Events(Location.of(tmp_path / "events.jsonl"))
    EventLog(first)(EpochEnded("base_cnn", 3, rows[0]))

    again = Events(first.target, list(first.lines))
    event_log = EventLog(again)
    event_log(Resumed("base_cnn", 2, 3, 0, 1, rows[:2]))
    event_log(EpochEnded("base_cnn", 3, rows[2]))
    event_log.record_epochs("base_cnn", 3, rows)
    noted = [json.loads(line) for line in again.lines]
    assert [event["epoch"] for event in noted if event["event"] == "epoch"] == [1, 2, 3]
    assert "history" not in noted[2]
