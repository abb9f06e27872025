"""The data stage alone: photos in, a prepared set out, and what became of every file.

catdog prepare PHOTOS --storage runs --json account.json

The last line is the folder of the prepared set.
"""

from __future__ import annotations

from catdog import console
from catdog.cli.flags import config_from
from catdog.cli.flags import preparing_parser as parser
from catdog.storage import Location


def main(arguments: list[str]) -> None:
    flags = parser().parse_intermixed_args(arguments)
    config = config_from(flags)
    numbers = None if flags.json is None else Location.of(flags.json)
    console.doing("loading libraries, checking what was given")
    from catdog.pipeline.preparation import run_preparation

    console.say(str(run_preparation(config, numbers).root))
