from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catdog.data import sources
from catdog.data.sources import list_source, read
from catdog.errors import UserError
from tests.store import BUCKET, S3, SECRET


def names(listing: sources.Listing) -> list[str]:
    return listing.files.column("uri").to_pylist()


def contents(listing: sources.Listing) -> list[bytes]:
    return [
        read(listing.bases[row["base"]], row["path"], row["offset"], row["size"])
        for row in listing.files.to_pylist()
        if row["problem"] is None
    ]


def test_a_folder_is_listed_with_all_below_and_without_litter(tmp_path: Path) -> None:
    for name in ("Cat/1.jpg", "dogs/deep/2.jpg", "cat.3.jpg", "notes.txt", ".DS_Store",
                 "__MACOSX/._1.jpg", "Cat/Thumbs.db", "Cat/._1.jpg"):  # fmt: skip
        place = tmp_path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(name.encode())
    listing = list_source(str(tmp_path))
    wanted = ["Cat/1.jpg", "cat.3.jpg", "dogs/deep/2.jpg", "notes.txt"]
    assert names(listing) == [str(tmp_path / name) for name in wanted]
    assert listing.files.column("label").to_pylist() == [0, 0, 1, -1]
    assert contents(listing) == [name.encode() for name in wanted]
    assert listing.counts() == {"cat": 2, "dog": 1, "unknown": 1}


def test_a_changed_file_changes_the_digest_and_reading_does_not(tmp_path: Path) -> None:
    (tmp_path / "cat.0.jpg").write_bytes(b"abc")
    (tmp_path / "dog.0.jpg").write_bytes(b"def")
    first = list_source(str(tmp_path))
    contents(first)
    assert list_source(str(tmp_path)).digest == first.digest
    (tmp_path / "dog.0.jpg").write_bytes(b"xyz")
    os.utime(tmp_path / "dog.0.jpg", ns=(0, 1))
    assert list_source(str(tmp_path)).digest != first.digest


def test_what_is_no_regular_file_is_counted_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "cat.0.jpg")
    (tmp_path / "dog.0.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "dog.1.jpg").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    rows = list_source(str(tmp_path)).files.to_pylist()
    assert [row["problem"] is None for row in rows] == [False, False, True]


def test_names_that_are_not_utf8_are_counted(tmp_path: Path) -> None:
    with open(os.path.join(os.fsencode(tmp_path), b"cat.\xff.jpg"), "wb") as file:
        file.write(b"x")
    rows = list_source(str(tmp_path)).files.to_pylist()
    assert len(rows) == 1
    assert "UTF-8" in rows[0]["problem"]


@pytest.mark.parametrize("content", [b"", b"a", b"ab", bytes(100_000)])
def test_a_file_is_read_whole(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cat.0.jpg").write_bytes(content)
    assert contents(list_source(str(tmp_path))) == [content]


def test_of_a_huge_file_only_the_beginning_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 200_000)
    (tmp_path / "cat.0.jpg").write_bytes(bytes(300_000))
    assert [len(content) for content in contents(list_source(str(tmp_path)))] == [1 << 16]


def test_a_prefix_on_s3_is_listed_and_read(s3: S3) -> None:
    for name in ("in/Cat/1.jpg", "in/dog.2.jpg", "in/.DS_Store", "in/deep/er/cat.3.jpg"):
        s3.put(name, name.encode())
    listing = list_source(s3.location("in").uri)
    assert names(listing) == [
        f"s3://{BUCKET}/in/{name}" for name in ("Cat/1.jpg", "deep/er/cat.3.jpg", "dog.2.jpg")
    ]
    assert listing.files.column("label").to_pylist() == [0, 0, 1]
    assert contents(listing) == [b"in/Cat/1.jpg", b"in/deep/er/cat.3.jpg", b"in/dog.2.jpg"]
    assert "secret-word" not in str(listing.source) + " ".join(names(listing))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_table_names_paths_and_labels(tmp_path: Path, form: str) -> None:
    (tmp_path / "photos").mkdir()
    for name in "abcd":
        (tmp_path / "photos" / name).write_bytes(name.encode())
    paths = ["photos/a", "./photos/b", str(tmp_path / "photos" / "c"), "photos/d", "photos/gone"]
    table = pa.table({"label": ["cat", "Dogs", "1", "horse", "cat"], "path": paths})
    place = tmp_path / f"table.{form}"
    if form == "csv":
        import pyarrow.csv as pacsv

        pacsv.write_csv(table, place)
    else:
        pq.write_table(table, place)
    listing = list_source(str(place))
    rows = listing.files.to_pylist()
    assert [Path(row["uri"]).name for row in rows] == ["a", "b", "c", "d", "gone"]
    assert [row["label"] for row in rows] == [0, 1, 1, -1, 0]
    assert contents(listing) == [b"a", b"b", b"c", b"d"]
    assert rows[4]["problem"] is not None


def test_a_table_on_s3_names_objects(s3: S3) -> None:
    s3.put("t/photos/a.jpg", b"a")
    s3.put("u/b.jpg", b"b")
    lines = f"path,label\nphotos/a.jpg,cat\ns3://{BUCKET}/u/b.jpg,dog\n"
    s3.put("t/table.csv", lines.encode())
    assert contents(list_source(s3.location("t/table.csv").uri)) == [b"a", b"b"]


def test_a_users_mistake_is_one_line(tmp_path: Path, s3: S3) -> None:
    (tmp_path / "odd.bin").write_bytes(b"x")
    (tmp_path / "names.csv").write_text("file,kind\na,cat\n")
    for source, word in (
        (str(tmp_path / "missing"), "there is no"),
        (str(tmp_path / "odd.bin"), "neither a folder"),
        (str(tmp_path / "names.csv"), "no column 'path'"),
        (s3.location("nothing/here").uri, "there is no"),
    ):
        with pytest.raises(UserError, match=word) as error:
            list_source(source)
        assert "\n" not in str(error.value)
        assert "secret-word" not in str(error.value)


def test_without_labels_a_single_photo_is_a_source_here_and_in_a_bucket(
    tmp_path: Path, pictures: Any, s3: S3
) -> None:
    content = pictures.jpeg(1)
    (tmp_path / "IMG_1.jpg").write_bytes(content)
    s3.put("single/IMG_1.jpg", content)
    for place in (str(tmp_path / "IMG_1.jpg"), s3.location("single/IMG_1.jpg").uri):
        listing = sources.list_source(place, labelled=False)
        (entry,) = listing.files.to_pylist()
        assert sources.read(listing.bases[0], entry["path"], 0, entry["size"]) == content
        assert "secret" not in entry["uri"]
        with pytest.raises(UserError, match="neither a folder nor"):
            sources.list_source(place)


def test_rows_of_a_local_table_may_bring_their_stores_endpoint_and_keys(
    tmp_path: Path, s3: S3
) -> None:
    s3.put("rows/cat.1.jpg", b"bytes of a cat")
    address = s3.uri("rows/cat.1.jpg", keys=True)
    (tmp_path / "photos.csv").write_text(f"path,label\n{address},cat\n")
    listing = list_source(str(tmp_path / "photos.csv"))
    (row,) = listing.files.to_pylist()
    assert read(listing.bases[row["base"]], row["path"], 0, -1) == b"bytes of a cat"
    assert SECRET not in row["uri"]


def test_without_labels_a_table_needs_paths_only(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("path\na.jpg\n")
    assert len(sources.list_source(str(tmp_path / "table.csv"), labelled=False).files) == 1
    with pytest.raises(UserError, match="no column 'label'"):
        sources.list_source(str(tmp_path / "table.csv"))
