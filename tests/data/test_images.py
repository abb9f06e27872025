"""Every verdict from real bytes, and the pixels of what is kept."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import imagehash
import numpy as np
import pytest
from PIL import Image

from catdog.data.decoding import REASONS, Rejected, Workspace, pixel_digest, thumbnail
from catdog.data.images import Photo, inspect, shrink

FORMATS = {
    "JPEG": {"quality": 90},
    "PNG": {},
    "WEBP": {"quality": 90},
    "BMP": {},
    "GIF": {},
    "TIFF": {},
}


def reason_of(data: bytes, size: int = 64) -> str | None:
    verdict = inspect(data, size)
    return verdict.reason if isinstance(verdict, Rejected) else None


def kept(data: bytes, size: int = 64) -> Photo:
    verdict = inspect(data, size)
    assert isinstance(verdict, Photo), verdict
    return verdict


def difference(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean())


def test_an_empty_file_is_empty() -> None:
    assert reason_of(b"") == "empty"


@pytest.mark.parametrize(
    "content",
    [
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        b"\n\n  <html>",
        b"a cat, a dog, and some text",
        b"BMW builds cars, and this is no bitmap of one",
        b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(200),
        b"\x1aE\xdf\xa3" + bytes(100),
        b"PK\x03\x04" + bytes(100),
        b"%PDF-1.4 ...",
        bytes(1000),
        bytes(range(256)),
    ],
)
def test_what_is_no_picture_is_not_an_image(content: bytes) -> None:
    verdict = inspect(content, 64)
    assert isinstance(verdict, Rejected)
    assert verdict.reason == "not_an_image"
    assert verdict.detail


def forged_jpeg(pictures: Any, width: int, height: int) -> bytes:
    data = bytearray(pictures.jpeg(1))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def forged_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000))
    start = b"\x89PNG\r\n\x1a\n"
    return start + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("width, height", [(10_001, 10_000), (20_000, 20_000), (65_000, 65_000)])
def test_too_many_pixels_are_seen_in_the_header(pictures: Any, width: int, height: int) -> None:
    import tracemalloc

    gif = bytearray(pictures.encode(pictures.pixels(1), "GIF"))
    gif[6:10] = struct.pack("<HH", width, height)
    tracemalloc.start()
    for data in (forged_jpeg(pictures, width, height), forged_png(width, height), bytes(gif)):
        assert reason_of(data) == "too_many_pixels"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000, f"{peak} bytes were taken to reject a header"


def test_a_header_that_its_data_cannot_fill_is_truncated_without_decoding(pictures: Any) -> None:
    start = time.perf_counter()
    assert reason_of(forged_jpeg(pictures, 9_999, 9_999)) == "truncated"
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_anywhere_is_truncated(pictures: Any, form: str) -> None:
    whole = pictures.encode(pictures.pixels(3, 64, 80), form, **FORMATS[form])
    assert reason_of(whole) is None
    step = max(1, len(whole) // 150)
    cuts = [*range(1, 40), *range(40, len(whole), step), len(whole) - 1]
    told = {cut: reason_of(whole[:cut]) for cut in cuts}
    assert {cut: reason for cut, reason in told.items() if reason != "truncated"} == {}


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"}]
)
def test_other_jpegs_cut_anywhere_are_truncated(pictures: Any, options: dict[str, Any]) -> None:
    whole = pictures.jpeg(4, 100, 130, quality=92, **options)
    cuts = range(2, len(whole), max(1, len(whole) // 100))
    told = {cut: reason_of(whole[:cut]) for cut in cuts}
    assert {cut: reason for cut, reason in told.items() if reason != "truncated"} == {}


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_damaged_scan_data_is_corrupt(pictures: Any, mode: str) -> None:
    image = Image.fromarray(pictures.pixels(5, 200, 300)).convert(mode)
    data = pictures.encode(image, "JPEG")
    generator = random.Random(0)
    found = []
    for _ in range(20):
        at = generator.randrange(len(data) // 3, len(data) // 2)
        noise = bytes(generator.randrange(255) for _ in range(len(data) // 6))
        found.append(reason_of(data[:at] + noise + data[at + len(noise) :]))
    assert set(found) == {"corrupt"}, found


def test_a_png_with_a_wrong_checksum_is_corrupt(pictures: Any) -> None:
    data = bytearray(pictures.encode(pictures.pixels(6), "PNG"))
    data[len(data) // 2] ^= 0x10
    assert reason_of(bytes(data)) == "corrupt"


@pytest.mark.parametrize("height, width", [(31, 100), (100, 31), (1, 1)])
def test_a_side_under_32_pixels_is_too_small(pictures: Any, height: int, width: int) -> None:
    assert reason_of(pictures.encode(pictures.pixels(7, height, width), "PNG")) == "too_small"


def test_a_side_of_32_pixels_is_enough(pictures: Any) -> None:
    assert reason_of(pictures.encode(pictures.pixels(7, 32, 32), "PNG")) is None


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_one_flat_colour_is_no_content(pictures: Any, form: str) -> None:
    for colour in ((0, 0, 0), (255, 255, 255), (200, 30, 90)):
        flat = np.full((120, 160, 3), colour, np.uint8)
        assert reason_of(pictures.encode(flat, form)) == "no_content"


def test_a_small_mark_on_a_flat_ground_is_content(pictures: Any) -> None:
    nearly = np.full((120, 160, 3), 90, np.uint8)
    nearly[50:54, 60:64] = 250
    assert reason_of(pictures.encode(nearly, "PNG")) is None


def test_the_first_reason_that_applies_is_told(pictures: Any) -> None:
    small_and_flat = pictures.encode(np.full((10, 10, 3), 7, np.uint8), "PNG")
    assert reason_of(small_and_flat) == "too_small"
    assert reason_of(small_and_flat[:-8]) == "truncated"
    assert reason_of(forged_jpeg(pictures, 20_000, 20_000)[:-100]) == "too_many_pixels"
    assert REASONS[:3] == ("unreadable", "empty", "not_an_image")


@pytest.mark.parametrize("form", FORMATS)
def test_a_good_picture_is_kept_whatever_its_wrapping(pictures: Any, form: str) -> None:
    pixels = pictures.pixels(8, 128, 128)
    photo = kept(pictures.encode(pixels, form, **FORMATS[form]), 128)
    # GIF has 256 colours, JPEG and WebP lose detail; none loses the picture.
    assert difference(photo.pixels, pixels) < 12
    assert (photo.width, photo.height) == (128, 128)


def test_progressive_and_grey_jpegs_are_kept(pictures: Any) -> None:
    pixels = pictures.pixels(9, 96, 96)
    for options in ({"progressive": True}, {"subsampling": 0}, {"optimize": True}):
        photo = kept(pictures.encode(pixels, "JPEG", quality=95, **options), 96)
        assert difference(photo.pixels, pixels) < 5
    grey = Image.fromarray(pixels).convert("L")
    photo = kept(pictures.encode(grey, "JPEG", quality=95), 96)
    assert difference(photo.pixels, np.asarray(grey.convert("RGB"))) < 3


def test_cmyk_becomes_rgb(pictures: Any) -> None:
    image = Image.fromarray(pictures.pixels(10, 96, 96)).convert("CMYK")
    photo = kept(pictures.encode(image, "JPEG", quality=95), 96)
    assert difference(photo.pixels, np.asarray(image.convert("RGB"))) < 5


def test_a_palette_becomes_rgb(pictures: Any) -> None:
    image = Image.fromarray(pictures.pixels(11, 96, 96)).quantize(64)
    photo = kept(pictures.encode(image, "PNG"), 96)
    assert difference(photo.pixels, np.asarray(image.convert("RGB"))) < 1


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_become_eight(pictures: Any, form: str) -> None:
    grey = np.asarray(Image.fromarray(pictures.pixels(12, 96, 96)).convert("L"))
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    photo = kept(pictures.encode(deep, form), 96)
    assert difference(photo.pixels[:, :, 0], grey) < 1


def test_sixteen_bit_colour_becomes_eight(pictures: Any) -> None:
    pixels = pictures.pixels(12, 96, 96)
    ok, data = cv2.imencode(".png", pixels[:, :, ::-1].astype(np.uint16) * 257)
    assert ok
    assert difference(kept(data.tobytes(), 96).pixels, pixels) < 1


def test_what_is_transparent_lies_over_white(pictures: Any) -> None:
    pixels = pictures.pixels(13, 64, 64)
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:, :32] = 0
    photo = kept(pictures.encode(np.concatenate([pixels, alpha], axis=2), "PNG"), 64)
    assert (photo.pixels[:, :31] == 255).all()
    assert difference(photo.pixels[:, 33:], pixels[:, 33:]) < 1


def test_a_transparent_palette_lies_over_white(pictures: Any) -> None:
    image = Image.fromarray(pictures.pixels(13, 64, 64)).quantize(8)
    data = pictures.encode(image, "PNG", transparency=0)
    photo = kept(data, 64)
    hidden = np.asarray(image) == 0
    assert hidden.any()
    assert (photo.pixels[hidden] == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(pictures: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(pictures.pixels(14, 100, 140))
    data = pictures.encode(image, "JPEG", quality=95, exif=exif)
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    photo = kept(data, 96)
    assert (photo.width, photo.height) == upright.size
    assert difference(photo.pixels, shrink(np.asarray(upright.convert("RGB")), 96)) < 2


def test_an_exif_jpeg_without_jfif_header_is_kept(pictures: Any) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Camera"
    data = pictures.jpeg(15, exif=exif)
    jfif = data.find(b"JFIF")
    if jfif >= 0:
        start = jfif - 4
        length = int.from_bytes(data[start + 2 : start + 4], "big")
        data = data[:start] + data[start + 2 + length :]
    assert b"JFIF" not in data
    assert data[:4] == b"\xff\xd8\xff\xe1"
    kept(data)


def test_an_unknown_jfif_version_is_kept(pictures: Any) -> None:
    data = bytearray(pictures.jpeg(16))
    at = data.find(b"JFIF\0")
    data[at + 5] = 0
    kept(bytes(data))
    assert reason_of(bytes(data[: len(data) // 2])) == "truncated"


def test_garbage_after_the_end_is_noted_and_kept(pictures: Any) -> None:
    clean = pictures.jpeg(17)
    assert kept(clean).note == ""
    noted = kept(clean + b"\0" * 1234)
    assert "1234 bytes" in noted.note
    assert noted.hash == kept(clean).hash
    inks = pictures.encode(Image.fromarray(pictures.pixels(17)).convert("CMYK"), "JPEG")
    assert kept(inks).note == ""
    assert "1234 bytes" in kept(inks + b"\0" * 1234).note


def test_dark_bright_blurry_and_odd_pictures_are_flagged_and_kept(pictures: Any) -> None:
    noise = np.random.default_rng(18).integers(-60, 60, (240, 320, 1))
    pixels = np.clip(pictures.pixels(18, 240, 320) + noise, 0, 255).astype(np.uint8)
    assert kept(pictures.encode(pixels, "PNG")).flags == ()
    dark = kept(pictures.encode((pixels // 8).astype(np.uint8), "PNG"))
    assert "dark" in dark.flags
    assert dark.brightness < 0.15
    bright = kept(pictures.encode((230 + pixels // 12).astype(np.uint8), "PNG"))
    assert "bright" in bright.flags
    assert "blurry" in kept(pictures.encode(cv2.GaussianBlur(pixels, (0, 0), 12), "PNG")).flags
    assert "odd aspect" in kept(pictures.encode(pictures.pixels(19, 64, 400), "PNG")).flags


@pytest.mark.photos
def test_real_photos_are_kept_and_close_to_pillow(photos: Path) -> None:
    """The bounds of the design: mean under 3 grey levels, 95th percentile of photos under 5."""
    files = sorted(photos.glob("*.jpg"))[::12]
    workspace = Workspace()
    for size in (96, 160, 224):
        found = []
        for file in files:
            data = file.read_bytes()
            photo = inspect(data, size, workspace)
            assert isinstance(photo, Photo), f"{file}: {photo}"
            exact = Image.open(io.BytesIO(data)).convert("RGB").resize((size, size), Image.BILINEAR)
            found.append(difference(photo.pixels, exact))
        assert np.mean(found) < 3
        assert np.percentile(found, 95) < 5


@pytest.mark.photos
def test_the_hash_is_near_imagehash_and_far_between_photos(photos: Path) -> None:
    files = sorted(photos.glob("*.jpg"))[::40]
    images = [Image.open(file).convert("RGB") for file in files]
    ours = [kept(file.read_bytes()).hash for file in files]
    theirs = [int(str(imagehash.phash(image)), 16) for image in images]
    apart = [(a ^ b).bit_count() for a, b in zip(ours, theirs, strict=True)]
    assert np.mean(apart) < 2.5
    between = [(a ^ b).bit_count() for i, a in enumerate(ours) for b in ours[:i]]
    assert min(between) > 8


def test_the_hash_does_not_depend_on_the_size_asked_for(pictures: Any) -> None:
    data = pictures.jpeg(20, 300, 400)
    assert len({kept(data, size).hash for size in (32, 96, 160, 224, 512)}) == 1


def test_the_hash_survives_another_compression_and_size(pictures: Any) -> None:
    image = Image.fromarray(pictures.pixels(21, 400, 500))
    original = kept(pictures.encode(image, "JPEG", quality=95)).hash
    for changed in (
        pictures.encode(image, "JPEG", quality=60),
        pictures.encode(image.resize((400, 320)), "PNG"),
    ):
        assert (kept(changed).hash ^ original).bit_count() <= 6


def test_a_large_jpeg_is_decoded_at_a_fraction(pictures: Any) -> None:
    pixels = cv2.resize(pictures.pixels(22, 300, 400), (4000, 3000))
    data = pictures.encode(pixels, "JPEG", quality=90)
    photo = kept(data, 224)
    assert (photo.width, photo.height) == (4000, 3000)
    exact = Image.fromarray(pixels).resize((224, 224), Image.BILINEAR)
    assert difference(photo.pixels, exact) < 3


def test_pixels_are_written_where_asked_and_the_workspace_does_not_change_them(
    pictures: Any,
) -> None:
    data = pictures.jpeg(23, 200, 220)
    out, workspace = np.zeros((64, 64, 3), np.uint8), Workspace()
    first = inspect(data, 64, workspace, out)
    assert isinstance(first, Photo)
    inspect(pictures.jpeg(24, 300, 320), 64, workspace)
    assert np.array_equal(out, kept(data).pixels)
    assert np.array_equal(first.pixels, out)


def test_pixel_digests_are_equal_for_equal_pixels_in_any_wrapping(pictures: Any) -> None:
    jpeg = pictures.jpeg(25)
    png = pictures.encode(Image.open(io.BytesIO(jpeg)).convert("RGB"), "PNG")
    changed = np.asarray(Image.open(io.BytesIO(png))).copy()
    changed[5, 5] ^= 1
    assert pixel_digest(jpeg) is not None
    assert pixel_digest(jpeg) == pixel_digest(png)
    assert pixel_digest(pictures.encode(changed, "PNG")) != pixel_digest(png)
    assert pixel_digest(b"no picture") is None


def test_a_thumbnail_is_small_and_only_of_what_can_be_seen(pictures: Any) -> None:
    small = thumbnail(pictures.encode(pictures.pixels(26, 300, 600), "PNG"))
    assert small is not None
    assert max(Image.open(io.BytesIO(small)).size) == 96
    assert thumbnail(b"") is None
    assert thumbnail(b"<html>") is None


def mutated(data: bytes, generator: random.Random, others: list[bytes]) -> bytes:
    """One hostile version of a file: bytes flipped, cut, spliced, headers forged."""
    content = bytearray(data)
    kind = generator.randrange(6)
    if kind == 0:
        for _ in range(generator.choice((1, 4, 64))):
            content[generator.randrange(len(content))] = generator.randrange(256)
    elif kind == 1:
        del content[generator.randrange(len(content)) :]
    elif kind == 2:
        other = generator.choice(others)
        content[generator.randrange(len(content)) :] = other[generator.randrange(len(other)) :]
    elif kind == 3:
        for _ in range(generator.choice((1, 3, 12))):
            content[generator.randrange(min(700, len(content)))] = generator.randrange(256)
    elif kind == 4:
        at = generator.randrange(min(64, len(content)))
        size = generator.choice((2, 4))
        content[at : at + size] = generator.choice((b"\xff" * size, b"\0" * size, b"\x7f" * size))
    else:
        at = generator.randrange(len(content))
        content[at:at] = generator.randbytes(generator.choice((1, 100, 5000)))
    return bytes(content)


def _survives(pictures: Any, count: int, seed: int) -> None:
    generator = random.Random(seed)
    originals = [
        pictures.encode(pictures.pixels(30 + i, 150, 200), form, **options)
        for i, (form, options) in enumerate(
            [*FORMATS.items(), ("JPEG", {"progressive": True}), ("PNG", {"bits": 8})]
        )
    ]
    originals.append(pictures.encode(Image.fromarray(pictures.pixels(40)).convert("CMYK"), "JPEG"))
    originals.append(pictures.encode(Image.fromarray(pictures.pixels(41)).convert("L"), "TIFF"))
    originals += [
        pictures.encode(pictures.pixels(42), "TIFF", compression=compression)
        for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    ]
    originals.append(pictures.encode(Image.fromarray(pictures.pixels(43)).convert("P"), "BMP"))
    workspace, verdicts = Workspace(), 0
    for number in range(count):
        data = mutated(generator.choice(originals), generator, originals)
        start = time.process_time()
        verdict = inspect(data, 64, workspace)
        spent = time.process_time() - start
        assert spent < 1, f"file {number} took {spent:.1f} s: {verdict}"
        assert isinstance(verdict, Photo) or verdict.reason in REASONS
        verdicts += 1
    assert verdicts == count


def test_mutated_files_are_judged_without_a_crash(pictures: Any) -> None:
    _survives(pictures, 800, seed=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ten_thousand_mutated_files_are_judged_without_a_crash(pictures: Any) -> None:
    _survives(pictures, 10_000, seed=2)
