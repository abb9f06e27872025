"""``catdog runs`` from this checkout, also where another catdog is installed."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from catdog.cli.main import run

if __name__ == "__main__":  # else each process that this one spawns would run it again
    sys.exit(run("runs", sys.argv[1:]))
