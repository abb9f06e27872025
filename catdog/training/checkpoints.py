"""Checkpoints of one training: one file for each epoch or preemption notice, written atomically.

``model.save`` would lose the states of the random generators (keras 3.15: dropout goes on from
another mask), so a checkpoint holds every variable of network, optimizer and augmentation as
arrays; restored on every rank after the build it is exact to the last bit, with another number of
workers too. The zip container carries a CRC for every array: a truncated or damaged file is
noticed when it is read, and the one before it is used.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from catdog.errors import UserError
from catdog.storage import Location
from catdog.storage.retrying import retried

#: The newest and the one before it, should the newest turn out to be damaged.
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """Arrays in the order of the variables they came from, and what is known about them.

    ``meta``: identity, epoch (1-based, finished), history (list of rows), seconds.
    """

    arrays: list[NDArray[Any]]
    meta: dict[str, Any]


class Position(NamedTuple):
    """How far a training had come: epochs done, and steps of the next one."""

    epoch: int
    step: int = 0

    @property
    def file(self) -> str:
        return f"epoch-{self.epoch:04d}" + (f"-step-{self.step:06d}" if self.step else "") + ".npz"

    def __str__(self) -> str:
        return f"step {self.step} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"


_FILE = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.npz")
_BEST = re.compile(r"best-\d+\.npz")


def _best(epoch: int) -> str:
    return f"best-{epoch:04d}.npz"


def encode(checkpoint: Checkpoint) -> bytes:
    buffer = io.BytesIO()
    meta = np.frombuffer(json.dumps(checkpoint.meta).encode(), dtype=np.uint8)
    np.savez(buffer, *checkpoint.arrays, meta=meta)
    return buffer.getvalue()


def decode(content: bytes) -> Checkpoint:
    """The inverse of :func:`encode`.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with np.load(io.BytesIO(content)) as archive:
            meta = json.loads(archive["meta"].tobytes())
            arrays = [archive[f"arr_{index}"] for index in range(len(archive.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"damaged: {error}") from error
    return Checkpoint(arrays, meta)


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of one training, below ``folder``.

    Storage that fails for a while is waited for, with a line to ``say``.
    """

    folder: Location
    identity: str
    say: Callable[[str], None]

    def save(self, position: Position, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, then drop those that it makes needless.

        The last :data:`KEPT` at the end of an epoch stay, and one within an epoch until that ends.
        """
        self._write(position.file, checkpoint, f"writing the checkpoint of {position}")
        found = self._positions()
        kept = {*[each for each in found if not each.step][-KEPT:], found[-1]}
        for old in found:
            if old not in kept:
                self._drop(old.file)

    def save_best(self, epoch: int, arrays: Sequence[NDArray[Any]], meta: dict[str, Any]) -> None:
        """To be called before :meth:`save`, which tells of it."""
        what = f"writing the best weights so far, of epoch {epoch}"
        self._write(_best(epoch), Checkpoint(list(arrays), meta), what)

    def load_best(self, epoch: int) -> Checkpoint:
        return decode(self._read(_best(epoch)))

    def keep_best(self, epochs: set[int]) -> None:
        """Drop the best weights of other epochs: no checkpoint that is kept speaks of them."""
        names = {_best(epoch) for epoch in epochs}
        for info in retried(self.folder.list, self.folder, "listing the checkpoints", self.say):
            if _BEST.fullmatch(info.base_name) and info.base_name not in names:
                self._drop(info.base_name)

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that can be read; ``None`` where there is none.

        Raises:
            UserError: it belongs to another model or other settings.
        """
        for position in reversed(self._positions()):
            try:
                checkpoint = decode(self._read(position.file))
            except ValueError as error:
                self.say(
                    f"checkpoint of {position} cannot be used ({error}); trying the one before"
                )
                continue
            if checkpoint.meta["identity"] != self.identity:
                raise UserError(
                    f"{self.folder} holds checkpoints of another model or other settings; "
                    "give another --name, or the settings of that run"
                )
            return checkpoint
        return None

    def _write(self, name: str, checkpoint: Checkpoint, what: str) -> None:
        target, content = self.folder / name, encode(checkpoint)
        retried(lambda: target.write_bytes(content, retry=False), target, what, self.say)

    def _read(self, name: str) -> bytes:
        source = self.folder / name
        return retried(source.read_bytes, source, f"reading {name}", self.say)

    def _drop(self, name: str) -> None:
        stale = self.folder / name
        with suppress(FileNotFoundError):  # an attempt that seemed to fail may have done it
            retried(
                lambda: stale.filesystem.delete_file(stale.path),
                stale,
                f"deleting {name}",
                self.say,
            )

    def _positions(self) -> list[Position]:
        listed = retried(self.folder.list, self.folder, "listing the checkpoints", self.say)
        named = (_FILE.fullmatch(info.base_name) for info in listed)
        return sorted(Position(int(m[1]), int(m[2] or 0)) for m in named if m)
