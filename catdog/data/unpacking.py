"""Unpack an archive into pack files whose photos are read by offset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa

from catdog.data import archives, sources
from catdog.data.labels import is_litter, label_of
from catdog.data.sources import Listing
from catdog.storage import Location


def unpacked(listing: Listing, scratch: Callable[[], Location]) -> Listing:
    """For an archive: its members in pack files below ``scratch()``; other listings as they are.

    Raises:
        UserError: the archive is damaged, a bomb, or does not fit on the disk.
    """
    if not listing.archive:
        return listing
    place = listing.source
    info = place.info()
    folder = scratch()
    packed, packs = archives.pack(
        place,
        info.size,
        folder,
        keep=lambda path: not is_litter(path),
        max_file_bytes=sources.MAX_FILE_BYTES,
        head_bytes=1 << 16,
        room=folder.free_bytes(),
    )
    order = sorted(range(len(packed)), key=lambda i: packed[i].path)
    found = [packed[i] for i in order]
    files = pa.table(
        {
            "uri": [f"{place}/{item.path}" for item in found],
            "base": [item.pack for item in found],
            "path": [packs[item.pack].path for item in found],
            "offset": [item.offset for item in found],
            "size": [item.size for item in found],
            "label": [label_of(item.path) for item in found],
            "problem": [item.problem for item in found],
        },
        schema=sources.FILES,
    )
    return replace(listing, files=files, bases=tuple(packs))
