"""Event files for TensorBoard: a small one for each epoch of a training.

Named by its epoch and written as a whole, so that an epoch that is trained again replaces its
file, a resumed training adds to what is there, and an object store serves like a disk.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable

from catdog.runs.records import Epoch
from catdog.storage import Location
from catdog.storage.retrying import retried

#: What of an epoch's row is drawn, each under its own name.
SCALARS = set(Epoch.model_fields) - {"phase", "epoch", "seconds"}


def event_file(output: Location, epoch: int) -> Location:
    """Where the events of ``epoch`` (from 1) belong; TensorBoard reads the files by name."""
    return output / "tensorboard" / f"events.out.tfevents.{epoch:010d}.catdog"


def write_events(output: Location, row: Epoch, say: Callable[[str], None]) -> None:
    """Write the events of one epoch; storage that fails for a while is waited for."""
    target, content = event_file(output, row.epoch), encode_events(row)
    what = f"writing the events of epoch {row.epoch}"
    retried(lambda: target.write_bytes(content, retry=False), target, what, say)


def encode_events(row: Epoch, wall_time: float | None = None) -> bytes:
    """An event file with the scalars of one epoch, which is its step.

    ``wall_time``: seconds since 1970; now where not given.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    seconds = time.time() if wall_time is None else wall_time
    scalars = row.model_dump(include=SCALARS, exclude_unset=True)
    values = [Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    # The first record of every event file names its format.
    writer.write(Event(wall_time=seconds, file_version="brain.Event:2").SerializeToString())
    event = Event(wall_time=seconds, step=row.epoch, summary=Summary(value=values))
    writer.write(event.SerializeToString())
    writer.flush()
    return buffer.getvalue()
