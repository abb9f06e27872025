"""Ray Data graph of the data stage: blocks of file names in, verdicts out."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from catdog.cluster.private import resource_manager
from catdog.data import sources
from catdog.data.decoding import pixel_digest
from catdog.data.inspection import Plan, inspect_block
from catdog.errors import UserError
from catdog.storage import Location

#: Called with (files done, files in all).
Progress = Callable[[int, int], None]
_DIGESTS_AT_ONCE = 64
#: Enough for every core to have several: a slow one costs little.
_BLOCKS_A_CORE = 4
#: A lost task repeats at most so many photos, some seconds of work.
_BLOCK_ROWS = 2560
#: The answer lies in this process: asking costs nothing.
_LIMITS_EVERY_S = 0.1


def run(listing: sources.Listing, plan: Plan, on_progress: Progress) -> pa.Table:
    """The Ray Data graph: a few large blocks of file names in, verdicts out."""
    import ray

    total, done, parts = len(listing.files), 0, []
    with quiet(), _prompt_limits():
        dataset = ray.data.from_arrow(list(_blocks(listing.files)))
        dataset = dataset.map_batches(
            inspect_block,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"plan": plan},
            zero_copy_batch=True,
        )
        for part in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            parts.append(part)
            done += len(part)
            on_progress(done, total)
    return pa.concat_tables(parts)


@contextlib.contextmanager
def full_disk_told(storage: Location) -> Iterator[None]:
    """Turn the error of a full disk into one line for the user."""
    from ray.exceptions import RayTaskError

    try:
        yield
    except (RayTaskError, OSError) as error:
        if os.strerror(errno.ENOSPC) in str(error):  # the cause itself does not travel
            raise UserError(f"the disk of {storage} is full; free some space") from error
        raise


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Turn off Ray Data's own messages and progress bars."""
    import ray

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    bars, level = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        logger.setLevel(level)


@contextlib.contextmanager
def _prompt_limits() -> Iterator[None]:
    """Let Ray Data look for free resources more often than once a second.

    Until then it starts one task alone: of 10 s on two cores, one core lost the first.
    """
    manager = resource_manager()
    before = manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S
    manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = _LIMITS_EVERY_S
    try:
        yield
    finally:
        manager.GLOBAL_LIMITS_UPDATE_INTERVAL_S = before


def _blocks(files: pa.Table) -> Iterator[pa.Table]:
    """Divide the files into few large blocks: Ray Data looks for finished tasks ten times a second.

    A core waits 0.15 s for its next block, which was 13 % of blocks of 1,024 photos.
    """
    import ray

    cores = int(ray.cluster_resources().get("CPU", 1))
    rows = min(_BLOCK_ROWS, max(64, -(-len(files) // (_BLOCKS_A_CORE * cores))))
    numbered = files.append_column("index", pa.array(np.arange(len(files))))
    for number, start in enumerate(range(0, len(files), rows)):
        block = numbered.slice(start, rows).combine_chunks()
        yield block.append_column("block", pa.array(np.full(len(block), number)))


def pixel_digests(listing: sources.Listing) -> Callable[[list[int]], list[bytes | None]]:
    """Digests of pixels at full size, computed in tasks."""

    def of(places: list[int]) -> list[bytes | None]:
        import ray

        if not places:
            return []
        task = ray.remote(_digests)
        entries = listing.files.take(pa.array(places)).to_pylist()
        pieces = range(0, len(entries), _DIGESTS_AT_ONCE)
        jobs = [task.remote(entries[i : i + _DIGESTS_AT_ONCE], listing.bases) for i in pieces]
        return [digest for job in jobs for digest in ray.get(job)]

    return of


def _digests(entries: list[dict[str, Any]], bases: tuple[Location, ...]) -> list[bytes | None]:
    found: list[bytes | None] = []
    for entry in entries:
        where = (bases[entry["base"]], entry["path"], entry["offset"], entry["size"])
        try:
            found.append(pixel_digest(sources.read(*where)))
        except OSError:
            found.append(None)
    return found
