"""The whole stage on a real Ray: every file accounted for, reused, never half finished."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from catdog.config import DataSettings
from catdog.data import prepare as module
from catdog.data.decoding import REASONS
from catdog.data.images import Photo, inspect
from catdog.data.prepare import PreparedSet, find, prepare, survey
from catdog.data.shards import open_rows
from catdog.errors import UserError
from catdog.storage import Location
from tests.store import BUCKET, S3

# The first test waits for the cluster, which took two minutes on a machine with 30 others at work.
pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(300)]

SIZE = 48


def settings(source: object, **changes: Any) -> DataSettings:
    return DataSettings(source=str(source), **{"image_size": SIZE, "max_rejected": 0.5} | changes)


def run(source: object, storage: object, **changes: Any) -> PreparedSet:
    return prepare(settings(source, **changes), Location.of(str(storage)), seed=0)


def check(prepared: PreparedSet) -> None:
    """What holds for every prepared set."""
    manifest, photos = prepared.manifest, prepared.photos().to_pandas()
    assert manifest["files"] == manifest["kept"] + sum(manifest["rejected"].values())
    assert manifest["kept"] == len(photos)
    assert manifest["held_back"] == int(photos["held_back"].sum())
    rejected = prepared.rejected().to_pandas()
    assert rejected.groupby("reason").size().to_dict() == manifest["rejected"]
    usable = photos[~photos["held_back"]]
    for split in ("train", "val", "test"):
        rows = prepared.rows(split)
        here = usable[usable["split"] == split]
        assert rows.uris == here["uri"].tolist()
        assert rows.labels.tolist() == here["label"].tolist()
        counts = manifest["splits"][split]
        assert counts == {"cat": int((rows.labels == 0).sum()), "dog": int(rows.labels.sum())}
        assert (rows.shape, rows.dtype) == ((SIZE, SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory, pictures: Any) -> tuple[Path, dict[str, str]]:
    """A folder with at least one file for every reason, and what is to be said of each."""
    folder = pictures.folder(tmp_path_factory.mktemp("messy"), 60)
    wanted: dict[str, str] = {}

    def put(name: str, content: bytes, reason: str) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        wanted[name] = reason

    good = pictures.jpeg(900, 70, 90)
    os.mkfifo(folder / "cat.900.jpg")
    wanted["cat.900.jpg"] = "unreadable"
    put("cat.901.jpg", b"", "empty")
    put("dog.901.jpg", b"<html>not found</html>", "not_an_image")
    put("readme.txt", b"these are my photos", "not_an_image")
    huge = bytearray(pictures.encode(pictures.pixels(901), "GIF"))
    huge[6:10] = b"\xff\xff\xff\xff"
    put("dog.902.jpg", bytes(huge), "too_many_pixels")
    put("cat.903.jpg", good[: len(good) // 2], "truncated")
    png = bytearray(pictures.encode(pictures.pixels(902), "PNG"))
    png[len(png) // 2] ^= 1
    put("dog.903.jpg", bytes(png), "corrupt")
    put("cat.904.jpg", pictures.jpeg(903, 20, 90), "too_small")
    put("dog.905.jpg", pictures.encode(np.full((80, 80, 3), 90, np.uint8)), "no_content")
    put("photo.906.jpg", pictures.jpeg(904), "no_label")
    put("cats/dog.907.jpg", pictures.jpeg(905), "no_label")
    pixels = Image.open(io.BytesIO(pictures.jpeg(906)))
    (folder / "Cat").mkdir()
    put("cat.908.jpg", pictures.encode(pixels, "PNG"), "label_conflict")
    put("Dog/5.jpg", pictures.jpeg(906), "label_conflict")
    (folder / "cat.909.jpg").write_bytes(good)
    put("cat.910.jpg", good, "duplicate")
    put("cat.911.png", pictures.encode(Image.open(io.BytesIO(good)), "PNG"), "duplicate")
    (folder / ".DS_Store").write_bytes(b"litter")
    (folder / "Cat" / "Thumbs.db").write_bytes(b"litter")
    return folder, wanted


@pytest.fixture(scope="module")
def prepared(messy: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    return run(messy[0], tmp_path_factory.mktemp("storage"))


def test_every_reason_is_told_and_every_file_is_counted(
    messy: tuple[Path, dict[str, str]], prepared: PreparedSet
) -> None:
    folder, wanted = messy
    check(prepared)
    rejected = prepared.rejected().to_pylist()
    told = {os.path.relpath(row["uri"], folder): row["reason"] for row in rejected}
    assert told == wanted
    assert set(wanted.values()) == set(REASONS)
    on_disk = [p for p in folder.rglob("*") if not p.is_dir()]
    assert prepared.manifest["files"] == len(on_disk) - 2
    sizes = {row["uri"]: row["size"] for row in rejected}
    assert sizes[str(folder / "cat.910.jpg")] == (folder / "cat.910.jpg").stat().st_size
    detail = {row["uri"]: row["detail"] for row in rejected}
    assert detail[str(folder / "cat.910.jpg")].endswith("cat.909.jpg")


def test_rejected_files_have_pictures_where_there_are_pixels(prepared: PreparedSet) -> None:
    for row in prepared.rejected().to_pylist():
        if row["reason"] in ("too_small", "no_content", "no_label", "duplicate", "label_conflict"):
            assert max(Image.open(io.BytesIO(row["thumbnail"])).size) <= 96
        if row["reason"] in ("empty", "not_an_image", "unreadable", "too_many_pixels"):
            assert row["thumbnail"] is None


def test_rows_are_the_pixels_of_the_photos(prepared: PreparedSet) -> None:
    for split in ("train", "val", "test"):
        rows = prepared.rows(split)
        for i in range(0, len(rows), 17):
            verdict = inspect(Path(rows.uris[i]).read_bytes(), SIZE)
            assert isinstance(verdict, Photo)
            assert np.array_equal(rows.gather([i])[0], verdict.pixels)


def test_the_users_files_stay_as_they_are(messy: tuple[Path, Any], tmp_path: Path) -> None:
    def state() -> list[tuple[str, int, int]]:
        found = sorted(messy[0].rglob("*"))
        return [(str(p), p.lstat().st_size, p.lstat().st_mtime_ns) for p in found]

    before = state()
    run(messy[0], tmp_path)
    assert state() == before


def test_a_second_run_decodes_nothing(
    messy: tuple[Path, Any], prepared: PreparedSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("photos were read again")

    monkeypatch.setattr(module, "run", never)
    seen: list[tuple[int, int]] = []
    storage = Location.of(prepared.root.local_path.parent.parent)
    again = prepare(settings(messy[0]), storage, 1, lambda done, total: seen.append((done, total)))
    assert again == prepared
    assert seen == [(again.manifest["files"],) * 2]
    with pytest.raises(AssertionError, match="read again"):
        run(messy[0], storage, image_size=32)
    with pytest.raises(AssertionError, match="read again"):
        run(messy[0], storage, val_fraction=0.2)


def test_photos_copied_anew_have_the_same_identity_and_changed_ones_another(
    pictures: Any, tmp_path: Path
) -> None:
    folder, storage = pictures.folder(tmp_path / "photos", 60), tmp_path / "storage"
    first = run(folder, storage)
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    touched = run(folder, storage)
    moved = run(shutil.copytree(folder, tmp_path / "moved"), storage)
    assert len({each.root.name for each in (first, touched, moved)}) == 3
    assert first.identity == touched.identity == moved.identity

    assert run(folder, storage, image_size=32).identity != first.identity
    assert run(folder, storage, test_fraction=0.3).identity != first.identity
    (folder / "cat.7.jpg").write_bytes(pictures.jpeg(7777, 60, 80))
    other = run(folder, storage).identity
    assert other != first.identity
    (folder / "cat.7.jpg").rename(folder / "dog.777.jpg")
    assert run(folder, storage).identity not in (first.identity, other)


def test_a_damaged_set_is_prepared_again(
    messy: tuple[Path, Any], prepared: PreparedSet, tmp_path: Path
) -> None:
    storage = Location.of(tmp_path)
    shutil.copytree(prepared.root.local_path, tmp_path / "datasets" / prepared.root.name)
    fingerprint = prepared.manifest["fingerprint"]
    assert find(storage, fingerprint) is not None
    shard = tmp_path / "datasets" / fingerprint / prepared.manifest["shards"][0]["file"]
    shard.write_bytes(shard.read_bytes()[:-100])
    assert find(storage, fingerprint) is None
    check(run(messy[0], tmp_path))


def test_an_interrupted_preparation_leaves_nothing(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 90)

    def interrupt(done: int, total: int) -> None:
        assert 0 < done <= total
        raise KeyboardInterrupt

    storage = tmp_path / "storage"
    with pytest.raises(KeyboardInterrupt):
        prepare(settings(folder), Location.of(storage), 0, interrupt)
    assert [p for p in storage.rglob("*") if p.is_file()] == []
    check(run(folder, storage))


def test_two_preparations_at_once_do_no_harm(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 70)
    results: list[PreparedSet] = []
    threads = [
        threading.Thread(target=lambda: results.append(run(folder, tmp_path / "storage")))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert results[0].manifest == results[1].manifest
    check(results[0])
    assert len(list((tmp_path / "storage" / "datasets").iterdir())) == 1


def test_few_photos_move_when_others_are_added(pictures: Any, tmp_path: Path) -> None:
    few = pictures.folder(tmp_path / "few", 80)
    many = tmp_path / "many"
    # The same photos under other names, in another order, among more.
    pictures.folder(many, 8, seed=5000)
    for number, file in enumerate(sorted(few.iterdir(), reverse=True)):
        shutil.copy(file, many / f"{file.name.split('.')[0]}.{1000 + number}.jpg")
    splits = []
    for folder in (few, many):
        table = run(folder, tmp_path / "storage", max_rejected=1.0).photos().to_pylist()
        splits.append({row["hash"]: row["split"] for row in table})
    assert [len(split) for split in splits] == [160, 176]
    assert sum(split != splits[1][photo] for photo, split in splits[0].items()) <= 8


def test_every_class_has_its_share_of_every_split(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 40)
    for file in sorted(folder.glob("dog.*"))[10:]:
        file.unlink()
    for fraction, cats, dogs in ((0.1, [32, 4, 4], [8, 1, 1]), (0.26, [20, 10, 10], [4, 3, 3])):
        changes = {"val_fraction": fraction, "test_fraction": fraction}
        prepared = run(folder, tmp_path / "storage", **changes)
        check(prepared)
        splits = prepared.manifest["splits"].values()
        assert [split["cat"] for split in splits] == cats
        assert [split["dog"] for split in splits] == dogs


def test_what_nearly_equals_a_test_photo_is_held_back(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 60)
    first = run(folder, tmp_path / "storage")
    tests = [r for r in first.photos().to_pylist() if r["split"] == "test"]
    # The same scenes a little changed, until their hashes send some to another split.
    rng = np.random.default_rng(0)
    for row in tests:
        pixels = np.asarray(Image.open(row["uri"])).astype(float)
        for copy in range(6):
            h, w = pixels.shape[:2]
            top, left = rng.integers(0, h // 2), rng.integers(0, w // 2)
            changed = pixels.copy()
            changed[top : top + h // 4, left : left + w // 4] += rng.integers(-40, 41)
            name = f"{Path(row['uri']).name[:3]}.9{copy}{Path(row['uri']).name[4:]}"
            image = Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))
            image.save(folder / name, quality=90)
    second = run(folder, tmp_path / "storage")
    check(second)
    rows = second.photos().to_pylist()
    held = [row for row in rows if row["held_back"]]
    assert held, "no changed copy landed in another split"
    assert second.manifest["held_back"] == len(held)
    split = {row["uri"]: row["split"] for row in rows}
    hashes = {row["uri"]: row["hash"] for row in rows}
    for row in held:
        assert row["split"] != "test"
        assert split[row["near_duplicate_of"]] == "test"
    test_hashes = [h for uri, h in hashes.items() if split[uri] == "test"]
    for name in ("train", "val"):
        for uri in second.rows(name).uris:
            assert min((hashes[uri] ^ h).bit_count() for h in test_hashes) > 6


def test_too_many_rejected_files_stop_the_job_and_say_why(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 40)
    for number in range(30):
        (folder / f"cat.{900 + number}.jpg").write_bytes(b"")
    for number in range(90):  # not counted: nobody said what they are
        (folder / f"{number}.jpg").write_bytes(pictures.jpeg(3000 + number, 40, 40))
    with pytest.raises(UserError, match=r"30 of 110 files were rejected \(27%\)") as error:
        run(folder, tmp_path / "storage", max_rejected=0.2)
    text = "\n".join(error.value.details)
    assert "empty: 30" in text
    assert sum("cat.9" in line for line in error.value.details) == 3
    assert not list((tmp_path / "storage").rglob("*.arrow"))
    check(run(folder, tmp_path / "storage", max_rejected=0.3))
    with pytest.raises(UserError, match=r"30 of 110 files were rejected \(27%\)") as again:
        run(folder, tmp_path / "storage", max_rejected=0.2)
    assert again.value.details == error.value.details, "a set found prepared is held to it too"
    with pytest.raises(UserError, match="40 good photos of a"):
        run(folder, tmp_path / "storage", max_rejected=0.3, min_per_class=41)


def test_too_few_photos_of_a_class_stop_the_job(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 40)
    for file in sorted(folder.glob("dog.*"))[9:]:
        file.unlink()
    with pytest.raises(UserError, match="9 good photos of a dog are left, fewer than 10"):
        run(folder, tmp_path / "storage")


def test_a_split_without_a_class_stops_the_job(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 12)
    for file in sorted(folder.glob("dog.*"))[2:]:
        file.unlink()
    with pytest.raises(UserError, match="the test split has no dog"):
        run(folder, tmp_path / "storage", min_per_class=2)


def test_a_disk_that_is_too_small_is_told_before(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures.folder(tmp_path / "photos", 12)
    needed = survey(settings(folder), 0).needed_bytes
    assert needed > 24 * SIZE * SIZE * 3
    monkeypatch.setattr(Location, "free_bytes", lambda self: needed - 1)
    with pytest.raises(UserError, match="not enough disk"):
        run(folder, tmp_path / "storage")


@pytest.mark.root
def test_a_disk_that_fills_up_is_told_in_one_line(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures.folder(tmp_path / "photos", 150)
    storage = tmp_path / "small"
    storage.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(storage)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(UserError, match="not enough disk"):
            run(folder, storage)
        monkeypatch.setattr(Location, "free_bytes", lambda self: None)
        with pytest.raises(UserError, match=r"the disk of .* is full"):
            run(folder, storage)
        assert [p for p in storage.rglob("*") if p.is_file()] == []
    finally:
        subprocess.run(["umount", str(storage)], check=True)


def test_surveys_count_and_refuse(pictures: Any, tmp_path: Path) -> None:
    folder = pictures.folder(tmp_path / "photos", 3)
    found = survey(settings(folder), 0)
    assert (found.files, found.classes) == (6, {"cat": 3, "dog": 3, "unknown": 0})
    assert found.bytes == sum(p.stat().st_size for p in folder.iterdir())
    assert not found.sample
    drawings = survey(DataSettings(drawings=41), 0)
    assert drawings.sample
    assert drawings.files == 47
    (tmp_path / "empty").mkdir()
    (tmp_path / "unnamed").mkdir()
    (tmp_path / "unnamed" / "1.jpg").write_bytes(b"x")
    for file in folder.glob("dog.*"):
        file.unlink()
    for source, words in (
        (tmp_path / "missing", "there is no"),
        (tmp_path / "empty", "no files"),
        (tmp_path / "unnamed", "no class found"),
        (folder, "only one class"),
    ):
        with pytest.raises(UserError, match=words):
            survey(settings(source), 0)


def test_the_drawings_are_prepared_like_photos(tmp_path: Path) -> None:
    wanted = DataSettings(drawings=60, image_size=SIZE)
    prepared = prepare(wanted, Location.of(tmp_path), seed=3)
    check(prepared)
    assert prepared.manifest["sample"]
    assert prepared.manifest["source"] == "built-in drawings"
    assert prepared.manifest["kept"] == 60
    assert len(prepared.manifest["rejected"]) == 6
    assert survey(wanted, 3).files == prepared.manifest["files"]


def test_kaggles_zip_of_zips_is_prepared_and_cleaned_up(pictures: Any, tmp_path: Path) -> None:
    def zipped(files: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return buffer.getvalue()

    folder = pictures.folder(tmp_path / "photos", 40)
    train = {f"train/{p.name}": p.read_bytes() for p in folder.iterdir()}
    test = {f"test1/{i}.jpg": pictures.jpeg(7000 + i, 50, 50) for i in range(20)}
    whole = {"train.zip": zipped(train), "test1.zip": zipped(test), "sampleSubmission.csv": b"id\n"}
    (tmp_path / "dogs-vs-cats.zip").write_bytes(zipped(whole))
    prepared = run(tmp_path / "dogs-vs-cats.zip", tmp_path / "storage")
    check(prepared)
    assert prepared.manifest["rejected"] == {"not_an_image": 1, "no_label": 20}
    assert prepared.manifest["kept"] == 80
    assert prepared.rows("train").uris[0].startswith(f"{tmp_path}/dogs-vs-cats.zip/train.zip/train")
    left = {p.suffix for p in (tmp_path / "storage").rglob("*") if p.is_file()}
    assert left == {".arrow", ".parquet", ".json"}
    direct = run(folder, tmp_path / "storage")
    assert direct.manifest["splits"] == prepared.manifest["splits"]


def test_photos_on_s3_are_prepared_onto_s3(
    s3: S3, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATDOG_CACHE", str(tmp_path / "cache"))
    folder = pictures.folder(tmp_path / "photos", 40)
    for file in folder.iterdir():
        s3.put(f"kaggle/{file.name}", file.read_bytes())
    s3.put("kaggle/cat.999.jpg", b"")
    source = s3.location("kaggle").uri
    storage = s3.location("runs")
    prepared = prepare(settings(source), storage, 0)
    check(prepared)
    assert prepared.manifest["rejected"] == {"empty": 1}
    assert prepared.manifest["source"] == f"s3://{BUCKET}/kaggle"
    assert "secret-word" not in str(prepared.manifest)
    assert prepare(settings(source), storage, 0) == prepared
    local = run(folder, tmp_path / "storage")
    assert local.manifest["splits"] == prepared.manifest["splits"]


def test_a_table_is_prepared_and_missing_photos_are_unreadable(
    s3: S3, pictures: Any, tmp_path: Path
) -> None:
    folder = pictures.folder(tmp_path / "photos", 40)
    lines = ["path,label"]
    for number, file in enumerate(sorted(folder.iterdir())):
        s3.put(f"table/{number}.jpg", file.read_bytes())
        lines.append(f"{number}.jpg,{file.name[:3]}")
    lines += ["gone.jpg,cat", "3.jpg,horse"]
    s3.put("table/photos.csv", "\n".join(lines).encode())
    prepared = prepare(settings(s3.location("table/photos.csv").uri), Location.of(tmp_path), 0)
    check(prepared)
    assert prepared.manifest["rejected"] == {"unreadable": 1, "no_label": 1}
    row = prepared.rejected().to_pylist()[-1]
    assert (row["reason"], "FileNotFoundError" in row["detail"]) == ("unreadable", True)


def test_the_set_on_disk_is_as_the_design_says(prepared: PreparedSet) -> None:
    root = prepared.root.local_path
    assert {p.name for p in root.iterdir()} == {
        "pixels", "photos.parquet", "rejected.parquet", "manifest.json",
    }  # fmt: skip
    assert pq.read_schema(root / "rejected.parquet").names[:4] == [
        "uri",
        "reason",
        "detail",
        "size",
    ]
    for shard in prepared.manifest["shards"]:
        assert shard["file"].startswith("pixels/")
        assert (root / shard["file"]).stat().st_size == shard["bytes"]
        assert len(open_rows([prepared.root / shard["file"]])) == shard["rows"]
    assert prepared.manifest["images_per_second"] > 0
    flags = [f for row in prepared.photos().to_pylist() for f in row["flags"].split(",") if f]
    assert prepared.manifest["flags"] == {f: flags.count(f) for f in sorted(set(flags))}


@pytest.mark.slow
@pytest.mark.photos
@pytest.mark.timeout(300)
def test_four_times_the_photos_take_the_same_memory(photos: Path, tmp_path: Path) -> None:
    from catdog.benchmarks import _setup, ingest

    peaks = []
    for count in (2_500, 10_000):
        folder = _setup.repeated(str(photos), count, 160, tmp_path)
        ingest.stage(folder, 160, tmp_path)
        with _setup.peak() as result:
            ingest.stage(folder, 160, tmp_path)
        peaks += result
    assert peaks[1] < 1.1 * peaks[0], peaks
