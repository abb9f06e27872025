"""What the command lines of all jobs share: one-line complaints and common arguments."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

from catdog.errors import UserError


def program(name: str) -> str:
    """The command as it was called: ``catdog train`` or ``python jobs/train.py``."""
    script = Path(sys.argv[0])
    return f"python jobs/{name}.py" if script.parent.name == "jobs" else f"catdog {name}"


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line without the usage block (exit code 2)."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the flags)")


def add_model(parser: argparse.ArgumentParser, name: str, **more: Any) -> None:
    """The argument that names a finished model, as :func:`find_model` takes it."""
    parser.add_argument(
        name, metavar="RUN_DIR[/models/NAME]", help="a run, or one of its models", **more
    )


def at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of trials, 1 or more")
    return int(text)


def workers_range(text: str) -> tuple[int | None, int]:
    """``4`` → (None, 4); ``1:4`` → (1, 4)."""
    least, colon, most = text.rpartition(":")
    if not most.isdecimal() or (colon and not least.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor MIN:MAX")
    if not colon:
        return None, int(most)
    if not 1 <= int(least) <= int(most):
        raise argparse.ArgumentTypeError(f"{text!r}: MIN is 1 or more, and MAX no less")
    return int(least), int(most)
