"""Shared by all command lines: one-line errors and common arguments."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from catdog.errors import UserError, did_you_mean, nearest

#: Of the argument that names a finished model.
MODEL_HELP = "a run (its report's best model), or one of its models"


def program(name: str) -> str:
    """The command as it was called: ``catdog train`` or ``python jobs/train.py``."""
    script = Path(sys.argv[0])
    return f"python jobs/{name}.py" if script.parent.name == "jobs" else f"catdog {name}"


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser whose complaint is one line without the usage block (exit code 2).

    A mistyped flag or name is answered with the nearest that there is.
    """

    def error(self, message: str) -> NoReturn:
        hint = "" if message.endswith("?") else " (--help lists the flags)"
        raise UserError(message + hint)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # First of all, as argparse would rather complain about what the mistyped flag leaves out.
        given: Sequence[str] = sys.argv[1:] if args is None else list(args)
        for text in takewhile(lambda text: text != "--", given):
            flag = text.partition("=")[0]
            if flag.startswith("--") and not self._knows(flag):
                near = self.near_flags(flag)
                hint = did_you_mean(near) or " (--help lists the flags)"
                raise UserError(f"unrecognized arguments: {flag}{hint}")
        return super().parse_known_args(args, namespace)

    def near_flags(self, flag: str) -> list[str]:
        """What ``flag`` may have been meant for."""
        names = [known.removeprefix("--") for known in self._flags()]
        return [f"--{name}" for name in nearest(flag.removeprefix("--"), names)]

    def _knows(self, flag: str) -> bool:
        # Flags of a subcommand are its own parser's to judge.
        return flag in self._flags() or self._subparsers is not None

    def _flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings]

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            hint = did_you_mean(nearest(str(value), known)) or f"; choose from {', '.join(known)}"
            raise argparse.ArgumentError(action, f"invalid choice: {str(value)!r}{hint}")


def add_model(parser: argparse.ArgumentParser) -> None:
    """A finished model, as :func:`find_model` takes it: by position or by ``--model``."""
    parser.add_argument("run", nargs="?", metavar="RUN_DIR[/models/NAME]", help=MODEL_HELP)
    parser.add_argument("--model", metavar="RUN_DIR[/models/NAME]", help="the same")


def parsed_with_model(
    parser: argparse.ArgumentParser, arguments: Sequence[str], *more: str
) -> argparse.Namespace:
    """What was given; positions fill ``model`` and then ``more``, those that no flag has filled.

    Raises:
        UserError: nothing was given for one of them, or there are more positions than that.
    """
    options = parser.parse_intermixed_args(arguments)
    names = ["model", *more]
    positions = [options.run, *(getattr(options, f"{name}_here") for name in more)]
    waiting = [position for position in positions if position is not None]
    for name in names:
        if getattr(options, name) is None and waiting:
            setattr(options, name, waiting.pop(0))
    if waiting:
        given = " and ".join(f"--{name}" for name in names)
        raise UserError(f"{waiting[0]}: one argument too many beside {given} (--help explains)")
    for name in names:
        if getattr(options, name) is None:
            raise UserError(f"the following arguments are required: --{name}, or by its position")
    return options


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 1 or more")
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
