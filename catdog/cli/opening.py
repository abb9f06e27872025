"""The first line of a command, printed before anything that takes time is imported."""

from __future__ import annotations

from catdog import __version__
from catdog.config import Config


def opening_line(config: Config) -> str:
    """``catdog 0.1.0: base_cnn, inception_v3 on PHOTOS (preset laptop); loading libraries``"""
    photos = "the built-in drawings" if config.data.source is None else config.data.source
    models = ", ".join(config.models)
    return f"catdog {__version__}: {models} on {photos} (preset {config.preset}); loading libraries"
