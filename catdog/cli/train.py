"""The whole job: photos in, four trained classifiers and an honest comparison out.

catdog train --data PATH
ray job submit --working-dir . -- python jobs/train.py --data s3://… --storage s3://…
"""

from __future__ import annotations

from catdog import console
from catdog.cli.flags import config_from
from catdog.cli.flags import training_parser as parser
from catdog.cli.opening import opening_line


def main(arguments: list[str]) -> None:
    flags = parser().parse_intermixed_args(arguments)
    config = config_from(flags)
    console.say(opening_line(config))
    console.doing("loading libraries, checking what was given")
    if flags.dry_run:
        from catdog.pipeline.preflight import print_plan

        print_plan(config)
        return
    from catdog.pipeline.job import run_job

    console.say(str(run_job(config)))
