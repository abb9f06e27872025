"""A worker's rank in its group, and the progress of its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from catdog.runs.messages import OnMessage, Say
from catdog.runs.records import Epoch
from catdog.training.watchdog import Watchdog

if TYPE_CHECKING:
    import tensorflow as tf

#: Asked after every step, on all ranks alike; answers with a line when this group will lose a node.
Warned = Callable[[], str | None]


class TrainingDiverged(Exception):
    """The loss is not finite any more; the same steps would give it again: no retry."""

    def __init__(self, name: str, loss: float, epoch: int, step: int, rate: float) -> None:
        super().__init__(
            f"{name}: the loss is {loss} in epoch {epoch} (step {step}, learning rate {rate:.3g}); "
            "try a lower learning rate or --set compute.precision=float32; "
            "the best epoch so far is kept"
        )


@dataclass(frozen=True)
class Rank:
    """Where this process stands among the workers, and whom it tells (rank 0 only).

    ``report`` is called on all ranks after each epoch and says whether to go on; ``kept`` holds
    what one task of this process leaves to the next.
    """

    rank: int
    world_size: int
    strategy: tf.distribute.Strategy
    tell: OnMessage
    report: Callable[[Epoch], bool]
    watchdog: Watchdog
    warned: Warned = lambda: None
    kept: dict[str, Any] = field(default_factory=dict)

    @property
    def is_chief(self) -> bool:
        return self.rank == 0

    def say(self, line: str) -> None:
        """A line for people, once and not from every worker."""
        if self.is_chief:
            self.tell(Say(line))


@dataclass(frozen=True)
class Part:
    """The part of an epoch that is done: its steps, its sums (loss, correct, rows), its seconds."""

    step: int = 0
    sums: Sequence[float] = (0.0, 0.0, 0.0)
    seconds: float = 0.0


@dataclass
class Progress:
    """What training has come to; restored from a checkpoint.

    ``exact`` tells whether all steps so far were such that any number of workers would have come to
    the same bits; ``varies`` why they were not, although they were to be.
    ``part`` is empty but in the checkpoint of a training that was warned in the middle of an epoch.
    """

    epoch: int = 0
    part: Part = Part()
    seconds: float = 0.0
    best_epoch: int = 0
    restarts: int = 0
    exact: bool = True
    varies: str | None = None
    history: list[Epoch] = field(default_factory=list)

    @classmethod
    def of(cls, meta: Mapping[str, Any]) -> Progress:
        """The inverse of :meth:`as_meta`, of a checkpoint whose identity was seen to."""
        history = [Epoch.model_validate(row) for row in meta.get("history", ())]
        known = {key: value for key, value in meta.items() if key != "identity"}
        return cls(**known | {"part": Part(**meta.get("part", {})), "history": history})

    def as_meta(self) -> dict[str, Any]:
        """As values that JSON can hold, without losing a bit of the sums."""
        history = [row.as_json() for row in self.history]
        return vars(self) | {"part": asdict(self.part), "history": history}

    def is_best(self, row: Epoch) -> bool:
        return not self.best_epoch or row.rank > self.history[self.best_epoch - 1].rank

    def exhausted(self, patience: int | None) -> bool:
        return patience is not None and self.epoch - self.best_epoch >= patience
