"""What a run's files hold, one class for each kind of record; they are written and read with these.

Every value may be missing, for a file may come from an older version, and is then its default; keys
of a newer version are kept. A key is never renamed: other programs read the files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: Of the files' format; a reader takes what it knows of any version.
VERSION = 1

#: A measure of an epoch; NaN where it is not known, or came to that.
Measure: TypeAlias = Annotated[float, Field(allow_inf_nan=True)]
#: A setting that a sweep tries: a number, or a word like ``all``.
Setting: TypeAlias = float | int | str | None
Point: TypeAlias = dict[str, Setting]


class Record(BaseModel):
    """Values of their kinds, none turned into another: ``"3"`` is no number."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    def as_json(self) -> dict[str, object]:
        """What JSON can hold, without what was never set."""
        return self.model_dump(mode="json", exclude_unset=True)

    @classmethod
    def fitted(cls, tree: object) -> tuple[Self, list[str]]:
        """The record with what fits of ``tree``, and the names of what was left out.

        ``null`` in place of a list, say, is what is not known: left out, and not named.
        """
        try:
            return cls.model_validate(tree), []
        except ValidationError as error:
            misfits = error.errors(include_url=False)
        if not isinstance(tree, dict):
            return cls(), [] if tree is None else ["all of it"]
        places = dict.fromkeys(_place(tree, misfit["loc"]) for misfit in misfits)
        # The last first, so that places in lists stay.
        left_out = {place: _taken(tree, place) for place in reversed(places)}
        named = (_name(place) for place in places if left_out[place] is not None)
        return cls.model_validate(tree), list(dict.fromkeys(named))


def _place(tree: Any, place: Sequence[int | str]) -> tuple[int | str, ...]:
    """``place`` as far as it is one in ``tree``: Pydantic adds which type of several it tried."""
    for depth, part in enumerate(place):
        if part not in (tree if isinstance(tree, dict) else range(len(tree))):
            return tuple(place[:depth])
        tree = tree[part]
        if not isinstance(tree, dict | list):
            return tuple(place[: depth + 1])
    return tuple(place)


def _taken(tree: Any, place: Sequence[int | str]) -> object:
    *above, last = place
    for part in above:
        tree = tree[part]
    return tree.pop(last)


def _name(place: Sequence[int | str]) -> str:
    """``train.seconds``, ``trials[].epochs``."""
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")


class File(Record):
    """A record that is a file of its own; such a file says its version."""

    def as_json(self) -> dict[str, object]:
        return {"version": VERSION, **super().as_json()}


class Epoch(Record):
    """One epoch of a training; the head on frozen features is one of phase ``probe``."""

    phase: str = "scratch"
    epoch: int = 0
    loss: Measure = math.nan
    accuracy: Measure = math.nan
    val_loss: Measure = math.nan
    val_accuracy: Measure = math.nan
    seconds: float = 0.0
    images_per_second: float | None = None
    learning_rate: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """More validation accuracy is better, and as much at a lower loss."""
        return self.val_accuracy, -self.val_loss


class Event(Epoch):
    """A line of ``events.jsonl``: when, what, and of which training; an epoch's also its row."""

    time: str = ""
    event: str = ""
    model: str = ""
    id: str = ""
    config: Point = {}
    step: int = 0

    @property
    def row(self) -> Epoch:
        return Epoch.model_validate(self.model_dump(include=set(Epoch.model_fields)))


class TrainingFacts(Record):
    """What a training took."""

    epochs: int | None = None
    seconds: float | None = None
    images_per_second: float | None = None
    workers: int | None = None
    restarts: int = 0


class _Trained(File):
    name: str = ""
    parameters: int | None = None
    precision: str | None = None
    #: The same bits on any number of workers; none where that was not asked for.
    reproducible: bool | None = None
    #: Why they were not, although they were to be.
    varies: str | None = None
    train: TrainingFacts = TrainingFacts()
    file_bytes: int | None = None


