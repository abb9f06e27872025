"""This machine or cluster as ratios against peers and limits.

Each part is ``catdog/benchmarks/<part>.py`` with ``measure(arguments) -> dict``; its result is
written under the part's name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

from catdog import benchmarks, console
from catdog.cli.flags import weights_of
from catdog.cli.parsing import OneLineParser, at_least_one, program
from catdog.config.architectures import BACKBONES
from catdog.errors import UserError


def parser() -> argparse.ArgumentParser:
    folder = Path(benchmarks.__file__).parent
    parts = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    assert __doc__ is not None
    made = OneLineParser(prog=program("benchmark"), description=__doc__, allow_abbrev=False)
    made.add_argument("parts", nargs="+", choices=parts, metavar="PART", help=", ".join(parts))
    made.add_argument("--data", metavar="DIR", help="photos; without it the built-in drawings")
    made.add_argument("--json", metavar="FILE", type=Path, help="to write to; default: shown alone")
    made.add_argument("--rounds", type=at_least_one, default=3, help="of which the median counts")
    made.add_argument("--files", type=at_least_one, default=20_000, help="files of ingest and feed")
    made.add_argument(
        "--photos", type=at_least_one, default=480, help="photos of sweep and finetune"
    )
    made.add_argument("--image-size", type=at_least_one, default=224, help="side in pixels")
    made.add_argument(
        "--backbone",
        action="append",
        choices=BACKBONES,
        help="of finetune, for which it may be given again, and sweep; default: all, inception_v3",
    )
    made.add_argument(
        "--weights-for",
        type=weights_of,
        metavar="MODEL=FILE,scale=0..1",
        help="pretrained weights of accuracy",
    )
    made.add_argument("--work", metavar="DIR", help="for temporary files; default: the system's")
    return made


def main(arguments: list[str]) -> None:
    options = parser().parse_args(arguments)
    if options.data and not Path(options.data).exists():  # not every part reads it
        raise UserError(f"--data: there is no {options.data}")
    # Ray turns token authentication on for a cluster of its own; this one is local and short.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    target: Path | None = options.json
    results = json.loads(target.read_text()) if target and target.exists() else {}
    for part in options.parts:
        console.stage(part)
        module = importlib.import_module(f"catdog.benchmarks.{part}")
        results[part] = module.measure(options)
        text = json.dumps(results, indent=2)
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text + "\n")
    console.say(str(target.resolve()) if target else text)
