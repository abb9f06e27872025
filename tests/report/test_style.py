"""The colours of the page, computed: contrast, and what the colour-blind see."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np
import pytest

import catdog.report

CSS = (Path(catdog.report.__file__).parent / "templates" / "style.css").read_text()
SERIES = ("s0", "s1", "s2", "s3")  # a run has four models

#: Machado, Oliveira, Fernandes 2009, full severity, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def colours(block: str) -> dict[str, np.ndarray]:
    found = dict(re.findall(r"--(\w+): (#[0-9a-f]{3,6})", block))
    return {name: linear(text) for name, text in found.items()}


def linear(text: str) -> np.ndarray:
    digits = text[1:] if len(text) == 7 else "".join(2 * digit for digit in text[1:])
    value = np.array([int(digits[i : i + 2], 16) for i in (0, 2, 4)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    low, high = sorted(float(c @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(colour: np.ndarray) -> np.ndarray:
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = np.array(to_xyz) @ colour / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


LIGHT = colours(CSS.split("@media (prefers-color-scheme: dark)")[0])
DARK = LIGHT | colours(CSS.split("@media (prefers-color-scheme: dark)")[1].split("::before")[0])
PRINT = LIGHT | colours(CSS.split("@media print")[1])
THEMES = pytest.mark.parametrize("theme", [LIGHT, DARK, PRINT], ids=["light", "dark", "print"])


@THEMES
def test_text_and_lines_stand_out_from_their_ground(theme: dict[str, np.ndarray]) -> None:
    for text, ground in (("ink", "card"), ("soft", "card"), ("soft", "page"), ("link", "page")):
        assert contrast(theme[text], theme[ground]) >= 4.5, f"{text} on {ground}"
    for ground in ("caution", "good", "bad", "faint", "band", "band2"):
        assert contrast(theme["ink"], theme.get(ground, theme["card"])) >= 4.5, ground
    for series in ("s0", "s1", "s2", "s3", "s4"):
        for ground in ("card", "band", "band2"):
            assert contrast(theme[series], theme[ground]) >= 3, f"{series} on {ground}"


@THEMES
@pytest.mark.parametrize("sight", SIGHT)
def test_series_are_told_apart_by_the_colour_blind(
    theme: dict[str, np.ndarray], sight: str
) -> None:
    seen = {name: lab(np.clip(np.array(SIGHT[sight]) @ theme[name], 0, 1)) for name in SERIES}
    for one, other in itertools.combinations(SERIES, 2):
        distance = float(np.linalg.norm(seen[one] - seen[other]))
        assert distance >= 20, f"{one} and {other} are {distance:.0f} apart"
