#!/usr/bin/env python
"""This machine or cluster as ratios against peers and limits.

Each part is ``catdog/benchmarks/<part>.py`` with ``measure(arguments) -> dict``; its result is
written under the part's name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catdog import benchmarks, console
from catdog.architectures import BACKBONES
from catdog.errors import RunFailed, UserError
from catdog.numerics import use_onednn


def parser() -> argparse.ArgumentParser:
    folder = Path(benchmarks.__file__).parent
    parts = sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("parts", nargs="+", choices=parts, metavar="PART", help=", ".join(parts))
    made.add_argument("--data", metavar="DIR", help="photos; without it the built-in drawings")
    made.add_argument("--json", metavar="FILE", type=Path, help="to write to; default: shown alone")
    made.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    made.add_argument("--files", type=int, default=20_000, help="files of ingest and feed")
    made.add_argument("--photos", type=int, default=480, help="photos of sweep and finetune")
    made.add_argument("--image-size", type=int, default=224, help="side in pixels")
    made.add_argument(
        "--backbone",
        action="append",
        choices=BACKBONES,
        help="of finetune, for which it may be given again, and sweep; default: all, inception_v3",
    )
    made.add_argument(
        "--weights-for", metavar="MODEL=FILE,scale=0..1", help="pretrained weights of accuracy"
    )
    made.add_argument("--work", metavar="DIR", help="for temporary files; default: the system's")
    return made


def main() -> int:
    arguments = parser().parse_args()
    # Ray turns token authentication on for a cluster of its own; this one is local and short.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    use_onednn()
    target: Path | None = arguments.json
    results = json.loads(target.read_text()) if target and target.exists() else {}
    try:
        with console.activity_shown():
            for part in arguments.parts:
                console.stage(part)
                module = importlib.import_module(f"catdog.benchmarks.{part}")
                results[part] = module.measure(arguments)
                text = json.dumps(results, indent=2)
                if target:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_text(text + "\n")
    except UserError as error:
        console.complain(str(error), error.details)
        return error.exit_code
    except RunFailed as error:
        console.complain(str(error))
        return error.exit_code
    console.say(str(target.resolve()) if target else text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
