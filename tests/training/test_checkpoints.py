"""Checkpoints: exact, complete or absent, and never another training's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catdog.errors import UserError
from catdog.storage import Location
from catdog.training.checkpoints import Checkpoint, CheckpointFolder


def checkpoint(epoch: int, identity: str = "mine") -> Checkpoint:
    arrays = [np.full((3, 2), epoch, np.float32), np.array([7, epoch], np.uint32)]
    return Checkpoint(arrays, {"identity": identity, "epoch": epoch})


def folder(path: Path, identity: str = "mine") -> CheckpointFolder:
    return CheckpointFolder(Location.of(path), identity)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    folder(tmp_path).save(3, checkpoint(3))
    found = folder(tmp_path).latest()
    assert found is not None
    assert found.meta["epoch"] == 3
    for array, expected in zip(found.arrays, checkpoint(3).arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_without_a_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert folder(tmp_path / "nothing").latest() is None


def test_the_best_and_the_last_two_stay(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.save_best(checkpoint(1).arrays, {"epoch": 1})
    for epoch in range(1, 6):
        kept.save(epoch, checkpoint(epoch))
    assert names(tmp_path) == ["best.npz", "epoch-0004.npz", "epoch-0005.npz"]


@pytest.mark.parametrize("length", [0, 1, 200, -1])
def test_a_truncated_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, length: int
) -> None:
    kept = folder(tmp_path)
    kept.save(1, checkpoint(1))
    kept.save(2, checkpoint(2))
    newest = tmp_path / "epoch-0002.npz"
    newest.write_bytes(newest.read_bytes()[:length])
    said: list[str] = []
    found = kept.latest(said.append)
    assert found is not None
    assert found.meta["epoch"] == 1
    assert "epoch 2 cannot be used" in said[0]


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.save(1, checkpoint(1))
    kept.save(2, checkpoint(2))
    newest = tmp_path / "epoch-0002.npz"
    content = bytearray(newest.read_bytes())
    content[content.index(b"\x93NUMPY") + 130] ^= 0xFF
    newest.write_bytes(content)
    found = kept.latest(lambda line: None)
    assert found is not None
    assert found.meta["epoch"] == 1


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, "theirs").save(1, checkpoint(1, "theirs"))
    with pytest.raises(UserError, match="other settings"):
        folder(tmp_path, "mine").latest()
