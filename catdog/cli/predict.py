"""Predict photos without labels with a finished model.

    catdog predict RUN_DIR[/models/NAME] PHOTOS [--out FILE]

Model and photos are given by their positions or by --model and --data. Every file gets a row:
label, calibrated probability, or why it is no photo. RUN_DIR alone takes the report's best model. A
single photo is answered in one line. Exit code 2 and one line for a mistake.
"""

from __future__ import annotations

import argparse

from catdog import console
from catdog.cli.parsing import OneLineParser, add_model, parsed_with_model, program


def main(arguments: list[str]) -> None:
    options = parsed_with_model(parser(), arguments, "data")
    console.doing("loading the model")
    # After parsing, so that --help answers at once.
    from catdog.inference.prediction import run_prediction

    run_prediction(options.model, options.data, options.out)


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("predict"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(made)
    made.add_argument("data_here", nargs="?", metavar="PHOTOS", help="as --data")
    made.add_argument(
        "--data",
        metavar="PATH|URI",
        help="a photo, a folder, an archive, a table with a column path, or s3://…",
    )
    made.add_argument(
        "--out",
        metavar="FILE",
        help=".parquet or .csv, a path or URI (default: predictions.parquet here; for a single "
        "photo none)",
    )
    return made
