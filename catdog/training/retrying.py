"""Storage that fails for some seconds costs those seconds and not the training."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from catdog.errors import StorageAway
from catdog.storage import ANSWERS, Location

T = TypeVar("T")

#: Seconds between attempts: two minutes in all, far below the time after which a step that does
#: not come counts as a hang (``compute.stall_limit_s``), for the other workers wait meanwhile.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

#: What a network file system or a disk answers while its server restarts or its path fails over. A
#: full disk or quota is not among them: waiting does not mend it.
PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.EREMOTEIO,
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def is_passing(error: OSError, location: Location) -> bool:
    """Whether the same operation may succeed some seconds later.

    pyarrow's errors of object stores carry no ``errno``: there, everything but a clear answer is
    taken for the network.
    """
    if isinstance(error, FileNotFoundError | PermissionError | StorageAway):
        return False  # an answer, or the end of another wait
    if location.is_local or error.errno is not None:
        return error.errno in PASSING
    return not any(answer in str(error) for answer in ANSWERS)


def retried(
    operation: Callable[[], T], location: Location, what: str, say: Callable[[str], None]
) -> T:
    """The result of ``operation``, repeated while the storage of ``location`` fails.

    ``say`` gets a line for every failure and one when it is over; ``what`` is its subject.

    Raises:
        OSError: the failure lasts longer than all of :data:`PAUSES_S`, or is not a passing one.
    """
    began = time.monotonic()
    for attempt, pause_s in enumerate((*PAUSES_S, None)):
        try:
            result = operation()
        except OSError as error:
            if pause_s is None or not is_passing(error, location):
                raise
            say(f"{what} failed ({_reason(error)}); trying again in {pause_s:.0f} s")
            time.sleep(pause_s)
        else:
            if attempt:
                say(f"{what} succeeded after {time.monotonic() - began:.0f} s")
            return result
    raise AssertionError("the last attempt returns or raises")


def _reason(error: OSError) -> str:
    """``Read-only file system``; of an object store's client the part that says what it met."""
    text = error.strerror or " ".join(str(error).split())
    _, mark, met = text.partition("AWS Error ")
    return (mark + met).partition(";")[0][:160] if mark else text[:160]
