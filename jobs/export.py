"""Exports of a finished model for other programs, proven on the run's test photos.

    python jobs/export.py RUN_DIR[/models/NAME] [--formats saved_model onnx]

RUN_DIR alone takes the report's best model. The run's report is built again with sizes and
latencies. Exit code 2 and one line for a mistake.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catdog import console
from catdog.command import command
from catdog.models.portable import FORMATS
from catdog.parsing import OneLineParser, add_model


def main(arguments: list[str]) -> None:
    options = _parse(arguments)
    console.doing("loading the model")
    # After parsing, so that --help answers at once.
    from catdog.exporting import run_export

    run_export(options.model, options.formats)


def _parse(arguments: list[str]) -> argparse.Namespace:
    assert __doc__ is not None
    parser = OneLineParser(
        prog="python jobs/export.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(parser, "model")
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=FORMATS,
        default=FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(FORMATS)} (default: all)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(command(main, sys.argv[1:]))
