"""Show worker progress on the console and append it to ``events.jsonl``."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from catdog import console
from catdog.runs import Events
from catdog.runs.messages import (
    EpochEnded,
    FirstStep,
    Message,
    NodeChange,
    PhotosDone,
    Resumed,
    Say,
    Started,
    Step,
    Trained,
)
from catdog.runs.records import Epoch, Point, Trial


def measures(row: Epoch) -> str:
    """``loss …  accuracy …  val_loss …  val_accuracy …``"""
    return (
        f"loss {row.loss:.4f}  accuracy {row.accuracy:.4f}  "
        f"val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.4f}"
    )


#: How often a log without a bar says how far an epoch is.
TELL_EVERY_S = 15.0


def step_text(message: Step) -> str:
    """``step 12/40  230 images/s  1:20 left``: of the whole training, validation left aside."""
    return (
        f"step {message.step}/{message.steps}  {message.images_per_second:.0f} images/s  "
        f"{console.duration(message.left_s)} left"
    )


#: When this process had loaded the job, some tenths of a second after it was called.
STARTED = time.monotonic()


class EventLog:
    """Called with every message of the training workers, in order.

    ``since`` is the moment (monotonic) from which the first step of the first model is waited for.
    """

    def __init__(self, events: Events, since: float = STARTED) -> None:
        self.events = events
        self._waited_since, self._after = since, "the start"
        self._stepping: set[str] = set()
        self._begun: set[str] = set()
        #: A group that was started again and has told of no checkpoint that it goes on from.
        self._anew: Started | None = None
        self._bars = ExitStack()
        self._advance: console.Advance | None = None
        self._told = time.monotonic()
        self._epochs = {(e.model, e.epoch) for e in events.recorded() if e.event == "epoch"}
        self._hear: dict[type, Callable[[Any], None]] = {
            Started: self._start,
            FirstStep: self._stepped,
            Resumed: self._resume,
            PhotosDone: self._progress,
            Say: lambda message: console.warn(message.line),
            NodeChange: self._node,
            Step: self._step,
            EpochEnded: self._epoch,
            Trained: self._trained,
        }

    def __call__(self, message: Message) -> None:
        self._hear[type(message)](message)

    def close(self) -> None:
        self._bars.close()
        self._advance = None

    def _start(self, message: Started) -> None:
        self.events.add("training", **message._asdict())
        self._anew = message if message.model in self._begun else None
        self._begun.add(message.model)

    def _stepped(self, message: FirstStep) -> None:
        model = message.model
        if self._anew is not None:
            workers = console.plural(self._anew.workers, "worker")
            console.say(f"{model}: again from the start with {workers}")
            self.events.add("restart", model=model, epoch=0, step=0)
            self._anew = None
        if model in self._stepping:  # a group that was started again
            return
        self._stepping.add(model)
        waited = time.monotonic() - self._waited_since
        console.say(f"{model}: first step {waited:.0f} s after {self._after}")
        self.events.add("first_step", model=model, seconds=round(waited, 1), after=self._after)

    def _resume(self, message: Resumed) -> None:
        self._anew = None
        workers = console.plural(message.workers, "worker")
        where = f"after epoch {message.epoch}"
        if message.step:
            where = f"in epoch {message.epoch + 1} after step {message.step}"
        console.say(f"{message.model}: going on {where} with {workers}")
        self.record_epochs(message.model, message.epochs, message.history)
        facts = {key: value for key, value in message._asdict().items() if key != "history"}
        self.events.add("restart", **facts)

    def record_epochs(self, model: str, epochs: int, history: Sequence[Epoch]) -> None:
        """Those that no driver lived to hear of: workers write an epoch down before they tell."""
        for row in history:
            if (model, row.epoch) not in self._epochs:
                self._record(model, epochs, row)

    def _record(self, model: str, epochs: int, row: Epoch) -> None:
        self._epochs.add((model, row.epoch))
        self.events.add("epoch", model=model, epochs=epochs, **row.as_json())

    def _progress(self, message: PhotosDone) -> None:
        """The bar ends with the last of the photos."""
        done, total, what = message.done, message.total, message.what
        if console.is_live():
            if self._advance is None:
                self._advance = self._bars.enter_context(console.progress(what, total))
            self._advance(done, f"{done} of {total}")
        elif time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            console.say(f"{what}: {done} of {total}")
        if done >= total:
            self.close()

    def _node(self, message: NodeChange) -> None:
        address, cause = message.address, message.cause
        if message.lost:
            console.warn(f"node {address} was lost" + (f": {cause}" if cause else ""))
        else:
            console.say(f"node {address} has come")
        self.events.add("node", **message._asdict())

    def _step(self, message: Step) -> None:
        label = f"{message.model} epoch {message.epoch}/{message.epochs}"
        if not console.is_live():
            if time.monotonic() - self._told >= TELL_EVERY_S:
                self._told = time.monotonic()
                console.say(f"{label}  {step_text(message)}")
            return
        if self._advance is None:
            bar = console.progress(label, message.steps, clock=False)
            self._advance = self._bars.enter_context(bar)
        self._advance(message.step, step_text(message))

    def _epoch(self, message: EpochEnded) -> None:
        self.close()
        self._told = time.monotonic()
        model, epochs, row = message.model, message.epochs, message.row
        self._record(model, epochs, row)
        console.say(
            f"{model} epoch {row.epoch}/{epochs}  {measures(row)}  {row.images_per_second:.0f} "
            f"images/s  {console.duration((epochs - row.epoch) * row.seconds)} left"
        )

    def _trained(self, message: Trained) -> None:
        self.close()
        train, best = message.result.train, message.result.best
        console.say(
            f"{message.model} done in {console.duration(train.seconds or 0)}: best epoch "
            f"{best.epoch}, val_accuracy {best.val_accuracy:.4f}"
        )
        self.events.add("trained", model=message.model, **train.as_json())
        self._waited_since, self._after = time.monotonic(), f"the end of {message.model}"

    def trial(self, key: str, point: Point, row: Epoch) -> None:
        """One epoch of one trial of a sweep."""
        console.say(
            f"trial {key} ({settings_line(point)}) epoch {row.epoch}  "
            f"val_loss {row.val_loss:.4f}  val_accuracy {row.val_accuracy:.4f}"
        )
        self.events.add("trial", id=key, config=point, **row.as_json())

    def trial_ended(self, trial: Trial) -> None:
        """A trial of seconds, told as a whole when it ends."""
        what = f"trial {trial.id} ({settings_line(trial.config)})"
        if trial.has_failed:
            console.warn(f"{what} failed: {trial.error}")
            return
        console.say(f"{what}  val_loss {trial.val_loss:.4f}  val_accuracy {trial.val_accuracy:.4f}")
        last = trial.history[-1].as_json()
        self.events.add("trial", id=trial.id, config=trial.config, **last)

    def ranking(self, trials: Sequence[Trial]) -> None:
        """The trials, best first."""
        rows = [
            [
                trial.id,
                settings_line(trial.config),
                "–" if trial.val_accuracy is None else f"{trial.val_accuracy:.4f}",
                str(trial.epochs),
                console.duration(trial.seconds),
                trial.status,
            ]
            for trial in trials
        ]
        console.table(["trial", "setting", "val_accuracy", "epochs", "time", "status"], rows)


def settings_line(config: Point) -> str:
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in config.items()
    )
