"""The root cause of a failed training in one line, from the errors of Ray Train's workers."""

from __future__ import annotations

import re

from catdog.console import plural
from catdog.training.watchdog import EXIT_CODE

#: What the workers that are left say when another one is gone: its consequence, not the cause.
CONSEQUENCES = ("Collective ops is aborted", "CoordinationService", "coordination service")

#: What Ray writes of a process that ended, and what that means, the first that fits.
DEATHS = (
    (r"low on memory|OutOfMemory|OOM killed", "Ray killed a worker: its node ran out of memory"),
    (
        rf"exit code {EXIT_CODE}\b",
        "a worker hung and ended itself: no step in compute.stall_limit_s seconds",
    ),
    (
        r"[Nn]ode (was |has been |has |is )?(terminated|preempted|died|dead)|too many heartbeats",
        "the node of a worker was lost",
    ),
    (r"SIGKILL|[Ee]nd of file", "a worker was killed (SIGKILL), perhaps out of memory"),
)  # fmt: skip


def root_cause(error: BaseException, restarts: int = 0) -> str:
    """What the worker that failed first says; of one that could not speak, how it ended.

    The others of a group fail with it, so their complaint about a neighbour that is gone counts
    only where there is no other.

    Args:
        error: from ``fit()``.
        restarts: how often a failed group was started again before.
    """
    failures = getattr(error, "worker_failures", None) or {}
    causes = [_innermost(failure) for failure in failures.values()] or [_innermost(error)]
    own = [cause for cause in causes if _death(cause) is None and not _is_consequence(cause)]
    deaths = [line for cause in causes if (line := _death(cause))]
    if own or not deaths:
        line = f"training failed on a worker: {_line((own or causes)[0])}"
    else:
        line = f"training failed: {deaths[0]}"
    if failures and restarts:
        line += f" (after {plural(restarts, 'restart')})"
    return line


def was_lost(error: BaseException) -> bool:
    """Whether a worker's process ended, with its node perhaps, rather than raised something."""
    from ray.exceptions import RayError, RayTaskError

    causes = map(_innermost, (getattr(error, "worker_failures", None) or {}).values())
    # What Ray itself says; and those that are left may be heard first.
    return any(
        (isinstance(cause, RayError) and not isinstance(cause, RayTaskError))
        or _is_consequence(cause)
        for cause in causes
    )


def _innermost(error: BaseException) -> BaseException:
    """The exception within those that Ray wraps it in."""
    for wrapper in ("controller_failure", "health_check_failure", "_base_exc"):
        if isinstance(within := getattr(error, wrapper, None), BaseException):
            return _innermost(within)
    if isinstance(within := getattr(error, "cause", None), BaseException):
        return _innermost(within)
    return error


def _death(cause: BaseException) -> str | None:
    """How a process ended that could not say so itself; ``None`` for what a worker raised."""
    from ray.exceptions import RayActorError

    if not isinstance(cause, RayActorError):
        return None
    text = " ".join(str(cause).split())
    known = (meaning for pattern, meaning in DEATHS if re.search(pattern, text))
    return next(known, f"a worker's process ended: {text[-200:]}")


def _is_consequence(cause: BaseException) -> bool:
    return any(words in str(cause) for words in CONSEQUENCES)


def _line(cause: BaseException) -> str:
    """``ValueError: what it says``, its last line that is not TensorFlow's name of a node."""
    lines = [line.strip() for line in str(cause).splitlines()]
    told = [line for line in lines if line and not line.startswith("[[")]
    kind = type(cause).__name__
    if not told:
        return kind
    named = re.match(r"\w*(Error|Exception): ", told[-1])
    return told[-1][:300] if named else f"{kind}: {told[-1][:300]}"
