"""Run a command: exit codes, and one line for what went wrong."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType

from catdog import console
from catdog.cluster.numerics import use_onednn
from catdog.errors import RunFailed, StorageAway, UserError


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the main thread is, so that everything is closed on the way out.

    A KeyboardInterrupt, for ``ray.get`` swallows every other exception of a signal handler. It
    raises a new KeyboardInterrupt in its place, so what it was is noted here too.
    """

    received = False


def command(main: Callable[[list[str]], int | None], arguments: list[str]) -> int:
    """Run ``main`` and return the exit code.

    0 finished, or what ``main`` returns; 1 the run failed; 2 the user's mistake, in one line; 130
    Ctrl-C; 143 SIGTERM. A mistake of ours keeps its traceback.
    """
    signal.signal(signal.SIGTERM, _raise_terminated)
    use_onednn()
    try:
        with console.activity_shown():
            code = main(arguments)
    except UserError as error:
        console.complain(str(error), error.details)
        return error.exit_code
    except RunFailed as error:
        console.complain(str(error))
        console.complain_more(f"the same command continues: {console.given()}")
        return error.exit_code
    except StorageAway as error:
        # Raised in a Ray task, its text is the task's traceback with the line at its end.
        console.complain(
            str(error).strip().splitlines()[-1].removeprefix(f"{_name(StorageAway)}: ")
        )
        console.complain_more(f"the same command continues: {console.given()}")
        return error.exit_code
    except KeyboardInterrupt:
        console.complain_more(f"stopped; the same command continues: {console.given()}")
        return 143 if Terminated.received else 130
    return code or 0


def _raise_terminated(number: int, frame: FrameType | None) -> None:
    Terminated.received = True
    raise Terminated


def _name(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__name__}"
