"""A sweep alone: what to fine-tune with, tried on validation photos.

catdog tune --data PATH --model inception_v3 --trials 16
catdog train --config runs/NAME/sweeps/inception_v3/best.yaml

It is the job of jobs/train.py up to its sweep: prepared photos, features and trials are kept, and
the same command again runs only the trials that are missing. The last line is the path of the
settings that it chose.
"""

from __future__ import annotations

from catdog import console
from catdog.cli.flags import config_from
from catdog.cli.flags import tuning_parser as parser
from catdog.cli.opening import opening_line


def main(arguments: list[str]) -> None:
    flags = parser().parse_intermixed_args(arguments)
    config = config_from(flags)
    console.say(opening_line(config))
    console.doing("loading libraries, checking what was given")
    from catdog.pipeline.job import run_sweep

    console.say(str(run_sweep(config)))
