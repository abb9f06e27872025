"""Generate drawings of cats and dogs, so that the job runs without photographs.

A cat has slit pupils, a small pink nose and mostly whiskers and pointed ears; a dog has round
pupils, a large muzzle with a black nose and mostly hanging ears. Some cats have folded ears and
some dogs pricked ones. Coat, background, pose, light and size are drawn from the same distributions
for both, so neither colours nor sizes tell them apart. Grain, clutter in the shapes of ears, eyes
and whiskers, and things in front of the animal make them hard enough that a network trained on some
hundred makes mistakes. A few damaged files are among them, as in real life. The drawings prove that
the job runs; they prove nothing about accuracy on photographs.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from catdog.config import digest
from catdog.storage import Location

#: Changes whenever the same seed would draw something else.
VERSION = 2
_COATS = (
    (60, 55, 52), (120, 82, 50), (196, 140, 82), (226, 196, 150), (150, 150, 155), (238, 232, 222),
    (92, 64, 44), (205, 120, 60),
)  # fmt: skip
#: Colours of tongues, inner ears, eyes, noses and whiskers.
_DETAILS = ((225, 95, 110), (222, 150, 150), (150, 170, 70), (22, 18, 18), (225, 220, 215))
#: Radius of the head as a share of the picture's shorter side.
_SCALE = (0.26, 0.40)
#: Largest shift off the middle, as a share of that side; largest turn, degrees; least contrast.
_SHIFT, _TURN, _CONTRAST = 0.15, 30, 0.6
#: Numbers of things behind the animal and in front of it, the upper end excluded.
_THINGS = (3, 9)
_OCCLUDERS = (0, 4)
#: Standard deviation of the grain, grey levels.
_GRAIN = (2, 14)
#: Supersampling: drawn this many times larger, then reduced.
_FINE = 2


def plan(count: int) -> dict[str, int]:
    """How many files :func:`draw` makes by what their names say: ``count`` good, six bad."""
    return {"cat": -(-count // 2) + 2, "dog": count // 2 + 3, "unknown": 1}


def drawn(storage: Location, count: int, seed: int, size: int) -> Location:
    """The folder of drawings under ``storage``, drawn if it is not there."""
    name = digest({"version": VERSION, "count": count, "seed": seed, "size": size})
    folder = storage / "drawings" / name
    if folder.is_local:
        if not folder.exists():
            temporary = storage / "drawings" / f".{name}.{uuid.uuid4().hex[:8]}"
            draw(temporary, count, seed, size)
            try:
                os.rename(temporary.local_path, folder.local_path)
            except OSError:  # another process was first; its drawings are the same
                shutil.rmtree(temporary.local_path, ignore_errors=True)
        return folder
    complete = storage / "drawings" / f"{name}.complete"
    if not complete.exists():
        draw(folder, count, seed, size)
        complete.write_text("")
    return folder


def draw(folder: Location | Path, count: int, seed: int, size: int) -> None:
    """Write ``count`` drawings and six bad files: the same bytes for the same arguments.

    Args:
        folder: where to; made if it is missing.
        count: good pictures, half cats and half dogs.
        size: side in pixels at which they will be looked at; they are up to twice as large.
    """
    target = Location.of(folder) if isinstance(folder, Path) else folder
    if target.is_local:
        target.mkdir()
    for name, content in files(count, seed, size):
        if target.is_local:
            (target.local_path / name).write_bytes(content)
        else:
            (target / name).write_bytes(content)


def files(count: int, seed: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of all files of a set of drawings."""
    last: dict[str, bytes] = {}
    numbers = {"cat": 0, "dog": 0}
    for index in range(count):
        animal = ("cat", "dog")[index % 2]
        rng = np.random.default_rng([VERSION, seed, index])
        last[animal] = _jpeg(picture(animal, rng, size), int(rng.integers(80, 95)))
        yield f"{animal}.{numbers[animal]}.jpg", last[animal]
        numbers[animal] += 1
    flat = _jpeg(np.full((size, size, 3), 200, np.uint8), 90)
    yield "portrait.jpg", _jpeg(picture("cat", np.random.default_rng([seed, count]), size), 90)
    bad = {
        "cat": (b"", b"<!DOCTYPE html><html><body>404: no such cat</body></html>"),
        "dog": (last["dog"][: len(last["dog"]) * 2 // 3], last["dog"], flat),
    }
    for animal, contents in bad.items():
        for content in contents:
            yield f"{animal}.{numbers[animal]}.jpg", content
            numbers[animal] += 1


def picture(animal: str, rng: np.random.Generator, size: int) -> NDArray[np.uint8]:
    """One drawing, uint8 RGB (height, width, 3), each side between ``size`` and 1.5 ``size``."""
    height, width = (int(rng.integers(size, size * 3 // 2 + 1)) for _ in range(2))
    canvas = _background(rng, width * _FINE, height * _FINE)
    side = min(canvas.size)
    scale = side * rng.uniform(*_SCALE)
    x = canvas.width / 2 + rng.uniform(-_SHIFT, _SHIFT) * side
    y = canvas.height / 2 + rng.uniform(-_SHIFT, _SHIFT) * side
    layer = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    _Animal(ImageDraw.Draw(layer), side / 2, side / 2, scale, rng).draw(animal)
    layer = layer.rotate(rng.uniform(-_TURN, _TURN), Image.Resampling.BILINEAR)
    layer = layer.resize((int(side * rng.uniform(0.8, 1.2)), int(side * rng.uniform(0.8, 1.2))))
    if rng.random() < 0.5:
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    canvas.paste(layer, (int(x - layer.width / 2), int(y - layer.height / 2)), layer)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(*_OCCLUDERS))):
        near = (x + scale * rng.uniform(-1, 1), y + scale * rng.uniform(-1.2, 0.8))
        _thing(pen, rng, near, scale * rng.uniform(0.15, 0.5, 2))
    small = canvas.resize((width, height), Image.Resampling.BOX)
    if rng.random() < 0.3:
        small = small.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0)))
    pixels = np.asarray(small).astype(np.float32)
    contrast, light = rng.uniform(_CONTRAST, 1.0), rng.uniform(0.75, 1.2)
    pixels = (pixels * contrast + 128 * (1 - contrast)) * light
    # Grain of two sizes: single pixels, and specks that a smaller picture keeps.
    strength = rng.uniform(*_GRAIN)
    specks = rng.normal(0, strength, (height // 3 + 1, width // 3 + 1, 3)).astype(np.float32)
    pixels += cv2.resize(specks, (width, height), interpolation=cv2.INTER_LINEAR)
    pixels += rng.normal(0, strength, (height, width, 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    patches = rng.integers(40, 236, (3, 3, 3)).astype(np.uint8)
    smooth = cv2.resize(patches, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = Image.fromarray(smooth)
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(*_THINGS))):
        place = (rng.uniform(0, width), rng.uniform(0, height))
        _thing(pen, rng, place, rng.uniform(0.04, 0.25, 2) * min(width, height))
    return canvas


def _thing(
    pen: ImageDraw.ImageDraw,
    rng: np.random.Generator,
    place: tuple[float, float],
    half: NDArray[np.float64],
) -> None:
    """Clutter in the shapes and colours that animals have: ears, eyes, whiskers, tongues."""
    (x, y), (w, h) = place, half
    if rng.random() < 0.5:
        colour = tuple(int(c) for c in rng.integers(30, 240, 3))
    else:
        colour = (*_COATS, *_DETAILS)[rng.integers(len(_COATS) + len(_DETAILS))]
    shape = rng.integers(4)
    if shape == 0:
        pen.ellipse((x - w, y - h, x + w, y + h), fill=colour)
    elif shape == 1:
        pen.rectangle((x - w, y - h, x + w, y + h), fill=colour)
    elif shape == 2:
        corners = [(x + w * math.cos(a), y + h * math.sin(a)) for a in rng.uniform(0, math.tau, 3)]
        pen.polygon(corners, fill=colour)
    else:
        for _ in range(3):
            end = (x + w * rng.uniform(-2, 2), y + h * rng.uniform(-2, 2))
            pen.line((x, y, *end), fill=colour, width=int(min(w, h) / 8) + 1)


class _Animal:
    """A head in front of a body; lengths are in units of the head's radius."""

    def __init__(
        self, pen: ImageDraw.ImageDraw, x: float, y: float, scale: float, rng: np.random.Generator
    ) -> None:
        self.pen, self.x, self.y, self.scale, self.rng = pen, x, y - 0.25 * scale, scale, rng
        coat = np.array(_COATS[rng.integers(len(_COATS))]) + rng.integers(-14, 15, 3)
        self.coat = self._colour(coat)
        self.shade = self._colour(coat * rng.uniform(0.6, 0.8))
        self.pale = self._colour(coat * 0.45 + 255 * 0.5)
        dark = coat.mean() < 90
        self.line = (225, 220, 215) if dark else (40, 34, 30)

    @staticmethod
    def _colour(values: NDArray[Any]) -> tuple[int, int, int]:
        r, g, b = (int(v) for v in np.clip(values, 0, 255))
        return r, g, b

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.x + x * self.scale, self.y + y * self.scale

    def _oval(self, x: float, y: float, w: float, h: float, fill: tuple[int, int, int]) -> None:
        (left, top), (right, bottom) = self._at(x - w, y - h), self._at(x + w, y + h)
        self.pen.ellipse((left, top, right, bottom), fill=fill)

    def _shape(self, points: list[tuple[float, float]], fill: tuple[int, int, int]) -> None:
        self.pen.polygon([self._at(*point) for point in points], fill=fill)

    def _stroke(self, points: list[tuple[float, float]], width: float) -> None:
        thickness = max(1, int(width * self.scale))
        self.pen.line([self._at(*p) for p in points], fill=self.line, width=thickness)

    def _turned_oval(self, x: float, y: float, w: float, h: float, turn: float) -> None:
        steps = [math.tau * i / 40 for i in range(40)]
        c, s = math.cos(turn), math.sin(turn)
        ring = [(w * math.cos(t), h * math.sin(t)) for t in steps]
        self._shape([(x + a * c - b * s, y + a * s + b * c) for a, b in ring], self.shade)

    def draw(self, animal: str) -> None:
        self._oval(0, 1.25, self.rng.uniform(0.6, 0.85), 0.75, self.coat)
        if animal == "cat":
            self._cat()
        else:
            self._dog()

    def _cat(self) -> None:
        u = self.rng.uniform
        folded = self.rng.random() < 0.15
        if not folded:
            self._pricked_ears(u(0.68, 0.9), u(1.1, 1.4))
        self._oval(0, 0, u(0.82, 0.95), u(0.7, 0.8), self.coat)
        if folded:
            self._hanging_ears(-0.35, u(0.25, 0.4), u(0.3, 0.7))
        iris = self._colour(self.rng.integers((90, 130, 30), (220, 210, 120)).astype(float))
        for side in (-1, 1):
            self._oval(side * 0.36, -0.12, 0.2, 0.17, iris)
            self._oval(side * 0.36, -0.12, u(0.04, 0.1), 0.16, (12, 12, 12))
        self._oval(0, 0.33, u(0.28, 0.36), u(0.18, 0.26), self.pale)
        self._shape([(-0.12, 0.16), (0.12, 0.16), (0, 0.29)], (205, 110, 120))
        self._stroke([(0, 0.29), (0, 0.38), (-0.12, 0.45)], 0.03)
        self._stroke([(0, 0.38), (0.12, 0.45)], 0.03)
        if self.rng.random() < 0.15:
            self._tongue(0.5)
        if self.rng.random() < 0.8:
            self._whiskers()

    def _dog(self) -> None:
        u = self.rng.uniform
        pricked = self.rng.random() < 0.3
        if pricked:
            self._pricked_ears(u(0.6, 0.8), u(1.15, 1.35))
        self._oval(0, -0.05, u(0.72, 0.85), u(0.78, 0.9), self.coat)
        if not pricked:
            self._hanging_ears(0.0, u(0.45, 0.68), u(0.12, 0.6))
        iris = self._colour(self.rng.integers((40, 25, 15), (150, 130, 120)).astype(float))
        for side in (-1, 1):
            self._oval(side * 0.32, -0.22, 0.14, 0.14, iris)
            self._oval(side * 0.32, -0.2, 0.08, 0.09, (12, 12, 12))
        self._oval(0, 0.42, u(0.34, 0.48), u(0.32, 0.46), self.pale)
        self._oval(0, 0.24, u(0.15, 0.22), u(0.1, 0.15), (22, 18, 18))
        self._stroke([(0, 0.36), (0, 0.52), (-0.2, 0.6)], 0.03)
        self._stroke([(0, 0.52), (0.2, 0.6)], 0.03)
        if self.rng.random() < 0.5:
            self._tongue(0.75)

    def _pricked_ears(self, reach: float, tip: float) -> None:
        for side in (-1, 1):
            ear = [(side * 0.25, -0.6), (side * 0.85, -0.2), (side * reach, -tip)]
            self._shape(ear, self.coat)
            inner = [(side * 0.42, -0.65), (side * 0.74, -0.42), (side * reach * 0.97, -tip * 0.87)]
            self._shape(inner, (222, 150, 150))

    def _hanging_ears(self, y: float, length: float, spread: float) -> None:
        for side in (-1, 1):
            width = self.rng.uniform(0.2, 0.28)
            self._turned_oval(side * 0.85, y, width, length, -side * spread)

    def _tongue(self, y: float) -> None:
        self._oval(
            self.rng.uniform(-0.06, 0.06), y, 0.13, self.rng.uniform(0.15, 0.26), _DETAILS[0]
        )

    def _whiskers(self) -> None:
        for side in (-1, 1):
            for lift in (-0.12, 0.02, 0.16):
                end = (side * self.rng.uniform(0.9, 1.35), 0.25 + lift * 1.6)
                self._stroke([(side * 0.25, 0.3), end], 0.03)


def _jpeg(pixels: NDArray[np.uint8], quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
