"""Archives as people have them, and as enemies make them."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from catdog.data import archives
from catdog.data.archives import members, pack
from catdog.data.labels import is_litter
from catdog.data.sources import list_source
from catdog.errors import UserError
from catdog.storage import Location
from tests.store import S3


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def walk(data: bytes, name: str) -> dict[str, bytes]:
    return {m.path: b"".join(m.pieces()) for m in members(io.BytesIO(data), name, len(data))}


def packed(place: Path, folder: Path, **options: Any) -> tuple[list[Any], dict[str, bytes]]:
    found, packs = pack(
        Location.of(place), place.stat().st_size, Location.of(folder),
        keep=lambda path: not is_litter(path), head_bytes=100,
        **{"max_file_bytes": 1 << 20} | options,
    )  # fmt: skip
    whole = {
        item.path: packs[item.pack].local_path.read_bytes()[item.offset :][: item.size]
        for item in found
    }
    return found, whole


FILES = {"Cat/1.jpg": b"one", "dogs/2.jpg": b"two" * 1000, "readme.txt": b""}


@pytest.mark.parametrize(
    "name, make",
    [
        ("a.zip", zipped),
        ("a.zip", lambda files: zipped(files, zipfile.ZIP_STORED)),
        ("a.tar", lambda files: tarred(files, "w:")),
        ("a.tar.gz", tarred),
        ("A.TGZ", tarred),
    ],
)
def test_every_kind_gives_its_files(tmp_path: Path, name: str, make: Any) -> None:
    assert walk(make(FILES), name) == FILES
    (tmp_path / name).write_bytes(make(FILES | {"__MACOSX/._1.jpg": b"litter"}))
    listing = list_source(str(tmp_path / name))
    assert listing.counts() == {"cat": 1, "dog": 1, "unknown": 1}
    assert packed(tmp_path / name, tmp_path / "packs")[1] == FILES


def test_kaggles_zip_of_zips(tmp_path: Path) -> None:
    train = zipped({"train/cat.0.jpg": b"c", "train/dog.0.jpg": b"d"})
    test = zipped({"test1/1.jpg": b"?", "test1/2.jpg": b"!"})
    whole = zipped({"train.zip": train, "test1.zip": test, "sampleSubmission.csv": b"id,label"})
    (tmp_path / "dogs-vs-cats.zip").write_bytes(whole)
    listing = list_source(str(tmp_path / "dogs-vs-cats.zip"))
    assert listing.counts() == {"cat": 1, "dog": 1, "unknown": 3}
    assert f"{tmp_path}/dogs-vs-cats.zip/train.zip/train/cat.0.jpg" in (
        listing.files.column("uri").to_pylist()
    )
    _, contents = packed(tmp_path / "dogs-vs-cats.zip", tmp_path / "packs")
    assert contents["test1.zip/test1/2.jpg"] == b"!"


def test_no_path_escapes(tmp_path: Path) -> None:
    hostile = {"../../escaped.jpg": b"a", "/etc/escaped.jpg": b"b", "..\\..\\escaped.jpg": b"c",
               "C:\\escaped.jpg": b"d"}  # fmt: skip
    for number, data in enumerate((zipped(hostile), tarred(hostile))):
        place = tmp_path / ("a.zip", "a.tar.gz")[number]
        place.write_bytes(data)
        folder = tmp_path / f"below/packs-{number}"
        _, contents = packed(place, folder)
        assert len(contents) >= 2
        assert all(".." not in path and not path.startswith("/") for path in contents)
        assert {p.name for p in folder.iterdir()} == {"pack-00000.bin"}
    assert not list(tmp_path.rglob("*escaped*"))
    assert not Path("/etc/escaped.jpg").exists()


def test_links_and_devices_in_a_tar_are_counted_and_not_followed(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind in (("cat.0.jpg", tarfile.SYMTYPE), ("dog.0.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    (tmp_path / "a.tar").write_bytes(buffer.getvalue())
    found, contents = packed(tmp_path / "a.tar", tmp_path / "packs")
    assert [item.problem for item in found] == ["a link or device in the archive"] * 2
    assert set(contents.values()) == {b""}


@pytest.mark.parametrize("nested", [False, True])
def test_a_bomb_ends_in_a_clear_error_with_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nested: bool
) -> None:
    monkeypatch.setattr(archives, "FREE_BYTES", 64 << 20)
    zeros = bytes(30 << 20)
    bomb = zipped({f"cat.{i}.jpg": zeros for i in range(4)})
    if nested:
        bomb = zipped({"inner.zip": bomb})
    assert len(bomb) < 200_000
    (tmp_path / "bomb.zip").write_bytes(bomb)
    del zeros
    tracemalloc.start()
    with pytest.raises(UserError, match="unpacks to more than"):
        packed(tmp_path / "bomb.zip", tmp_path / "packs", max_file_bytes=1 << 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20, f"{peak} bytes"


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_a_name_that_takes_all_memory_is_no_name(tmp_path: Path, kind: bytes) -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb") as stream:
        info = tarfile.TarInfo("long")
        info.type, info.size = kind, 64 << 20
        stream.write(info.tobuf(tarfile.GNU_FORMAT))
        stream.write(bytes(64 << 20))
        stream.write(tarred(FILES, "w:"))
    (tmp_path / "a.tar.gz").write_bytes(buffer.getvalue())
    del stream
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.tar\.gz is damaged or no archive: a header of 64 MiB"):
        packed(tmp_path / "a.tar.gz", tmp_path / "packs")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20, f"{peak} bytes"


def test_a_zip_whose_directory_takes_all_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_ZIP_DIRECTORY", 1 << 20)
    names = (f"{'cat' * 80}.{number}.jpg" for number in range(5000))
    (tmp_path / "a.zip").write_bytes(zipped(dict.fromkeys(names, b"")))
    with pytest.raises(UserError, match="its directory takes 1 MiB"):
        packed(tmp_path / "a.zip", tmp_path / "packs")


def test_archives_within_archives_have_a_bounded_depth() -> None:
    data = zipped({"cat.0.jpg": b"x"})
    for _ in range(archives.MAX_DEPTH - 1):
        data = zipped({"inner.zip": data})
    assert len(walk(data, "a.zip")) == 1
    with pytest.raises(UserError, match="levels deep"):
        walk(zipped({"inner.zip": data}), "a.zip")


def test_a_header_that_lies_about_the_size_changes_nothing(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat.0.jpg": b"x" * 1000, "dog.0.jpg": b"fine"}))
    central = data.find(b"PK\x01\x02")
    data[central + 24 : central + 28] = (10).to_bytes(4, "little")
    (tmp_path / "a.zip").write_bytes(bytes(data))
    found, contents = packed(tmp_path / "a.zip", tmp_path / "packs")
    assert len(found) == 2
    assert found[0].problem is not None
    assert contents["dog.0.jpg"] == b"fine"


def test_a_damaged_member_costs_that_member_only(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat.0.jpg": bytes(range(256)) * 20, "dog.0.jpg": b"fine"}, 0))
    data[200] ^= 0xFF
    (tmp_path / "a.zip").write_bytes(bytes(data))
    found, contents = packed(tmp_path / "a.zip", tmp_path / "packs")
    assert "damaged" in found[0].problem
    assert found[1].problem is None
    assert contents["dog.0.jpg"] == b"fine"


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_what_is_no_archive_or_cut_is_a_users_mistake(tmp_path: Path, name: str) -> None:
    files = {f"cat.{i}.jpg": bytes(range(256)) * 40 for i in range(10)}
    whole = zipped(files, 0) if name == "a.zip" else tarred(files, "w:gz" if "gz" in name else "w:")
    for content in (b"no archive at all, but text " * 40, whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=r"damaged|no archive"):
            packed(tmp_path / name, tmp_path / "packs")


def test_an_encrypted_member_is_counted(tmp_path: Path) -> None:
    data = bytearray(zipped({"cat.0.jpg": b"x"}, 0))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.find(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(bytes(data))
    assert packed(tmp_path / "a.zip", tmp_path / "packs")[0][0].problem == (
        "encrypted in the archive"
    )


def test_a_huge_member_is_cut_and_packs_are_bounded(tmp_path: Path) -> None:
    files = {"cat.0.jpg": bytes(3 << 20), "cat.1.jpg": b"a" * 1000, "cat.2.jpg": b"b" * 1000}
    (tmp_path / "a.zip").write_bytes(zipped(files))
    found, contents = packed(tmp_path / "a.zip", tmp_path / "packs", pack_bytes=900)
    assert [item.size for item in found] == [100, 1000, 1000]
    assert [item.pack for item in found] == [0, 0, 1]
    assert contents["cat.2.jpg"] == b"b" * 1000
    with pytest.raises(UserError, match="does not fit"):
        packed(tmp_path / "a.zip", tmp_path / "more", room=1500)


def test_an_archive_on_s3_is_streamed_into_packs_there(s3: S3) -> None:
    data = zipped(FILES)
    s3.put("zips/a.zip", data)
    found, packs = pack(
        s3.location("zips/a.zip"), len(data), s3.location("scratch"),
        keep=lambda path: True, max_file_bytes=1 << 20, head_bytes=100,
    )  # fmt: skip
    assert len(packs) == 1
    whole = packs[0].read_bytes()
    assert {i.path: whole[i.offset :][: i.size] for i in found} == FILES
