"""Whether this machine has what a run needs: ok, note or problem, and what to do.

    catdog doctor [--storage DIR|URI]

Exit code 1 where something is missing that training needs.
"""

from __future__ import annotations

import argparse

from catdog import console
from catdog.cli.parsing import OneLineParser, program
from catdog.cli.places import default_storage


def main(arguments: list[str]) -> int:
    options = parser().parse_args(arguments)
    # After parsing, so that --help answers at once.
    from catdog.cluster.diagnosis import diagnose

    problems = 0
    for finding in diagnose(options.storage or default_storage()):
        console.say(f"{finding.status:8} {finding.subject:14} {finding.text}")
        problems += finding.status == "problem"
    return 1 if problems else 0


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("doctor"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "--storage", metavar="DIR|URI", help="where runs are to be kept (default: as of train)"
    )
    return made
