"""A training that is warned in the middle of an epoch loses no step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import Stopped, make_job, train_here, write_rows


class Notice:
    """Warns after step 57, the 17th of the second epoch, and ends the training a step later."""

    def __init__(self) -> None:
        self.steps = 0

    def __call__(self) -> str | None:
        self.steps += 1
        if self.steps > 57:
            raise Stopped
        return "a node will be taken away" if self.steps == 57 else None


@pytest.mark.timeout(120)
def test_going_on_within_an_epoch_equals_never_stopping(tmp_path: Path) -> None:
    write_rows(tmp_path)
    options: dict[str, Any] = {"dropout": 0.3, "epochs": 3, "accumulation_steps": 4}
    whole = train_here(make_job(tmp_path, "whole", **options), 3)
    stopped = make_job(tmp_path, "stopped", **options)
    first = train_here(stopped, 3, Notice())
    files = {path.name for path in (tmp_path / "stopped" / "checkpoints").glob("epoch-*")}
    assert files == {"epoch-0001.npz", "epoch-0001-step-000017.npz"}
    rest = train_here(stopped, 2)
    assert [row.epoch for row in first + rest] == [1, 2, 3]
    for ours, theirs in zip(first + rest, whole, strict=True):
        for key in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert getattr(ours, key) == getattr(theirs, key), (key, ours, theirs)
