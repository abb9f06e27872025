"""Connect to a Ray cluster or start one; failures are explained in one line."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from catdog.cluster.numerics import use_onednn
from catdog.console import doing, say
from catdog.errors import RunFailed, UserError

#: Ray Train's controller looks at its workers so often. Its default of 2 s is added to the end of
#: every group.
POLL_S = "0.2"
#: Seconds for a head to take a connection, and between lines about one that answers nothing.
REACH_S, ANSWER_S = 10.0, 10.0


@contextmanager
def connected() -> Iterator[None]:
    """Connect to the cluster of ``RAY_ADDRESS``, else to one on this machine, else start one.

    ``RAY_ADDRESS=local`` asks for a new one whatever runs.

    Raises:
        UserError: none can be reached there.
        RunFailed: none could be started here.
    """
    import ray

    # Read by Ray Train in the driver and handed on to its controllers.
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", POLL_S)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    # Tune's older reporter is the one that can be silent.
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # For processes of a cluster started here; those of another set it themselves: as a runtime_env
    # it would make every start of a worker 3 s longer.
    use_onednn()
    if ray.is_initialized():  # somebody else's, as in tests
        yield
        return
    on_sigterm = signal.getsignal(signal.SIGTERM)
    address = os.environ.get("RAY_ADDRESS") or None
    doing("joining or starting Ray")
    _join(address)
    doing("looking at the cluster")
    # Ray's own handler would end this process on the spot.
    signal.signal(signal.SIGTERM, on_sigterm)
    _quiet_ray()
    try:
        yield
    finally:
        ray.shutdown()


def _join(address: str | None) -> None:
    import ray

    _check_reachable(address)
    try:
        with _told_while_waiting(address):
            ray.init(
                address=address,
                include_dashboard=False if address in (None, "local") else None,
                log_to_driver=False,
                logging_level="ERROR",
            )
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        # Of another version, with another token, or gone while its address is still known.
        raise UserError(f"no Ray cluster can be joined: {_in_one_line(error)}") from error
    except Exception as error:
        if type(error) is not Exception:
            raise
        # Ray's own way to say that its processes did not come up, on a machine that is too busy.
        raise RunFailed(f"Ray does not start: {_in_one_line(error)}") from error


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _check_reachable(address: str | None) -> None:
    """Check that a head accepts connections; Ray itself tries for minutes without a message."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto", "local", or none
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        cause = getattr(error, "strerror", None) or error
        raise UserError(
            f"RAY_ADDRESS={address}: no Ray cluster answers there ({cause}): "
            "start one (ray start --head), correct the address, or RAY_ADDRESS=local for one of "
            "this command's own"
        ) from error


@contextmanager
def _told_while_waiting(address: str | None) -> Iterator[None]:
    """Print a line every 10 s while a port that is not a Ray head is waited for."""
    if ":" not in (address or ""):
        yield  # a cluster of this machine's own is not waited for
        return
    over = threading.Event()

    def tell() -> None:
        waited = 0.0
        while not over.wait(ANSWER_S):
            waited += ANSWER_S
            say(
                f"RAY_ADDRESS={address} has not answered for {waited:.0f} s; is it a Ray head? "
                "Its port is 6379 if nothing else was chosen (8265 is its dashboard's)"
            )

    teller = threading.Thread(target=tell, name="joining", daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()


def _quiet_ray() -> None:
    """Turn off Ray's progress tables and messages."""
    import logging

    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
