"""A script with which a shell completes commands, flags and their values.

eval "$(catdog completion bash)"                     # in ~/.bashrc
catdog completion zsh > ~/.zfunc/_catdog             # a folder of fpath, before compinit
"""

from __future__ import annotations

import argparse
import importlib

from catdog.cli.main import COMMANDS
from catdog.cli.parsing import OneLineParser, program

SHELLS = ("bash", "zsh")
#: Arguments that name something on a disk.
FILES = {"config", "data", "data_here", "json", "model", "out", "photos", "run", "runs", "storage"}


def main(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    import shtab

    # To the last tab: no line of the console, which changes those.
    print(shtab.complete(_catdog(), options.shell))


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("completion"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("shell", choices=SHELLS, metavar="|".join(SHELLS))
    return made


def _catdog() -> argparse.ArgumentParser:
    """All commands as subcommands of one parser."""
    import shtab

    whole = argparse.ArgumentParser(prog="catdog")
    whole.add_argument("--version", action="store_true", help="versions and devices")
    commands = whole.add_subparsers()
    for name, what in COMMANDS.items():
        made = importlib.import_module(f"catdog.cli.{name}").parser()
        for action in made._actions:
            if action.dest in FILES:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        commands.add_parser(name, help=what, parents=[made], add_help=False)
    return whole
