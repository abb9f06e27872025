"""Show worker progress on the console and append it to ``events.jsonl``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from catdog import console
from catdog.runs import Events


def epoch_line(message: dict[str, Any], left_s: float | None) -> str:
    """``base_cnn epoch 2/6  loss …  accuracy …  val_loss …  val_accuracy …  … images/s  … left``"""
    parts = [
        f"{message['model']} epoch {message['epoch']}/{message['epochs']}",
        *(f"{key} {message[key]:.4f}" for key in ("loss", "accuracy", "val_loss", "val_accuracy")),
        f"{message['images_per_second']:.0f} images/s",
    ]
    if left_s is not None:
        parts.append(f"{console.duration(left_s)} left")
    return "  ".join(parts)


#: How often a log without a bar says how far an epoch is.
TELL_EVERY_S = 15.0


def step_text(message: dict[str, Any]) -> str:
    """``step 12/40  230 images/s  1:20 left``: of the whole training, validation left aside."""
    return (
        f"step {message['step']}/{message['steps']}  {message['images_per_second']:.0f} images/s  "
        f"{console.duration(message['left_s'])} left"
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
        self._anew: dict[str, Any] | None = None
        self._bars = ExitStack()
        self._advance: console.Advance | None = None
        self._told = time.monotonic()
        recorded = (json.loads(line) for line in events.lines)
        self._epochs = {(e["model"], e["epoch"]) for e in recorded if e["event"] == "epoch"}

    def __call__(self, message: dict[str, Any]) -> None:
        getattr(self, f"_{message['kind']}")(message)

    def close(self) -> None:
        self._bars.close()
        self._advance = None

    def _start(self, message: dict[str, Any]) -> None:
        facts = {key: value for key, value in message.items() if key != "kind"}
        self.events.add("training", **facts)
        self._anew = facts if message["model"] in self._begun else None
        self._begun.add(message["model"])

    def _stepped(self, message: dict[str, Any]) -> None:
        if self._anew is not None:
            workers = console.plural(self._anew["workers"], "worker")
            console.say(f"{message['model']}: again from the start with {workers}")
            self.events.add("restart", model=message["model"], epoch=0, step=0)
            self._anew = None
        if message["model"] in self._stepping:  # a group that was started again
            return
        self._stepping.add(message["model"])
        waited = time.monotonic() - self._waited_since
        console.say(f"{message['model']}: first step {waited:.0f} s after {self._after}")
        self.events.add(
            "first_step", model=message["model"], seconds=round(waited, 1), after=self._after
        )

    def _resume(self, message: dict[str, Any]) -> None:
        self._anew = None
        workers = console.plural(message["workers"], "worker")
        where = f"after epoch {message['epoch']}"
        if message["step"]:
            where = f"in epoch {message['epoch'] + 1} after step {message['step']}"
        console.say(f"{message['model']}: going on {where} with {workers}")
        facts = {key: value for key, value in message.items() if key not in ("kind", "history")}
        self.record_epochs(message["model"], message["epochs"], message["history"])
        self.events.add("restart", **facts)

    def record_epochs(self, model: str, epochs: int, history: Sequence[dict[str, Any]]) -> None:
        """Those that no driver lived to hear of: workers write an epoch down before they tell."""
        for row in history:
            if (model, row["epoch"]) not in self._epochs:
                self._record(model, epochs, row)

    def _record(self, model: str, epochs: int, row: dict[str, Any]) -> None:
        self._epochs.add((model, row["epoch"]))
        self.events.add("epoch", model=model, epochs=epochs, **row)

    def _progress(self, message: dict[str, Any]) -> None:
        """Photos done of a longer piece of work; the bar ends with the last of them."""
        done, total, what = message["done"], message["total"], message["what"]
        if console.is_live():
            if self._advance is None:
                self._advance = self._bars.enter_context(console.progress(what, total))
            self._advance(done, f"{done} of {total}")
        elif time.monotonic() - self._told >= TELL_EVERY_S:
            self._told = time.monotonic()
            console.say(f"{what}: {done} of {total}")
        if done >= total:
            self.close()

    def _say(self, message: dict[str, Any]) -> None:
        console.warn(message["line"])

    def _node(self, message: dict[str, Any]) -> None:
        address, cause = message["address"], message["cause"]
        if message["lost"]:
            console.warn(f"node {address} was lost" + (f": {cause}" if cause else ""))
        else:
            console.say(f"node {address} has come")
        self.events.add("node", address=address, lost=message["lost"], cause=cause)

    def _step(self, message: dict[str, Any]) -> None:
        label = f"{message['model']} epoch {message['epoch']}/{message['epochs']}"
        if not console.is_live():
            if time.monotonic() - self._told >= TELL_EVERY_S:
                self._told = time.monotonic()
                console.say(f"{label}  {step_text(message)}")
            return
        if self._advance is None:
            bar = console.progress(label, message["steps"], clock=False)
            self._advance = self._bars.enter_context(bar)
        self._advance(message["step"], step_text(message))

    def _epoch(self, message: dict[str, Any]) -> None:
        self.close()
        self._told = time.monotonic()
        left = (message["epochs"] - message["epoch"]) * message["seconds"]
        row = {key: message[key] for key in message if key not in ("kind", "model", "epochs")}
        self._record(message["model"], message["epochs"], row)
        console.say(epoch_line(message, left))

    def _trained(self, message: dict[str, Any]) -> None:
        self.close()
        facts = message["facts"]
        best = facts["best"]
        console.say(
            f"{message['model']} done in {console.duration(facts['train']['seconds'])}: best epoch "
            f"{best['epoch']}, val_accuracy {best['val_accuracy']:.4f}"
        )
        self.events.add("trained", model=message["model"], **facts["train"])
        self._waited_since, self._after = time.monotonic(), f"the end of {message['model']}"

    def trial(self, result: dict[str, Any]) -> None:
        """One epoch of one trial of a sweep."""
        console.say(
            f"trial {result['id']} ({settings_line(result['config'])}) epoch {result['epoch']}  "
            f"val_loss {result['val_loss']:.4f}  val_accuracy {result['val_accuracy']:.4f}"
        )
        self.events.add("trial", **result)

    def trial_ended(self, record: dict[str, Any]) -> None:
        """A trial of seconds, told as a whole when it ends."""
        what = f"trial {record['id']} ({settings_line(record['config'])})"
        if record["status"] == "failed":
            console.warn(f"{what} failed: {record['error']}")
            return
        console.say(
            f"{what}  val_loss {record['val_loss']:.4f}  val_accuracy {record['val_accuracy']:.4f}"
        )
        last = record["history"][-1]
        self.events.add("trial", id=record["id"], config=record["config"], **last)

    def ranking(self, trials: list[dict[str, Any]]) -> None:
        """The trials, best first."""
        rows = [
            [
                trial["id"],
                settings_line(trial["config"]),
                "–" if trial["val_accuracy"] is None else f"{trial['val_accuracy']:.4f}",
                str(trial["epochs"]),
                console.duration(trial["seconds"]),
                trial["status"],
            ]
            for trial in trials
        ]
        console.table(["trial", "setting", "val_accuracy", "epochs", "time", "status"], rows)


def settings_line(config: dict[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in config.items()
    )
