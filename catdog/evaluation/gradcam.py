"""Grad-CAM: which parts of a photo a prediction rests on (Selvaraju et al. 2017).

The last convolutional activations, weighted by what the answer gains from each channel. Shown are
a model's most confident mistakes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from catdog.config.architectures import ModelName
from catdog.data.decoding import typed
from catdog.models.registry import last_activations, split_at

if TYPE_CHECKING:
    import keras

#: Mistakes kept of a model; the report shows the first nine.
MOST = 12
SIDE = 160
#: How much of the colour covers the photo where the answer rests on it most.
COVER = 0.65

Pixels = NDArray[np.uint8]


def heat(model: keras.Model, name: ModelName, pixels: Pixels) -> NDArray[np.float32]:
    """How much each place speaks for the answer that the model gives, dog or cat.

    Args:
        model: one of the architectures.
        name: which.
        pixels: uint8 (n, side, side, 3), as prepared.

    Returns:
        float32 (n, rows, columns) in 0..1, the largest of each photo 1; all 0 where nothing does.
    """
    import tensorflow as tf

    trunk, tail = split_at(model, last_activations(model, name))
    features = trunk(pixels, training=False)
    with tf.GradientTape() as tape:
        tape.watch(features)
        logit = tail(features, training=False)[:, 0]
        # For a cat speaks what lowers the logit.
        answer = tf.reduce_sum(tf.abs(logit))
    slopes = tf.cast(tape.gradient(answer, features), tf.float32)
    weights = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)
    weighted = tf.nn.relu(tf.reduce_sum(weights * tf.cast(features, tf.float32), axis=-1))
    found: NDArray[np.float32] = weighted.numpy()
    most = found.max(axis=(1, 2), keepdims=True)
    return np.divide(found, most, out=np.zeros_like(found), where=most > 0)


def overlay(pixels: Pixels, places: NDArray[np.float32]) -> Pixels:
    """The photo in grey under colours from dark (nothing) to yellow; uint8 (SIDE, SIDE, 3).

    Viridis: it is told apart by the colour-blind and in print.
    """
    photo = _resized(pixels)
    grey = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    smooth = cv2.resize(places, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC).clip(0, 1)
    levels = (255 * smooth).round().astype(np.uint8)
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)[:, :, ::-1]
    share = COVER * (0.35 + 0.65 * smooth)[:, :, None]
    mixed = (1 - share) * grey + share * colours
    return mixed.round().astype(np.uint8)


def explained_mistakes(
    model: keras.Model,
    name: ModelName,
    uris: list[str],
    labels: NDArray[Any],
    pixels: Pixels,
    logits: NDArray[Any],
) -> pd.DataFrame:
    """The :data:`MOST` most confident mistakes among these photos.

    Returns:
        uri, certainty (distance of the logit from 0), thumbnail and heatmap (JPEG bytes).
    """
    wrong = np.flatnonzero((logits > 0) != (labels > 0))
    wrong = wrong[np.argsort(-np.abs(logits[wrong]), kind="stable")][:MOST]
    rows = []
    if len(wrong):
        shown = pixels[wrong]
        for index, photo, places in zip(wrong, shown, heat(model, name, shown), strict=True):
            rows.append(
                {
                    "uri": uris[index],
                    "certainty": float(abs(logits[index])),
                    "thumbnail": _jpeg(_resized(photo)),
                    "heatmap": _jpeg(overlay(photo, places)),
                }
            )
    return pd.DataFrame(rows, columns=["uri", "certainty", "thumbnail", "heatmap"])


def most_confident(parts: list[pd.DataFrame]) -> pd.DataFrame:
    """Of the mistakes found in pieces of the test photos those to keep, the surest first."""
    filled = [part for part in parts if len(part)] or parts[:1]
    table = pd.concat(filled, ignore_index=True)
    return table.sort_values("certainty", ascending=False, kind="stable").head(MOST)


def _resized(pixels: Pixels) -> Pixels:
    return typed(cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _jpeg(pixels: Pixels) -> bytes:
    done, encoded = cv2.imencode(".jpg", pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])
    assert done
    return encoded.tobytes()
