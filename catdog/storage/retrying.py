"""Retry storage operations that fail temporarily."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from catdog.errors import StorageAway

T = TypeVar("T")


class Place(Protocol):
    """What is asked of a :class:`~catdog.storage.Location`."""

    @property
    def is_local(self) -> bool: ...


#: Seconds between attempts that nobody hears of: 31 s in all.
PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0)
#: Where somebody is told: two minutes in all, far below the time after which a step that does not
#: come counts as a hang (``compute.stall_limit_s``), for the other workers wait meanwhile.
TOLD_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)

#: Answers of a store that another attempt would not change.
ANSWERS = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH")

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
        getattr(errno, "EREMOTEIO", errno.EIO),  # Linux alone has it
        errno.EROFS,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


def is_passing(error: OSError, location: Place) -> bool:
    """Whether an error is temporary: the operation may succeed some seconds later.

    pyarrow's errors of object stores carry no ``errno``: there, everything but a clear answer is
    taken for the network.
    """
    if isinstance(error, FileNotFoundError | PermissionError | StorageAway):
        return False  # an answer, or the end of another wait
    if location.is_local or error.errno is not None:
        return error.errno in PASSING
    return not any(answer in str(error) for answer in ANSWERS)


def retried(
    operation: Callable[[], T],
    location: Place,
    what: str = "",
    say: Callable[[str], None] | None = None,
) -> T:
    """The result of ``operation``, repeated while the storage of ``location`` fails.

    Without ``say`` it is a remote store that is waited for, for half a minute and in silence. With
    it a disk is, too, and for two minutes: ``say`` gets a line for every failure and one when it is
    over; ``what`` is its subject.

    Raises:
        StorageAway: a remote store has not answered in any attempt.
        OSError: a disk has not either; or another attempt would not change the failure.
    """
    if say is None and location.is_local:
        return operation()
    began = time.monotonic()
    for attempt, pause_s in enumerate((*(TOLD_PAUSES_S if say else PAUSES_S), None)):
        try:
            result = operation()
        except OSError as error:
            if not is_passing(error, location):
                raise
            if pause_s is None:
                if location.is_local:
                    raise
                raise StorageAway(
                    f"the storage does not answer any more: {_reason(error)}"
                ) from error
            if say:
                say(f"{what} failed ({_reason(error)}); trying again in {pause_s:.0f} s")
            time.sleep(pause_s)
        else:
            if say and attempt:
                say(f"{what} succeeded after {time.monotonic() - began:.0f} s")
            return result
    raise AssertionError("the last attempt returns or raises")


def _reason(error: OSError) -> str:
    """``Read-only file system``; of an object store's client the part that says what it met."""
    text = error.strerror or " ".join(str(error).split())
    _, mark, met = text.partition("AWS Error ")
    return (mark + met).partition(";")[0][:160] if mark else text[:160]
