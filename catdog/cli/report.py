"""Write the comparison report again, from the files of one run or of several side by side.

    catdog report RUN_DIR [RUN_DIR …] [--price-per-hour 1.20]

Writes report.html, report.md and report.json into the first run's directory. The last line printed
is the path of report.html. Exit code 2 and one line for a path that holds no run.
"""

from __future__ import annotations

import argparse
import math

from catdog.cli.parsing import OneLineParser, program


def main(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    # After parsing, so that --help answers at once.
    from catdog import console, report
    from catdog.storage import Location
    from catdog.storage.access import check_readable

    for run in options.runs:
        check_readable(run, "RUN_DIR")
    runs = [Location.of(run) for run in options.runs]
    page = report.build(runs, price_per_hour=options.price_per_hour)
    for sentence in (runs[0] / "report.json").read_json()["verdict"]["sentences"]:
        console.say(sentence)
    console.say(str(page))


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("report"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument(
        "runs", nargs="+", metavar="RUN_DIR", help="run directory, a path or s3:// or gs:// URI"
    )
    made.add_argument(
        "--price-per-hour",
        type=_price,
        metavar="PRICE",
        help="of all the machines together; adds what training cost",
    )
    return made


def _price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not (math.isfinite(price) and price >= 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a price; give a number like 1.20")
    return price