class Training(_Trained):
    """``trained.json`` and ``probed.json``: what a training came to, from its workers."""

    identity: str = ""
    epochs_asked: int = 0
    best: Epoch = Epoch()
    history: list[Epoch] = []


class ProbeTrial(Record):
    """A head fitted with one strength of the penalty."""

    config: Point = {}
    row: Epoch = Epoch()


class Probe(File):
    """``probe.json``: a head fitted on the frozen features named ``features``."""

    row: Epoch = Epoch()
    trials: list[ProbeTrial] = []
    seconds: float = 0.0
    features: str = ""
    feature_seconds: float = 0.0
    class_weights: bool | None = None


class Model(_Trained):
    """``model.json``: a model with all that its making took."""

    weights: str | None = None
    weights_hash: str | None = None
    input_scale: str | None = None
    image_size: int | None = None
    seed: int | None = None
    #: Its phase and number alone.
    best: Epoch = Epoch(phase="")
    unfrozen_blocks: int | str | None = None
    settings: dict[str, object] = {}
    predict_images_per_second: float | None = None


class Session(Record):
    """One command's work on a run."""

    started_at: str = ""
    seconds: float = 0.0
    outcome: str = ""


class Hardware(Record):
    cpu: str | None = None
    cpus: int | None = None
    memory_bytes: int | None = None
    gpus: list[str] = []
    nodes: int | None = None


class Run(File):
    """``run.json``."""

    name: str = ""
    identity: str = ""
    status: str | None = None
    preset: str | None = None
    command: str | None = None
    started_at: str | None = None
    finished_at: str | None = None
    seconds: float | None = None
    resumed: bool = False
    sessions: list[Session] = []
    versions: dict[str, str] = {}
    git_commit: str | None = None
    seeds: list[int] = []
    #: What may grow from one command to the next: epochs, trials, seeds.
    asked: dict[str, int] = {}
    notes: list[str] = []
    error: str | None = None
    hardware: Hardware = Hardware()
    precision: str | None = None
    #: By model, in words: whether its bits depend on the number of workers.
    reproducible: dict[str, str] = {}
    #: Names of the sets of features that it uses.
    features: list[str] | None = None
    #: The id of its run on a tracking server.
    mlflow: str | None = None


class Trial(File):
    """A trial of a sweep: ``finished``, ``stopped`` (by ASHA), ``failed`` or ``running``."""

    id: str = ""
    config: Point = {}
    val_accuracy: float | None = None
    val_loss: float | None = None
    epochs: int = 0
    seconds: float = 0.0
    status: str = ""
    error: str | None = None
    history: list[Epoch] = []

    @property
    def has_failed(self) -> bool:
        return self.status == "failed"


class Sweep(File):
    """``trials.json``."""

    trials: list[Trial] = []
    best: Trial | None = None
    search: str | None = None
    seconds: float | None = None


class Manifest(Record):
    """``manifest.json`` of a prepared set, as far as others than :mod:`catdog.data` read it."""

    source: str | None = None
    fingerprint: str | None = None
    contents: str | None = None
    sample: bool = False
    files: int | None = None
    kept: int | None = None
    held_back: int | None = None
    rejected: dict[str, int] = {}
    #: Kept photos by what inspection remarked on them.
    flags: dict[str, int] = {}
    splits: dict[str, dict[str, int]] = {}
    seconds: float | None = None
    images_per_second: float | None = None


class Export(Record):
    """A model's file for other programs, and how near its answers are to the model's."""

    path: str = ""
    precision: str = ""
    bytes: int | None = None
    temperature: float | None = None
    latency_ms: float | None = None
    cores: int | None = None
    max_difference: Measure = math.nan
    same_label_as_run: float | None = None
    test_photos: int | None = None
    same_label_from_jpeg: float | None = None
    jpeg_photos: int | None = None
    made_at: str = ""


class Exports(File):
    """``exports.json``."""

    formats: dict[str, Export] = {}
