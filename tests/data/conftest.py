"""Pictures made on the spot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image


class Pictures:
    """Pixels with something to see in them, and their bytes in any format."""

    @staticmethod
    def pixels(seed: int, height: int = 90, width: int = 120) -> NDArray[np.uint8]:
        rng = np.random.default_rng(seed)
        coarse = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
        smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.clip(smooth + rng.normal(0, 6, smooth.shape), 0, 255).astype(np.uint8)

    @staticmethod
    def encode(pixels: Any, form: str = "JPEG", **options: Any) -> bytes:
        image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        buffer = io.BytesIO()
        image.save(buffer, form, **options)
        return buffer.getvalue()

    def jpeg(self, seed: int, height: int = 90, width: int = 120, **options: Any) -> bytes:
        return self.encode(self.pixels(seed, height, width), "JPEG", **options)

    def folder(self, place: Path, per_class: int, *, seed: int = 0) -> Path:
        """``cat.N.jpg`` and ``dog.N.jpg``, all different."""
        place.mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            for offset, name in enumerate(("cat", "dog")):
                content = self.jpeg(seed + 2 * number + offset, 60, 80)
                (place / f"{name}.{number}.jpg").write_bytes(content)
        return place


@pytest.fixture(scope="session")
def pictures() -> Pictures:
    return Pictures()
