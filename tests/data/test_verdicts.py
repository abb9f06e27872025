"""What only the whole set can tell, from a table of verdicts made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from catdog.data import sources
from catdog.data.inspection import VERDICTS
from catdog.data.verdicts import FileOutcomes, account_of, photos_table, rejected_table

SPLIT = {"train": 0, "val": 1, "test": 2}
#: The hash of a file that names none.
OWN = 0x0F0F33CC55AA1177


def account(rows: list[dict[str, Any]], asked: list[int] | None = None) -> FileOutcomes:
    """An account of files a, b, c, … whose verdicts arrive in reverse."""
    files = {name: [] for name in sources.FILES.names}
    verdicts: dict[str, list[Any]] = {name: [] for name in VERDICTS.names}
    for index, row in enumerate(rows):
        entry = {"uri": chr(97 + index), "base": 0, "path": "", "offset": 0, "size": 1,
                 "label": row.get("label", 0), "problem": None}  # fmt: skip
        for name, column in files.items():
            column.append(entry[name])
    for index, row in reversed(list(enumerate(rows))):
        verdict = dict.fromkeys(VERDICTS.names) | {
            "index": index, "size": 1, "digest": str(row.get("file", index)).encode().ljust(32),
            "hash": hash_of(index, row), "width": 100,
            "height": row.get("height", 100), "brightness": 0.5, "sharpness": 9.0, "flags": "",
            "note": "", "shard": 0, "row": index,
            "reason": row.get("reason"),
        }  # fmt: skip
        for name, column in verdicts.items():
            column.append(verdict[name])

    def digests(places: list[int]) -> list[bytes | None]:
        if asked is not None:
            asked.extend(places)
        return [str(rows[i].get("pixels", i)).encode() for i in places]

    split = {hash_of(i, row): SPLIT[row.get("split", "train")] for i, row in enumerate(rows)}

    def rule(labels: NDArray[np.int8], hashes: NDArray[np.uint64]) -> NDArray[np.int8]:
        return np.array([split[value] for value in hashes.tolist()], np.int8)

    return account_of(
        pa.table(verdicts, schema=VERDICTS), pa.table(files, schema=sources.FILES), digests, rule
    )


def hash_of(index: int, row: dict[str, Any]) -> int:
    return int(row.get("hash", (index + 1) * OWN % 2**64))


def reasons(found: FileOutcomes) -> list[str | None]:
    return found.verdicts["reason"].tolist()


def test_the_first_by_path_of_equal_files_stays_and_no_pixel_is_needed() -> None:
    asked: list[int] = []
    same = {"hash": 5, "file": "same"}
    found = account([same, {}, same, same], asked)
    assert reasons(found) == [None, None, "duplicate", "duplicate"]
    assert found.verdicts["detail"][2] == "the same picture: a"
    assert asked == []


def test_pixels_decide_where_hashes_meet() -> None:
    asked: list[int] = []
    found = account([
        {"hash": 7, "pixels": "x"}, {"hash": 7, "pixels": "x"}, {"hash": 7, "pixels": "y"},
        {"hash": 6, "pixels": "x"}, {"hash": 7, "pixels": "x", "height": 99},
        {"hash": 7, "pixels": "y"},
    ], asked)  # fmt: skip
    assert reasons(found) == [None, "duplicate", None, "duplicate", None, "duplicate"]
    assert asked == [0, 1, 2, 3, 5], "a picture of another size cannot be equal"


def test_all_go_that_are_called_cat_and_dog() -> None:
    same = {"hash": 9, "file": "f"}
    found = account([same | {"label": 0}, same | {"label": 1}, same | {"label": 0}, {}])
    assert reasons(found) == ["label_conflict"] * 3 + [None]
    assert found.verdicts["detail"].tolist()[:3] == [
        "the same picture: b", "the same picture: a", "the same picture: b",
    ]  # fmt: skip


def test_every_photo_near_a_test_photo_is_held_back() -> None:
    near = 0b11
    found = account([
        {"hash": 0, "split": "test"},
        {"hash": near, "split": "train", "pixels": 1},
        {"hash": near, "split": "train", "pixels": 2},
        {"hash": near << 30, "split": "val"},
        {"hash": 2**40 - 1, "split": "train"},
        {"hash": 2**40 - 2, "split": "val"},
    ])  # fmt: skip
    assert found.held_back.tolist() == [False, True, True, True, False, False]
    assert found.near.tolist()[1:4] == [0, 0, 0]
    assert found.near.tolist()[4:] == [5, 4]
    assert found.splits()["val"] == {"cat": 1, "dog": 0}
    table = photos_table(found).to_pylist()
    assert [row["near_duplicate_of"] for row in table][1:] == ["a", "a", "a", "f", "e"]


def test_a_test_photo_that_is_rejected_holds_nothing_back() -> None:
    same = {"hash": 0, "split": "test", "file": "f"}
    found = account([same | {"label": 0}, same | {"label": 1}, {"hash": 3, "split": "train"}])
    assert reasons(found)[:2] == ["label_conflict"] * 2
    assert not found.held_back.any()


def test_every_file_is_in_one_table() -> None:
    found = account([{"reason": "empty"}, {}, {"reason": "corrupt"}, {"reason": "empty"}])
    assert found.rejected() == {"empty": 2, "corrupt": 1}
    assert found.examples(1) == {"empty": ["a"], "corrupt": ["c"]}
    table = rejected_table(found, {0: b"x", 2: b"y", 3: b"z"}, most=1)
    assert table.column("uri").to_pylist() == ["a", "c", "d"]
    assert table.column("thumbnail").to_pylist() == [b"x", b"y", None]
    assert len(photos_table(found)) == 1
    assert np.array_equal(found.kept, [False, True, False, False])
    assert found.split.tolist() == [-1, 0, -1, -1]
