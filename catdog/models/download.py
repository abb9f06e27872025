"""Whether Keras can download ImageNet weights here, known in seconds; Keras tries for a minute."""

from __future__ import annotations

import os
import threading
import urllib.request
from functools import cache
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

#: Where Keras' applications have their weights.
ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"
#: Seconds that an answer may take.
ANSWER_S = 3.0


def obstacle(name: str) -> str | None:
    """Why the weights of ``name`` cannot be had, in a few words; ``None`` where they can.

    Asked where Ray's tasks run, which download them, and once in the life of this process. Ray must
    be initialised.
    """
    kept, reason = _seen()
    return None if any(file.startswith(f"{name}_weights_") for file in kept) else reason


@cache
def _seen() -> tuple[frozenset[str], str | None]:
    import ray

    def look() -> tuple[frozenset[str], str | None]:
        return downloaded(), unreachable(ADDRESS)

    seen: tuple[frozenset[str], str | None] = ray.get(ray.remote(num_cpus=1)(look).remote())
    return seen


def downloaded() -> frozenset[str]:
    """Files of weights without a top that Keras has from earlier."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return frozenset(file.name for file in (home / "models").glob("*_notop.h5"))


def unreachable(address: str, limit_s: float = ANSWER_S) -> str | None:
    """Why nothing answers at ``address``, with the proxies of the environment; ``None`` if it does.

    A thread asks, for the look-up of a name may take longer than any time limit.
    """
    found: list[str | None] = []

    def ask() -> None:
        # The schemes are ours.
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=limit_s):  # noqa: S310
                found.append(None)
        except HTTPError:  # an answer
            found.append(None)
        except (OSError, HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            found.append(" ".join(str(getattr(cause, "strerror", None) or cause).split())[:100])

    thread = threading.Thread(target=ask, name="reach", daemon=True)
    thread.start()
    thread.join(limit_s)
    return found[0] if found else f"no answer in {limit_s:.0f} s"
