"""Checkpoints: exact, complete or absent, and never another training's."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.errors import UserError
from catdog.storage import Location
from catdog.training.checkpoints import Checkpoint, CheckpointFolder, Position


def checkpoint(epoch: int, identity: str = "mine") -> Checkpoint:
    arrays = [np.full((3, 2), epoch, np.float32), np.array([7, epoch], np.uint32)]
    return Checkpoint(arrays, {"identity": identity, "epoch": epoch})


def folder(path: Path, identity: str = "mine", say: Any = print) -> CheckpointFolder:
    return CheckpointFolder(Location.of(path), identity, say)


def names(path: Path) -> list[str]:
    return sorted(file.name for file in path.iterdir())


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    folder(tmp_path).save(Position(3), checkpoint(3))
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
    for epoch in range(1, 6):
        if epoch < 4:
            kept.save_best(epoch, checkpoint(epoch).arrays, {})
        kept.save(Position(epoch), checkpoint(epoch))
        kept.keep_best({min(epoch, 3), min(epoch - 1, 3)})
        assert f"best-{min(epoch, 3):04d}.npz" in names(tmp_path)
    assert names(tmp_path) == ["best-0003.npz", "epoch-0004.npz", "epoch-0005.npz"]
    np.testing.assert_array_equal(kept.load_best(3).arrays[0], checkpoint(3).arrays[0])


def test_the_best_weights_of_the_checkpoint_before_stay_with_it(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    for epoch in (1, 2):
        kept.save_best(epoch, checkpoint(epoch).arrays, {})
        kept.save(Position(epoch), checkpoint(epoch))
        kept.keep_best({epoch, epoch - 1})
    # Killed in the third epoch, after its best weights and before its checkpoint.
    kept.save_best(3, checkpoint(3).arrays, {})
    (tmp_path / "epoch-0002.npz").write_bytes(b"")
    assert kept.latest() is not None
    np.testing.assert_array_equal(kept.load_best(1).arrays[0], checkpoint(1).arrays[0])


def test_one_within_an_epoch_is_the_newest_until_that_epoch_ends(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    for position in (Position(1), Position(2), Position(2, 7), Position(2, 12)):
        kept.save(position, checkpoint(100 * position.epoch + position.step))
    assert names(tmp_path) == ["epoch-0001.npz", "epoch-0002-step-000012.npz", "epoch-0002.npz"]
    found = kept.latest()
    assert found is not None
    assert found.meta["epoch"] == 212
    kept.save(Position(3), checkpoint(3))
    assert names(tmp_path) == ["epoch-0002.npz", "epoch-0003.npz"]


@pytest.mark.parametrize("length", [0, 1, 200, -1])
def test_a_truncated_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, length: int
) -> None:
    said: list[str] = []
    kept = folder(tmp_path, say=said.append)
    kept.save(Position(1), checkpoint(1))
    kept.save(Position(2), checkpoint(2))
    newest = tmp_path / "epoch-0002.npz"
    newest.write_bytes(newest.read_bytes()[:length])
    found = kept.latest()
    assert found is not None
    assert found.meta["epoch"] == 1
    assert "epoch 2 cannot be used" in said[0]


def test_a_flipped_byte_is_noticed(tmp_path: Path) -> None:
    kept = folder(tmp_path)
    kept.save(Position(1), checkpoint(1))
    kept.save(Position(2), checkpoint(2))
    newest = tmp_path / "epoch-0002.npz"
    content = bytearray(newest.read_bytes())
    content[content.index(b"\x93NUMPY") + 130] ^= 0xFF
    newest.write_bytes(content)
    found = kept.latest()
    assert found is not None
    assert found.meta["epoch"] == 1


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, "theirs").save(Position(1), checkpoint(1, "theirs"))
    with pytest.raises(UserError, match="other settings"):
        folder(tmp_path, "mine").latest()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Remounts ``tmp_path / "disk"``, a file system of its own; needs root."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options: str) -> subprocess.CompletedProcess[str]:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    if (done := mount("size=1m")).returncode:
        pytest.skip(f"needs a file system of its own: {done.stderr.strip()}")
    yield lambda options: mount(f"remount,{options}").check_returncode()
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_read_only_for_a_moment_is_waited_for(
    tmp_path: Path, disk: Callable[[str], None]
) -> None:
    said: list[str] = []
    kept = folder(tmp_path / "disk", say=said.append)
    kept.save(Position(1), checkpoint(1))
    disk("ro")
    threading.Timer(0.5, disk, ["rw"]).start()
    kept.save(Position(2), checkpoint(2))
    assert said[0].startswith("writing the checkpoint of epoch 2 failed (Read-only file system); ")
    assert said[-1].startswith("writing the checkpoint of epoch 2 succeeded after ")
    assert names(tmp_path / "disk") == ["epoch-0001.npz", "epoch-0002.npz"]


def test_a_full_disk_is_told_at_once_and_leaves_the_last_checkpoint(
    tmp_path: Path, disk: Callable[[str], None]
) -> None:
    said: list[str] = []
    kept = folder(tmp_path / "disk", say=said.append)
    kept.save(Position(1), checkpoint(1))
    large = Checkpoint([np.zeros(2 << 20, np.uint8)], {"identity": "mine", "epoch": 2})
    with pytest.raises(OSError, match="No space left"):
        kept.save(Position(2), large)
    assert said == []
    assert names(tmp_path / "disk") == ["epoch-0001.npz"]
    found = kept.latest()
    assert found is not None
    assert found.meta["epoch"] == 1
