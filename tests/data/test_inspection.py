"""One block, without Ray."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from catdog.data import inspection, sources
from catdog.data.decoding import Rejected
from catdog.data.inspection import VERDICTS, Plan, inspect_block
from catdog.data.shards import open_rows
from catdog.storage import Location, retrying


def block_of(listing: sources.Listing, number: int = 7) -> pa.Table:
    files = listing.files.append_column("index", pa.array(np.arange(len(listing.files))))
    return files.append_column("block", pa.array(np.full(len(files), number)))


def plan_of(listing: sources.Listing, root: Path, **changes: Any) -> Plan:
    return Plan(listing.bases, Location.of(root).mkdir(), 40, **changes)


def test_verdicts_point_to_the_rows_that_were_written(pictures: Any, tmp_path: Path) -> None:
    listing = sources.list_source(str(pictures.folder(tmp_path / "photos", 40)))
    plan = plan_of(listing, tmp_path / "out")
    table = inspect_block(block_of(listing), plan)
    assert table.schema.equals(VERDICTS)
    assert table.column("index").to_pylist() == list(range(80))
    for row in table.to_pylist():
        assert row["reason"] is None
        rows = open_rows([plan.root / plan.shard(row["shard"])])
        assert rows.uris[row["row"]] == listing.files.column("uri")[row["index"]].as_py()
    written = [p.relative_to(tmp_path) for p in tmp_path.rglob("*.arrow")]
    assert written == [Path("out/pixels/part-000007.arrow")]


def test_a_repeated_task_writes_the_same_files(pictures: Any, tmp_path: Path) -> None:
    """Ray runs a task again when its worker dies; nothing is there twice afterwards."""
    listing = sources.list_source(str(pictures.folder(tmp_path / "photos", 20)))
    plan = plan_of(listing, tmp_path / "out")
    tables = [inspect_block(block_of(listing), plan)]
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    tables.append(inspect_block(block_of(listing), plan))
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before
    assert tables[0].equals(tables[1])


def test_a_task_that_fails_leaves_no_half_shard(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = sources.list_source(str(pictures.folder(tmp_path / "photos", 60)))
    seen = 0

    def judge(*arguments: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == 100:
            raise OSError(28, "No space left on device")
        return original(*arguments)

    original = inspection._judge
    monkeypatch.setattr(inspection, "_judge", judge)
    with pytest.raises(OSError, match="No space"):
        inspect_block(block_of(listing), plan_of(listing, tmp_path / "out"))
    assert [p for p in (tmp_path / "out").rglob("*") if p.is_file()] == []


def test_a_store_that_stays_away_makes_files_unreadable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retrying, "PAUSES_S", (0.5,))
    monkeypatch.setattr(retrying.time, "sleep", pauses.append)
    gone = Location("s3://a:b@bucket/in?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1")
    row = {"uri": "s3://bucket/in/cat.0.jpg", "base": 0, "path": "bucket/in/cat.0.jpg",
           "offset": 0, "size": 10, "label": 0, "problem": None}  # fmt: skip
    files = pa.table({name: [value] for name, value in row.items()}, schema=sources.FILES)
    listing = sources.Listing(gone, files, (gone,), "")
    verdict = inspect_block(block_of(listing), plan_of(listing, tmp_path)).to_pylist()[0]
    assert verdict["reason"] == "unreadable"
    assert verdict["detail"].startswith("StorageAway")
    assert pauses == [0.5], "the read was not repeated"


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's right to read everything, where the tests run as root."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_photo_that_may_not_be_read_is_unreadable(pictures: Any) -> None:
    # Not below pytest's own folder, which is closed to others as a whole.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        for name in ("cat.0.jpg", "cat.1.jpg"):
            (Path(folder) / name).write_bytes(pictures.jpeg(1))
        (Path(folder) / "cat.1.jpg").chmod(0)
        listing = sources.list_source(folder)
        with as_nobody():
            _, (_, found) = inspection.contents(block_of(listing), listing.bases)
    assert isinstance(found, Rejected)
    assert found.reason == "unreadable"
    assert found.detail.startswith("PermissionError: ")


def test_what_is_too_large_to_read_is_unreadable_or_no_image(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 100_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "cat.0.jpg").write_bytes(pictures.jpeg(1) + bytes(200_000))
    (tmp_path / "in" / "dog.0.jpg").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200_000))
    listing = sources.list_source(str(tmp_path / "in"))
    table = inspect_block(block_of(listing), plan_of(listing, tmp_path / "out"))
    assert table.column("reason").to_pylist() == ["unreadable", "not_an_image"]
    assert min(table.column("size").to_pylist()) > 200_000


def test_few_pictures_of_rejected_files_are_sent(pictures: Any, tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(pictures.jpeg(number))
    listing = sources.list_source(str(tmp_path))
    table = inspect_block(block_of(listing), plan_of(listing, tmp_path / "out", thumbnails=2))
    assert table.column("thumbnail").null_count == 4
