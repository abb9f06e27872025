"""Distributed image classification on Ray with Keras: cats, dogs and an honest comparison.

``catdog.prepare``, ``train``, ``tune``, ``predict`` and ``load`` are the commands as functions
(:mod:`catdog.pipeline.api`, docs/api.md). They are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from catdog.errors import RunFailed as RunFailed
    from catdog.errors import UserError as UserError
    from catdog.pipeline.api import Run as Run
    from catdog.pipeline.api import load as load
    from catdog.pipeline.api import predict as predict
    from catdog.pipeline.api import prepare as prepare
    from catdog.pipeline.api import train as train
    from catdog.pipeline.api import tune as tune

__version__ = "0.1.0"

_ERRORS = ("RunFailed", "UserError")
_API = ("Run", "load", "predict", "prepare", "train", "tune")


def __getattr__(name: str) -> Any:
    if name in _ERRORS:
        from catdog import errors

        return getattr(errors, name)
    if name in _API:
        from catdog.pipeline import api

        return getattr(api, name)
    raise AttributeError(f"module 'catdog' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ERRORS, *_API})
