"""Choose the photos that the page shows and embed them as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from catdog.evaluation import metrics
from catdog.report.alignment import averaged, shared_photos
from catdog.report.load import Overlay
from catdog.report.results import ModelResult
from catdog.report.wording import NBSP, file_name, percent, visible

CLASSES = ("cat", "dog")
#: Pictures above this are made smaller, so that no run can make the page heavy.
LARGEST_BYTES = 16_000
SIDE = 160


@dataclass(frozen=True)
class Photo:
    """A photo as shown. ``image`` and ``heatmap`` are data URIs, empty where there are no pixels;
    ``says`` is what models answered, in words."""

    name: str
    uri: str
    truth: str
    says: str
    image: str
    heatmap: str = ""


@dataclass(frozen=True)
class Gallery:
    """The photos shown of ``total`` of their kind."""

    photos: tuple[Photo, ...]
    total: int


def confident_mistakes(model: ModelResult, most: int = 9) -> Gallery:
    """Test photos that the model gets wrong, the most certain of its wrong answers first."""
    test = model.files.test
    if test is None:
        return Gallery((), 0)
    wrong = np.flatnonzero(~metrics.correct(test.labels, test.logits))
    ranked = wrong[np.argsort(-np.abs(test.logits[wrong]), kind="stable")]
    return Gallery(
        tuple(
            _photo(
                str(test.uris[i]),
                int(test.labels[i]),
                answer(float(test.logits[i])),
                model.run.thumbnails,
                model.files.overlays,
            )
            for i in ranked[:most]
        ),
        len(wrong),
    )


def missed_by_all(models: Sequence[ModelResult], most: int = 12) -> Gallery | None:
    """Test photos that every model gets wrong; ``None`` with fewer than two models."""
    tests = [model.files.test for model in models if model.files.test is not None]
    rows = shared_photos(tests) if len(tests) > 1 else None
    if rows is None:
        return None
    logits = [test.logits[index] for test, index in zip(tests, rows, strict=True)]
    labels, uris = tests[0].labels[rows[0]], tests[0].uris[rows[0]]
    wrong = np.flatnonzero(
        np.logical_and.reduce([~metrics.correct(labels, each) for each in logits])
    )
    certainty = np.abs(averaged(logits))
    ranked = wrong[np.argsort(-certainty[wrong], kind="stable")]
    photos = tuple(
        _photo(
            str(uris[i]),
            int(labels[i]),
            f"all say {CLASSES[1 - int(labels[i])]}, the least sure "
            f"{_sure(min(abs(float(each[i])) for each in logits))}",
            _thumbnails(models),
        )
        for i in ranked[:most]
    )
    return Gallery(photos, len(wrong))


def most_uncertain(models: Sequence[ModelResult], most: int = 12) -> Gallery:
    """Test photos whose mean probability over the models is nearest to one half."""
    tests = [model.files.test for model in models if model.files.test is not None]
    rows = shared_photos(tests) if tests else None
    if rows is None:
        return Gallery((), 0)
    mean = averaged([test.logits[index] for test, index in zip(tests, rows, strict=True)])
    labels, uris = tests[0].labels[rows[0]], tests[0].uris[rows[0]]
    ranked = np.argsort(np.abs(mean), kind="stable")[:most]
    shown = _thumbnails(models)
    photos = (_photo(str(uris[i]), int(labels[i]), answer(float(mean[i])), shown) for i in ranked)
    return Gallery(tuple(photos), len(mean))


def answer(logit: float) -> str:
    """``says dog, 87 % sure``."""
    return f"says {CLASSES[int(logit > 0)]}, {_sure(abs(logit))} sure"


def _sure(distance: float) -> str:
    """A logit's distance from 0 as confidence; never ``100 %``, which no model can know."""
    confidence = float(metrics.probabilities(distance))
    if confidence > 0.9995:
        return f"over 99.9{NBSP}%"
    return percent(confidence, 1 if confidence > 0.99 else 0)


def _thumbnails(models: Sequence[ModelResult]) -> dict[str, bytes]:
    """Pictures of all runs that these models come from, Grad-CAM's where there is no other."""
    found: dict[str, bytes] = {}
    for model in models:
        found |= {uri: overlay.thumbnail for uri, overlay in model.files.overlays.items()}
    for model in models:
        found |= model.run.thumbnails
    return found


def _photo(
    uri: str,
    label: int,
    says: str,
    thumbnails: Mapping[str, bytes],
    overlays: Mapping[str, Overlay] | None = None,
) -> Photo:
    overlay = (overlays or {}).get(uri, Overlay(b"", b""))
    return Photo(
        name=file_name(uri),
        uri=visible(uri),
        truth=CLASSES[label],
        says=says,
        image=data_uri(overlay.thumbnail or thumbnails.get(uri, b"")),
        heatmap=data_uri(overlay.heatmap),
    )


def data_uri(jpeg: bytes) -> str:
    """A small JPEG as a data URI; empty for what is no JPEG. A large one is made smaller."""
    if not jpeg.startswith(b"\xff\xd8\xff"):
        return ""
    if len(jpeg) > LARGEST_BYTES:
        jpeg = _smaller(jpeg)
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" if jpeg else ""


def _smaller(jpeg: bytes) -> bytes:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            image.thumbnail((SIDE, SIDE))
            buffer = io.BytesIO()
            image.convert("RGB").save(buffer, "JPEG", quality=75)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return b""
    return buffer.getvalue()
