"""A worker that takes no step ends itself; one that has none to take is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from catdog.training.watchdog import EXIT_CODE

SCRIPT = """
import time
from catdog.training import watchdog
watchdog.LOOK_EVERY_S = 0.05
with watchdog.Watchdog(2.0) as dog:
    for _ in range({feeds}):
        time.sleep(0.1)
        dog.feed()
    time.sleep({idle_inside})
time.sleep({idle_after})
print("alive")
"""


@pytest.mark.parametrize(
    "feeds, idle_inside, idle_after, code",
    [(25, 0, 0, 0), (0, 0, 2.5, 0), (1, 20, 0, EXIT_CODE)],
    ids=["fed", "after the block", "not fed"],
)
def test_a_process_ends_when_it_is_not_fed_while_it_is_watched(
    feeds: int, idle_inside: float, idle_after: float, code: int
) -> None:
    script = SCRIPT.format(feeds=feeds, idle_inside=idle_inside, idle_after=idle_after)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert ("alive" in done.stdout) == (code == 0)
    assert ("this worker hangs" in done.stderr) == (code == EXIT_CODE)
