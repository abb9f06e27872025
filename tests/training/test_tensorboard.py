"""Event files, read back with TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

from catdog.runs.records import Epoch
from catdog.storage import Location
from catdog.training.tensorboard import SCALARS, write_events


def row(epoch: int) -> Epoch:
    values = {name: epoch + index / 8 for index, name in enumerate(sorted(SCALARS))}
    return Epoch(epoch=epoch, seconds=2.5, **values)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(event.step, event.value) for event in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def write(output: Path, epoch: int) -> None:
    write_events(Location.of(output), row(epoch), print)


def test_an_epoch_that_is_trained_again_is_there_once(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 3, 4, 10, 11):
        write(tmp_path, epoch)
    found = scalars(tmp_path / "tensorboard")
    assert set(found) == set(SCALARS)
    for name in SCALARS:
        expected = [(epoch, getattr(row(epoch), name)) for epoch in (1, 2, 3, 4, 10, 11)]
        assert found[name] == expected


def test_a_reader_that_watches_sees_each_epoch_when_it_ends(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write(tmp_path, 1)
    reader = EventAccumulator(str(tmp_path / "tensorboard"))
    for epoch in (1, 2, 3):
        write(tmp_path, epoch)
        reader.Reload()
        assert [event.step for event in reader.Scalars("val_loss")] == list(range(1, epoch + 1))
