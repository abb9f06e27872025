"""Files to measure with: what is given, repeated under new names until there are enough."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from catdog.data import sample, sources
from catdog.data.images import Photo, inspect
from catdog.data.labels import CLASSES
from catdog.errors import UserError


def _is_good(path: str) -> bool:
    return isinstance(inspect(Path(path).read_bytes(), 32), Photo)


@contextmanager
def workplace(given: str | None) -> Iterator[Path]:
    """A temporary folder that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="catdog-benchmark-", dir=given) as name:
        yield Path(name)


def repeated(data: str | None, count: int, size: int, work: Path) -> Path:
    """A folder of ``count`` files, links to the photos of ``data`` in turn, or to drawings.

    Hard links where the disk allows them: a listing then costs what it does for files. Damaged
    files are left out: ``read_images`` fails at the first.
    """
    if data is None:
        data = str(work / "drawings")
        sample.draw(Path(data), 480, 0, size)
    listing = sources.list_source(data)
    labelled = [
        (CLASSES[label], path)
        for label, path in zip(
            listing.files.column("label").to_pylist(),
            listing.files.column("path").to_pylist(),
            strict=True,
        )
        if label >= 0 and _is_good(path)
    ]
    # Cats and dogs in turn, so that any beginning has both.
    cats = [pair for pair in labelled if pair[0] == CLASSES[0]]
    dogs = [pair for pair in labelled if pair[0] == CLASSES[1]]
    labelled = [pair for both in zip(cats, dogs, strict=False) for pair in both]
    if not labelled or listing.archive or not listing.source.is_local:
        raise UserError(f"{data} is no local folder of cats and dogs")
    folder = work / f"photos-{count}"
    folder.mkdir()
    for number, (label, path) in enumerate(itertools.islice(itertools.cycle(labelled), count)):
        name = folder / f"{label}.{number}.jpg"
        try:
            os.link(path, name)
        except OSError:  # on another disk
            os.symlink(path, name)
    return folder
