"""Models on disk."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from catdog.storage import Location

if TYPE_CHECKING:
    import keras


def save_keras(model: keras.Model, target: Location) -> int:
    """Write ``model`` in Keras' own format (loads in safe mode); returns its size in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        content = path.read_bytes()
    target.write_bytes(content)
    return len(content)


def load_keras(source: Location) -> keras.Model:
    """The model written by :func:`save_keras`."""
    import keras

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        path.write_bytes(source.read_bytes())
        return keras.models.load_model(path, safe_mode=True)
