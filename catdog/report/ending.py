"""What a job prints at its end: a table of the models and the next commands."""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING, Any, TypeAlias

from catdog import console
from catdog.report.wording import MISSING, number_range, title, visible

Tree: TypeAlias = dict[str, Any]

if TYPE_CHECKING:
    from catdog.storage import Location

COLUMNS = ["model", "test accuracy", "95 % interval", "test loss", "training"]
#: Where models were trained with several seeds: mean and standard deviation of the accuracy.
OVER_SEEDS = "over seeds"


def show(run: Location) -> None:
    """Print a table of the models of ``run``'s report and the two commands that come next."""
    report = (run / "report.json").read_json()
    console.say()
    rows = [_row(model) for model in report["models"]]
    seeds = [model.get("seeds") for model in report["models"]]
    if any(seeds):
        rows = [[*row, _spread(each)] for row, each in zip(rows, seeds, strict=True)]
    console.table([*COLUMNS, OVER_SEEDS] if any(seeds) else COLUMNS, rows)
    for purpose, command in next_commands(report, str(run)):
        console.say(f"{purpose}\n  {command}")


def _row(model: Tree) -> list[str]:
    test, seconds = model["test"], (model["train"] or {}).get("seconds")
    numbers = [MISSING] * 3
    if test is not None:
        interval = number_range(test["accuracy_ci95"])
        numbers = [f"{test['accuracy']:.3f}", interval, f"{test['loss']:.3f}"]
    time = MISSING if seconds is None else console.duration(seconds)
    return [visible(title(model["name"])), *numbers, time]


def _spread(seeds: Tree | None) -> str:
    return MISSING if seeds is None else f"{seeds['mean']:.3f} ± {seeds['sd']:.3f} ({seeds['n']})"


def next_commands(report: Tree, run: str) -> list[tuple[str, str]]:
    """(purpose, command) of two: after drawings own photos come first; predicting with this run."""
    python = sys.orig_argv[0]
    predict = [python, "jobs/predict.py", "--model", run, "--data", "PHOTO"]
    if report["data"].get("sample"):
        other = "your own photos:", [python, "jobs/train.py", "--data", "PHOTOS"]
        found = [other, ("a picture through the best model:", predict)]
    else:
        serve = [python, "jobs/serve.py", "--model", run]
        found = [("a new photo through the best model:", predict), ("the same over HTTP:", serve)]
    return [(purpose, shlex.join(command)) for purpose, command in found]
