"""Exports of a finished model for other programs, proven on the run's test photos.

    catdog export RUN_DIR[/models/NAME] [--formats saved_model onnx]

The model is given by its position or by --model. RUN_DIR alone takes the report's best model. The
run's report is built again with sizes and latencies. Exit code 2 and one line for a mistake.
"""

from __future__ import annotations

import argparse

from catdog import console
from catdog.cli.parsing import OneLineParser, add_model, parsed_with_model, program
from catdog.inference.formats import FORMATS


def main(arguments: list[str]) -> None:
    options = parsed_with_model(parser(), arguments)
    console.doing("loading the model")
    # After parsing, so that --help answers at once.
    from catdog.inference.exports import run_export

    run_export(options.model, options.formats)


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("export"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(made)
    made.add_argument(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default: all)",
    )
    return made
