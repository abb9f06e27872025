from __future__ import annotations

import struct
from typing import Any

import pytest

from catdog.data.formats import (
    format_of,
    guess_other,
    jpeg_header,
    jpeg_too_short,
    jpeg_trailing_bytes,
    structure,
)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_formats_are_told_by_their_bytes_and_whole_files_are_whole(
    pictures: Any, form: str
) -> None:
    for size in ((33, 47), (64, 64), (120, 50)):
        data = pictures.encode(pictures.pixels(1, *size), form)
        assert format_of(data) == form.lower()
        assert structure(data, form.lower()) is None


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_tiffs_of_every_packing_are_whole(pictures: Any, compression: str) -> None:
    data = pictures.encode(pictures.pixels(1), "TIFF", compression=compression)
    assert structure(data, "tiff") is None
    assert structure(data[:-20], "tiff") is not None


def test_animations_are_whole_and_cut_ones_are_not(pictures: Any) -> None:
    from PIL import Image

    frames = [Image.fromarray(pictures.pixels(i)).quantize(32) for i in range(3)]
    data = pictures.encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert structure(data, "gif") is None
    assert structure(data[: len(data) // 2], "gif") == ("truncated", "ends before the trailer")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_the_header_of_a_jpeg_is_read(pictures: Any, options: dict[str, Any]) -> None:
    data = pictures.jpeg(2, 77, 131, **options)
    header = jpeg_header(data)
    assert (header.width, header.height, header.components) == (131, 77, 3)
    assert header.damage is None
    assert header.scan is not None
    assert not jpeg_too_short(header, len(data))
    assert jpeg_trailing_bytes(data, header) == 0
    assert jpeg_trailing_bytes(data + b"12345", header) == 5
    assert jpeg_trailing_bytes(data + data, header) == len(data), "two pictures in one file"


def test_even_the_emptiest_jpeg_holds_its_blocks(pictures: Any) -> None:
    """One flat colour takes the fewest bits that a block can take."""
    import numpy as np

    for options in ({}, {"optimize": True}, {"progressive": True}, {"subsampling": 0}):
        data = pictures.encode(np.zeros((2000, 3000, 3), np.uint8), "JPEG", quality=5, **options)
        assert not jpeg_too_short(jpeg_header(data), len(data))


def test_a_forged_size_is_too_much_for_its_data(pictures: Any) -> None:
    data = bytearray(pictures.jpeg(3))
    at = data.find(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 9000, 9000)
    assert jpeg_too_short(jpeg_header(bytes(data)), len(data))


@pytest.mark.parametrize(
    "content, word",
    [
        (b"<html>", "web page"),
        (b"<?xml version='1.0'?><svg/>", "XML"),
        (b"\0\0\0\x18ftypheic" + bytes(20), "heic"),
        (b"\0\0\0\x18ftypisom" + bytes(20), "video"),
        (b"PK\x03\x04" + bytes(20), "archive"),
        (b"plain words", "text"),
        (b"\xfe\xfd\xfc\x00" * 9, "no known picture format"),
    ],
)
def test_what_else_a_file_may_be(content: bytes, word: str) -> None:
    assert word in guess_other(content)
