from __future__ import annotations

import pickle
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pytest

from catdog.data.shards import ShardWriter, open_rows, write_shard
from catdog.storage import Location
from tests.store import BUCKET, S3


def some(count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, 5, 4, 3)).astype(np.uint8)


def test_rows_come_back_in_any_order_over_many_shards(tmp_path: Path) -> None:
    parts = [some(n, n) for n in (3, 300, 1)]
    places = [Location.of(tmp_path / f"{i}.arrow") for i in range(3)]
    for place, part in zip(places, parts, strict=True):
        uris = [f"{place.name}/{i}" for i in range(len(part))]
        about = write_shard(place, part, labels=np.arange(len(part)) % 2, uris=uris)
        assert about == {
            "file": place.name,
            "rows": len(part),
            "bytes": place.local_path.stat().st_size,
        }
    rows, whole = open_rows(places), np.concatenate(parts)
    assert (len(rows), rows.shape, rows.dtype) == (304, (5, 4, 3), np.uint8)
    order = np.random.default_rng(1).permutation(304)
    assert np.array_equal(rows.gather(order), whole[order])
    assert np.array_equal(rows.gather([7, 7, 0]), whole[[7, 7, 0]])
    assert rows.gather([]).shape == (0, 5, 4, 3)
    assert rows.labels.tolist() == [i % 2 for part in parts for i in range(len(part))]
    assert rows.uris[3] == "1.arrow/0"


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int64, ml_dtypes.bfloat16])
def test_every_dtype_comes_back(tmp_path: Path, dtype: Any) -> None:
    values = np.random.default_rng(0).normal(0, 50, (9, 17)).astype(dtype)
    place = Location.of(tmp_path / "features.arrow")
    write_shard(place, values, labels=[0] * 9, uris=list("abcdefghi"))
    rows = open_rows([place])
    assert rows.dtype == np.dtype(dtype)
    assert np.array_equal(rows.gather(range(9)), values)


def test_extra_columns_follow_a_selection(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "a.arrow")
    extra = {"view": pa.array(range(300), pa.int16())}
    write_shard(place, some(300), labels=[1] * 300, uris=["x"] * 300, extra=extra)
    chosen = open_rows([place]).select([299, 0, 5])
    assert chosen.column("view").to_pylist() == [299, 0, 5]
    assert np.array_equal(chosen.gather([1]), some(300)[[0]])
    assert len(chosen.select([2])) == 1
    assert np.array_equal(chosen.select([2]).gather([0]), some(300)[[5]])


def test_any_arrow_reader_opens_a_shard(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "a.arrow")
    write_shard(place, some(2), labels=[0, 1], uris=["a", "b"])
    table = pa.ipc.open_file(place.path).read_all()
    assert table.column("uri").to_pylist() == ["a", "b"]
    assert table.column("row")[1].as_py() == some(2)[1].tobytes()


def test_a_shard_that_fails_leaves_nothing(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "a.arrow")

    def fail() -> None:
        with ShardWriter(place, (5, 4, 3), np.dtype(np.uint8)) as writer:
            writer.append(some(3), [0, 1, 0], ["a", "b", "c"])
            writer.append(np.zeros((1, 4, 4, 3), np.uint8), [0], ["d"])

    with pytest.raises(ValueError, match="rows are"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_shards_of_different_rows_are_refused(tmp_path: Path) -> None:
    places = [Location.of(tmp_path / name) for name in ("a", "b")]
    write_shard(places[0], some(2), labels=[0, 1], uris=["a", "b"])
    write_shard(places[1], some(2)[:, :4], labels=[0, 1], uris=["a", "b"])
    with pytest.raises(ValueError, match="different kinds"):
        open_rows(places)
    with pytest.raises(FileNotFoundError):
        open_rows([Location.of(tmp_path / "missing")])


def test_remote_shards_are_fetched_once(s3: S3, tmp_path: Path) -> None:
    place = s3.location("shards/a.arrow")
    write_shard(place, some(20), labels=[0] * 20, uris=["x"] * 20)
    cache = tmp_path / "cache"
    results: list[Any] = []

    def use() -> None:
        results.append(open_rows([place], cache=cache).gather([19, 3]))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(np.array_equal(result, some(20)[[19, 3]]) for result in results)
    copies = [p for p in cache.iterdir() if p.suffix == ".arrow"]
    assert len(copies) == 1
    s3.filesystem.delete_file(f"{BUCKET}/shards/a.arrow")
    assert len(open_rows([place], cache=cache)) == 20  # from the node's disk
    with pytest.raises(FileNotFoundError):
        open_rows([place], cache=tmp_path / "other")


def test_locations_of_shards_can_be_sent_to_workers(tmp_path: Path) -> None:
    place = Location.of(tmp_path / "a.arrow")
    write_shard(place, some(2), labels=[0, 1], uris=["a", "b"])
    assert len(open_rows([pickle.loads(pickle.dumps(place))])) == 2
