"""While a command works, something moves: on a terminal a spinner, in a log a line."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = """
import sys, time
from catdog import console
from catdog.console import activity
from catdog.cli.command import command

activity.BEAT_S = 0.4

def main(arguments):
    console.doing("before anything is said")
    time.sleep(0.7)
    console.stage("training", "two workers")
    time.sleep(1.1)
    with console.progress("photos", 10.0) as advance:
        advance(3, "3 of 10")
        time.sleep(0.7)
    console.say("done")

sys.exit(command(main, []))
"""


def test_a_log_that_would_be_silent_says_what_is_done_and_for_how_long(project: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=project, capture_output=True, text=True, check=True
    )
    first, *beats, last = done.stdout.splitlines()
    assert (first, last) == ("── training  two workers", "done")
    assert re.fullmatch(r"… training, \d s so far", beats[0])
    assert any(re.fullmatch(r"… photos: 3 of 10, \d s so far", beat) for beat in beats)
    assert all(beat.startswith("… ") for beat in beats)
    assert re.match(r"… before anything is said, \d s so far\n", done.stderr)


@pytest.mark.timeout(60)
def test_a_terminal_shows_a_spinner_that_leaves_nothing_behind(project: Path) -> None:
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=project, stdout=theirs, env=environment
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.wait() == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert re.search(r"[⠀-⣿] training 0:00:0[01]", text), text
    assert re.search(r"photos .* 30%", text), text
    assert "so far" not in text
    assert "done" in text
    assert seen.endswith(b"\x1b[2K"), "the spinner's line is not cleared"


def test_the_first_line_of_a_job_comes_before_what_takes_time_is_imported(project: Path) -> None:
    script = (
        "import sys, builtins\n"
        "sys.argv = ['jobs/train.py', '--data', '/no/photos']\n"
        "shown = builtins.__import__\n"
        "def checked(name, *rest):\n"
        "    if name.partition('.')[0] in ('ray', 'cv2', 'pandas', 'tensorflow'):\n"
        "        sys.stdout.flush(); print('FIRST IMPORT', name)\n"
        "        builtins.__import__ = shown\n"
        "    return shown(name, *rest)\n"
        "builtins.__import__ = checked\n"
        "import runpy; runpy.run_path('jobs/train.py', run_name='__main__')\n"
    )
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=project, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith("catdog "), done.stdout
    assert "/no/photos" in first
    assert second.startswith("FIRST IMPORT"), f"{time.monotonic() - began:.1f} s"
