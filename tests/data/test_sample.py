from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from catdog.data import sample
from catdog.data.images import Photo, inspect
from catdog.data.labels import label_of
from catdog.storage import Location
from tests.store import S3


def test_the_same_arguments_draw_the_same_bytes() -> None:
    def digest(seed: int) -> list[tuple[str, str]]:
        return [(n, hashlib.sha256(c).hexdigest()) for n, c in sample.files(12, seed, 64)]

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_the_files_are_as_planned_and_the_bad_ones_are_bad() -> None:
    files = dict(sample.files(41, 0, 64))
    counted = {"cat": 0, "dog": 0, "unknown": 0}
    reasons = []
    for name, content in files.items():
        counted[("cat", "dog", "unknown")[label_of(name)]] += 1
        verdict = inspect(content, 64)
        if not isinstance(verdict, Photo):
            reasons.append(verdict.reason)
    assert counted == sample.plan(41)
    assert sorted(reasons) == ["empty", "no_content", "not_an_image", "truncated"]
    contents = list(files.values())
    assert len(contents) - len(set(contents)) == 1  # the duplicate


def test_no_colour_tells_cats_from_dogs() -> None:
    """A plane through the mean colours, fitted on half, must be near to guessing on the rest."""
    means, labels = [], []
    for index in range(240):
        animal = ("cat", "dog")[index % 2]
        pixels = sample.picture(animal, np.random.default_rng([7, index]), 48).astype(float)
        centre = pixels[pixels.shape[0] // 3 : -pixels.shape[0] // 3].mean(axis=(0, 1))
        means.append([1, *(centre / 255), *(pixels.mean(axis=(0, 1)) / 255)])
        labels.append(index % 2)
    x, y = np.array(means), np.array(labels)
    weights = np.linalg.lstsq(x[:120], y[:120] * 2.0 - 1, rcond=None)[0]
    accuracy = float(((x[120:] @ weights > 0) == y[120:]).mean())
    assert accuracy < 0.7


def test_drawings_are_drawn_once(tmp_path: Path) -> None:
    storage = Location.of(tmp_path)
    folder = sample.drawn(storage, 12, 0, 48)
    stamps = {p.name: p.stat().st_mtime_ns for p in folder.local_path.iterdir()}
    assert sum(sample.plan(12).values()) == len(stamps)
    assert sample.drawn(storage, 12, 0, 48) == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.local_path.iterdir()} == stamps
    assert sample.drawn(storage, 12, 1, 48) != folder


def test_drawings_go_to_a_bucket_too(s3: S3) -> None:
    storage = s3.location("drawn")
    folder = sample.drawn(storage, 8, 0, 48)
    assert len(folder.list()) == sum(sample.plan(8).values())
    assert sample.drawn(storage, 8, 0, 48) == folder
