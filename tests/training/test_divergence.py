"""A loss that is not finite ends a training soon, with the step and the rate at which it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tiny import make_job, train_here, write_rows


def spoil(folder: Path) -> None:
    """Training rows that are no numbers, in the place of good ones."""
    from catdog.data.shards import write_shard
    from catdog.storage import Location

    rows = np.full((320, 4, 4, 256), np.nan, np.float16)
    target = Location.of(str(folder / "rows" / "train" / "0.arrow"))
    write_shard(target, rows, labels=np.arange(320) % 2, uris=[f"{n}.jpg" for n in range(320)])


@pytest.mark.timeout(120)
def test_a_loss_that_is_not_finite_is_told_within_the_epoch_and_the_best_epoch_stays(
    tmp_path: Path,
) -> None:
    from catdog.training.progress import TrainingDiverged

    write_rows(tmp_path)
    job = make_job(tmp_path, "diverges", epochs=3)
    train_here(job, 1)
    kept = {file.name: file.read_bytes() for file in (tmp_path / "diverges").rglob("*.npz")}
    assert set(kept) == {"best-0001.npz", "epoch-0001.npz"}
    spoil(tmp_path)
    # 40 steps an epoch; the loss is looked at after each 20.
    with pytest.raises(TrainingDiverged, match=r"nan in epoch 2 \(step 60, learning rate \d"):
        train_here(job)
    left = {file.name: file.read_bytes() for file in (tmp_path / "diverges").rglob("*.npz")}
    assert left == kept
