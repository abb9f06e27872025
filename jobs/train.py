"""The whole job: photos in, four trained classifiers and an honest comparison out.

python jobs/train.py --data PATH
ray job submit --working-dir . -- python jobs/train.py --data s3://… --storage s3://…
"""

from __future__ import annotations

import sys
from pathlib import Path

# The project that this file belongs to comes before any installed copy: a submitted job brings its
# own code.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catdog import console
from catdog.command import command
from catdog.flags import config_from, training_parser
from catdog.opening import opening_line


def main(arguments: list[str]) -> None:
    flags = training_parser().parse_args(arguments)
    config = config_from(flags)
    console.say(opening_line(config))
    console.doing("loading libraries, checking what was given")
    if flags.dry_run:
        from catdog.preflight import print_plan

        print_plan(config)
        return
    from catdog.pipeline import run_job

    console.say(str(run_job(config)))


if __name__ == "__main__":
    sys.exit(command(main, sys.argv[1:]))
