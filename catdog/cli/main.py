"""``catdog COMMAND``: the commands by name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

#: Every command and what it does; each is a module of this room.
COMMANDS = {
    "train": "the whole job: photos in, trained models and a report out",
    "tune": "a sweep alone",
    "prepare": "the data stage alone: what becomes of every file",
    "report": "the report again, also of several runs side by side",
    "predict": "a finished model over photos without labels",
    "export": "a finished model for other programs",
    "serve": "a finished model behind HTTP",
    "runs": "the runs of a storage: list, status, prune",
    "doctor": "whether this machine has what a run needs",
    "benchmark": "this machine as ratios against peers and limits",
    "completion": "a script that completes commands in a shell",
}


def run(name: str, arguments: Sequence[str]) -> int:
    """Run the command ``name`` and return its exit code."""
    from catdog.cli.command import command

    module = importlib.import_module(f"catdog.cli.{name}")
    return command(module.main, list(arguments))


def main() -> int:
    """The console script ``catdog``."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        return run(name, rest)
    if name in ("-h", "--help"):
        print(_help())
        return 0
    if name == "--version":
        from catdog.cli.version import version_lines

        print("\n".join(version_lines()))
        return 0
    from catdog.errors import did_you_mean, nearest

    hint = did_you_mean(nearest(name, COMMANDS)) or f"; there are {', '.join(COMMANDS)}"
    print(f"error: there is no command {name!r}{hint}", file=sys.stderr)
    return 2


def _help() -> str:
    lines = [f"  {name:10} {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: catdog COMMAND …",
            "",
            *lines,
            "",
            "catdog COMMAND --help explains its flags, catdog --version names versions.",
        ]
    )
