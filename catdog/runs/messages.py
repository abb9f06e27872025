"""What the workers and the watch over nodes tell the driver of a run while it goes on.

``model`` is the title of a training: of a repeat it names the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from catdog.runs.records import Epoch, Training


class Flush(NamedTuple):
    """Heard by the listener alone: all before it is handed over."""


class Say(NamedTuple):
    """A line for people."""

    line: str


class PhotosDone(NamedTuple):
    """Of a longer piece of work than a training's step."""

    what: str
    done: int
    total: int


class NodeChange(NamedTuple):
    """A node was lost, with Ray's cause, or has come."""

    address: str
    lost: bool
    cause: str


class Started(NamedTuple):
    model: str
    phase: str
    workers: int
    nodes: Sequence[str]


class FirstStep(NamedTuple):
    """The first step of a process is done, which is slow: TensorFlow traces it."""

    model: str


class Step(NamedTuple):
    """``left_s`` of the whole training, validation left aside."""

    model: str
    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    left_s: float


class Resumed(NamedTuple):
    """Goes on from a checkpoint: after ``epoch``, and after ``step`` of the next."""

    model: str
    epoch: int
    epochs: int
    step: int
    workers: int
    history: Sequence[Epoch]


class EpochEnded(NamedTuple):
    model: str
    epochs: int
    row: Epoch


class Trained(NamedTuple):
    model: str
    result: Training


Message: TypeAlias = (
    Flush | Say | PhotosDone | NodeChange | Started | FirstStep | Step | Resumed | EpochEnded | Trained
)
OnMessage: TypeAlias = Callable[[Message], None]
