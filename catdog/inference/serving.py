"""Serve a finished model over HTTP with Ray Serve (the extra ``serve``).

POST the bytes of a photo, get ``{"label", "probability", "probability_dog", "model"}``; of a model
that has seen drawings alone, a ``"warning"`` too. A file that is no photo gets 400 with the data
stage's reason, one with too many bytes 413. Requests that arrive together are answered together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from catdog.cluster.numerics import use_onednn
from catdog.data.decoding import Rejected
from catdog.data.images import inspect
from catdog.errors import UserError, install_command
from catdog.inference.batch import answer
from catdog.inference.finished import FinishedModel
from catdog.models.saving import load_keras, logits_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import JSONResponse

MAX_BYTES = 20 << 20
#: Of a body that is too large so much is read and thrown away, for a client that is cut off while
#: it sends may never see the answer.
_DRAINED = 4 * MAX_BYTES
MAX_BATCH = 32
#: How long the first request of a batch waits for others.
BATCH_WAIT_S = 0.01
APP = "catdog"


@dataclass(frozen=True)
class Endpoint:
    """Where to listen, and with what: ``cpus`` cores each for ``replicas`` copies of the model."""

    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 1
    cpus: int = 1
    use_gpu: bool = False
    max_bytes: int = MAX_BYTES

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"


@contextmanager
def serving(model: FinishedModel, endpoint: Endpoint) -> Iterator[str]:
    """Answer requests until the block is left; yields the URL. Ray must be initialised.

    Raises:
        UserError: the extra is missing, or the port is taken.
    """
    serve = _ray_serve()
    check_port(endpoint)
    deployment = serve.deployment(Classifier).options(
        num_replicas=endpoint.replicas,
        ray_actor_options={"num_cpus": endpoint.cpus, "num_gpus": int(endpoint.use_gpu)},
        # Two batches: one in the model, one being decoded.
        max_ongoing_requests=2 * MAX_BATCH,
    )
    serve.start(http_options={"host": endpoint.host, "port": endpoint.port})
    try:
        serve.run(deployment.bind(model, endpoint.max_bytes, endpoint.cpus), name=APP)
        yield endpoint.url
    finally:
        serve.shutdown()


def _ray_serve() -> Any:
    try:
        import starlette  # noqa: F401
        from ray import serve
    except ImportError as error:
        raise UserError(
            f"serving needs the package {error.name}: {install_command('serve')}"
        ) from error
    return serve


def check_port(endpoint: Endpoint) -> None:
    """Raises UserError where something else listens already; Serve would only wait."""
    import socket

    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((endpoint.host, endpoint.port))
        except (OSError, OverflowError) as error:
            raise UserError(f"cannot listen on {endpoint.url}: {error}") from error


class Classifier:
    """A replica: decodes in threads, predicts in batches."""

    def __init__(self, model: FinishedModel, max_bytes: int, threads: int) -> None:
        use_onednn()
        import tensorflow as tf
        from ray import serve

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        cv2.setNumThreads(1)
        self.model, self.max_bytes = model, max_bytes
        loaded = load_keras(model.file)
        self.size = int(loaded.input_shape[1])
        self.forward = logits_of(loaded)
        self.forward(np.zeros((1, self.size, self.size, 3), np.uint8))  # traced
        self.decoders = ThreadPoolExecutor(threads)
        self.logit = serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=BATCH_WAIT_S)(
            self.logits
        )

    async def __call__(self, request: Request) -> JSONResponse:
        from starlette.responses import JSONResponse

        if request.method != "POST":
            help_line = "POST the bytes of a photo as the body"
            return JSONResponse({"reason": "method", "detail": help_line}, 405, {"Allow": "POST"})
        data = await self._body(request)
        if data is None:
            detail = f"more than {self.max_bytes} bytes"
            return JSONResponse({"reason": "too_large", "detail": detail}, 413)
        loop = asyncio.get_running_loop()
        photo = await loop.run_in_executor(self.decoders, inspect, data, self.size)
        if isinstance(photo, Rejected):
            return JSONResponse({"reason": photo.reason, "detail": photo.detail}, 400)
        logit = await self.logit(photo.pixels)
        said = answer(logit, self.model.temperature) | {"model": self.model.name}
        return JSONResponse(said | {"warning": self.model.warning} if self.model.warning else said)

    async def _body(self, request: Request) -> bytes | None:
        """The request's body; ``None`` if it is too large, whatever its header claims."""
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > _DRAINED:
            return None
        parts, length = [], 0
        async for part in request.stream():
            length += len(part)
            if length > max(_DRAINED, self.max_bytes):
                return None
            if length <= self.max_bytes:
                parts.append(part)
        return b"".join(parts) if length <= self.max_bytes else None

    async def logits(self, photos: list[NDArray[np.uint8]]) -> list[float]:
        """One pass for all photos (size, size, 3) that arrived together."""
        pixels = np.stack(photos)
        found = await asyncio.to_thread(lambda: self.forward(pixels).numpy())
        logits: list[float] = found.tolist()
        return logits
