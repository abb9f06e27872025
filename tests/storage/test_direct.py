"""Files written past the page cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from catdog.storage import direct
from catdog.storage.direct import PIECE_BYTES, DirectFile

CONTENT = np.random.default_rng(0).integers(0, 256, 3 * PIECE_BYTES + 12_345, np.uint8).tobytes()


def _written(path: Path, pieces: list[int]) -> DirectFile:
    """Write :data:`CONTENT` in pieces of the given sizes, in turn."""
    file, at, turn = DirectFile(path), 0, 0
    while at < len(CONTENT):
        size = pieces[turn % len(pieces)]
        file.write(memoryview(CONTENT)[at : at + size])
        at, turn = at + size, turn + 1
    file.close()
    return file


@pytest.mark.parametrize(
    "pieces", [[1_000_003, 7], [PIECE_BYTES], [3 * PIECE_BYTES + 1]], ids=["odd", "whole", "large"]
)
def test_what_was_written_is_in_the_file(tmp_path: Path, pieces: list[int]) -> None:
    _written(tmp_path / "file", pieces)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_disk_that_does_not_keep_up_is_written_through_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "PATIENCE_S", 0.0)
    monkeypatch.setattr(direct, "WAITED_SHARE", 0.0)
    file = DirectFile(tmp_path / "file")
    for _ in range(3):  # the second and third wait for the one before
        file.write(CONTENT[:PIECE_BYTES])
    assert not file.direct
    file.write(CONTENT[:10])
    file.close()
    assert (tmp_path / "file").read_bytes() == 3 * CONTENT[:PIECE_BYTES] + CONTENT[:10]


def test_an_abandoned_file_leaves_its_memory_for_the_next(tmp_path: Path) -> None:
    file = DirectFile(tmp_path / "file")
    file.write(CONTENT)
    file.abandon()
    file.close()
    spare = len(direct._spare_buffers())
    _written(tmp_path / "next", [PIECE_BYTES])
    assert len(direct._spare_buffers()) == spare
    assert (tmp_path / "next").read_bytes() == CONTENT


def test_a_full_disk_is_an_error_of_the_one_who_writes() -> None:
    file = DirectFile("/dev/full")
    file.write(CONTENT[:100])
    with pytest.raises(OSError, match="No space left"):
        file.close()
