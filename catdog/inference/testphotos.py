"""The test photos of a finished run: prepared pixels, and the JPEG files they came from."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray

from catdog.config import Config
from catdog.data import sample, sources
from catdog.data.inspection import contents
from catdog.data.prepare import PreparedSet, find
from catdog.data.unpacking import unpacked
from catdog.errors import UserError
from catdog.storage import Location


@dataclass(frozen=True)
class TestPhotos:
    """In the order of the prepared set.

    Attributes:
        pixels: uint8 (n, side, side, 3).
        jpegs: rows of ``pixels`` whose file is a JPEG, and the files' bytes (object arrays).
    """

    __test__ = False  # for pytest, which collects by name

    uris: list[str]
    pixels: NDArray[np.uint8]
    jpegs: tuple[NDArray[np.int64], NDArray[Any]]


def photos_of(run: Location) -> TestPhotos:
    """The test photos of the run at ``run``.

    Raises:
        UserError: the prepared set or the photos are no longer there.
    """
    config = config_of(run)
    rows = prepared_set(run).rows("test")
    return TestPhotos(rows.uris, rows.gather(np.arange(len(rows))), _jpegs(run, config, rows.uris))


def config_of(run: Location) -> dict[str, Any]:
    """The run's settings as they were written, empty values left as they are."""
    try:
        tree = yaml.safe_load((run / "config.yaml").read_text())
    except FileNotFoundError:
        raise UserError(f"{run} has no config.yaml, so its photos cannot be found") from None
    return Config.from_tree(tree, str(run / "config.yaml")).model_dump(mode="json")


def prepared_set(run: Location) -> PreparedSet:
    """The prepared set that the run was trained on.

    It lies beside the run, as the run was named now: what ``config.yaml`` says of a storage is
    without the keys that its URI may have carried.
    """
    fingerprint = (run / "data" / "manifest.json").read_json()["fingerprint"]
    found = find(run.parent, fingerprint)
    if found is None:
        raise UserError(
            f"the prepared photos of {run} are not in {run.parent}/datasets/{fingerprint} "
            "any more; the run's own command prepares them again"
        )
    return found


def _jpegs(
    run: Location, config: dict[str, Any], uris: list[str]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    data = config["data"]
    source = data["source"]
    if source is None:
        drawn = (data["drawings"], config["seed"], data["image_size"])
        source = sample.drawn(run.parent, *drawn).uri
    row_of = {uri: row for row, uri in enumerate(uris)}
    where, files = [], []
    with tempfile.TemporaryDirectory(prefix="catdog-photos-") as folder:
        listing = unpacked(sources.list_source(source, labelled=False), lambda: Location.of(folder))
        wanted = listing.files.filter(
            pc.is_in(listing.files.column("uri"), value_set=pa.array(uris))
        )
        for entry, content in contents(wanted, listing.bases):
            if isinstance(content, bytes) and content.startswith(b"\xff\xd8\xff"):
                where.append(row_of[entry["uri"]])
                files.append(content)
    if not files:
        raise UserError(f"the test photos of {run} cannot be read from {source} any more")
    return np.array(where), np.array(files, dtype=object)
