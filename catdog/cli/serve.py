"""Serve a finished model over HTTP until Ctrl-C.

    catdog serve RUN_DIR[/models/NAME] [--host 127.0.0.1] [--port 8000]
    curl --data-binary @photo.jpg http://127.0.0.1:8000/

The model is given by its position or by --model. RUN_DIR alone takes the report's best model. A bad
file is answered with 400 and the reason, one that is too large with 413. Exit code 2 and one line
for a mistake.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from catdog import console
from catdog.cli.parsing import OneLineParser, add_model, at_least_one, parsed_with_model, program


def main(arguments: list[str]) -> None:
    options = parsed_with_model(parser(), arguments)
    console.doing("loading the model")
    # After parsing, so that --help answers at once.
    import tempfile
    import threading

    from catdog.cluster.connection import connected
    from catdog.inference.batch import Pool
    from catdog.inference.finished import find_model
    from catdog.inference.serving import Endpoint, check_port, serving

    model = find_model(options.model)
    check_port(Endpoint(options.host, options.port))
    log = Path(tempfile.gettempdir()) / f"catdog-{os.getuid()}-serve.log"
    with console.chatter_to(log), connected():
        pool = Pool.of_cluster()
        endpoint = Endpoint(options.host, options.port, options.replicas, pool.cpus, pool.use_gpu)
        console.doing("starting the service")
        with serving(model, endpoint) as url:
            console.doing("")
            if model.warning:
                console.caution(model.warning)
            console.say(f"{model.name} answers at {url} until Ctrl-C")
            threading.Event().wait()


def parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    made = OneLineParser(
        prog=program("serve"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_model(made)
    made.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines ask")
    made.add_argument("--port", type=int, default=8000)
    made.add_argument(
        "--replicas", type=at_least_one, default=1, metavar="N", help="copies of the model"
    )
    return made
