"""Pictures made on the spot, and a store that speaks S3."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.fs as pafs
import pytest
from numpy.typing import NDArray
from PIL import Image

from catdog.storage import Location


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


@dataclass
class Store:
    """A bucket on moto. The key and secret are part of the URI, so Ray's workers have them too."""

    filesystem: pafs.S3FileSystem
    query: str
    bucket: str

    def location(self, path: str) -> Location:
        return Location.of(f"s3://key:secret-word@{self.bucket}/{path}?{self.query}")

    def put(self, path: str, content: bytes) -> None:
        with self.filesystem.open_output_stream(f"{self.bucket}/{path}") as stream:
            stream.write(content)


@pytest.fixture(scope="session")
def s3() -> Iterator[Store]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    filesystem = pafs.S3FileSystem(
        access_key="key",
        secret_key="secret-word",
        endpoint_override=f"{host}:{port}",
        scheme="http",
        region="us-east-1",
        allow_bucket_creation=True,
    )
    filesystem.create_dir("photos-bucket")
    query = f"endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    yield Store(filesystem, query, "photos-bucket")
    server.stop()
