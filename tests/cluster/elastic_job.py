"""A driver: trains the tiny job on as many of one to three workers as the cluster has.

``python -m tests.cluster.elastic_job FOLDER``, with RAY_ADDRESS set; prints every message of rank 0
as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from catdog.cluster.connection import connected
from catdog.cluster.workers import Workers
from catdog.runs.messages import Message
from catdog.storage import Location
from catdog.training.pool import train
from tests.tiny import make_job

#: More than anybody waits for: the test ends it.
EPOCHS = 1000


def as_json(message: Message) -> str:
    """With its kind; an epoch's row as one."""
    tree = {"kind": type(message).__name__, **message._asdict()}
    return json.dumps(tree, default=lambda record: record.as_json())


def main(folder: Path) -> None:
    workers = Workers(3, 1, False, "float32", span=(1, 3), resize_every_s=2)
    with connected():
        train(
            [make_job(folder, "elastic", dropout=0.0, epochs=EPOCHS)],
            workers,
            Location.of(str(folder / "ray")),
            lambda message: print(as_json(message), flush=True),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
