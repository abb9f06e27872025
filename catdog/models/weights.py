"""Pretrained weights: fetched and checked once for the whole cluster, then read from storage.

Whatever the origin (an installed package, Keras' ImageNet download, a file, a URI), the arrays end
as one ``.npz`` under ``<storage>/weights``, named by their own hash; workers read that. The driver
never imports TensorFlow: what Keras must load is loaded in a Ray task.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import threading
import urllib.request
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import numpy as np

from catdog.config import WeightsSettings, digest
from catdog.config.architectures import MODELS, InputScale, ModelName
from catdog.errors import UserError
from catdog.models import efficientnet
from catdog.storage import Location

#: The origin of weights that were drawn, for want of trained ones.
RANDOM = "random"


@dataclass(frozen=True)
class Weights:
    """Pretrained weights at rest.

    Attributes:
        uri: the ``.npz`` in storage.
        origin: ``imagenet`` or the URI that was given, for people; :data:`RANDOM`.
        hash: SHA-256 of the arrays' bytes, 12 hex digits.
    """

    uri: str
    origin: str
    hash: str
    scale: InputScale

    @property
    def is_random(self) -> bool:
        return self.origin == RANDOM


def fetch(name: ModelName, settings: WeightsSettings, storage: Location) -> Weights | None:
    """The weights of ``settings`` for the backbone ``name``; ``None`` where it asks for none.

    Raises:
        UserError: no such file, a file that does not fit the backbone, no network, or no package.
    """
    if not settings.pretrained:
        return None
    folder = storage / "weights"
    note = _note(name, settings, storage)
    if note.exists():
        known = note.read_json()
        return Weights((folder / known["file"]).uri, known["origin"], known["hash"], settings.scale)
    if is_installed(name, settings):
        content, hashed = pack(efficientnet.imagenet_arrays())
    else:
        import ray

        if settings.source == "imagenet" and (reason := obstacle(name)):
            raise UserError(cannot_download(name, reason))
        outcome = ray.get(ray.remote(num_cpus=1)(_load).remote(name, settings.source))
        if isinstance(outcome, str):
            raise UserError(outcome)
        content, hashed = outcome
    target = folder / f"{name}-{hashed}.npz"
    if not target.exists():
        target.write_bytes(content)
    origin = "imagenet" if settings.source == "imagenet" else str(Location.of(settings.source))
    # A name and no URI, which may carry a key that is another one tomorrow.
    note.write_json({"file": target.name, "origin": origin, "hash": hashed})
    return Weights(target.uri, origin, hashed, settings.scale)


def is_installed(name: ModelName, settings: WeightsSettings) -> bool:
    """Whether these weights come with an installed package, so that no network is needed."""
    return settings.source == "imagenet" and MODELS[name].imagenet == "package"


def missing(name: ModelName, settings: WeightsSettings, storage: Location) -> str | None:
    """Why ImageNet weights for ``name`` cannot be had here; ``None`` where they can, or are not
    asked for. Ray must be initialised.
    """
    if settings.source != "imagenet" or is_installed(name, settings):
        return None
    if _note(name, settings, storage).exists():
        return None
    return obstacle(name)


def cannot_download(name: ModelName, reason: str = "") -> str:
    """The line about ImageNet weights where there is no network."""
    why = f" ({reason})" if reason else ""
    return (
        f"ImageNet weights for {name} cannot be downloaded here{why}; give --weights none, "
        f"or a file: --weights-for {name}=PATH,scale={MODELS[name].scale}"
    )


def _note(name: ModelName, settings: WeightsSettings, storage: Location) -> Location:
    """Says where in storage the weights are, once they are."""
    key = digest([settings.source, _stamp(name, settings)])
    return storage / "weights" / f"{name}-{key}.json"


def check_source(name: ModelName, settings: WeightsSettings) -> None:
    """Whether the file is there at all: the part of the check that costs next to nothing.

    Raises:
        UserError: it is not.
    """
    if is_installed(name, settings):
        efficientnet.check_package()
    if settings.source in ("none", "imagenet"):
        return
    if not Location.of(settings.source).exists():
        raise UserError(f"--weights-for {name}: there is no file {Location.of(settings.source)}")


def _stamp(name: ModelName, settings: WeightsSettings) -> str:
    """Changes when the file does, without reading it."""
    if is_installed(name, settings):
        return efficientnet.SHA256
    if settings.source == "imagenet":
        return ""
    location = Location.of(settings.source)
    info = location.info()
    return f"{info.size} {info.mtime_ns}"


def _load(name: ModelName, source: str) -> tuple[bytes, str] | str:
    """Runs in a Ray task: (npz, hash), or the line that explains why not."""
    from catdog.models.registry import bare_backbone

    with tempfile.TemporaryDirectory() as folder:
        path = source
        if source != "imagenet":
            location = Location.of(source)
            # Keras tells the format by the ending, so the name is kept.
            path = str(Path(folder) / location.name)
            try:
                Path(path).write_bytes(location.read_bytes())
            except OSError as error:
                return f"weights for {name}: cannot read {location} ({type(error).__name__})"
        try:
            arrays = bare_backbone(name, path).get_weights()
        except Exception as error:  # Keras raises whatever its readers raise
            return _explain(name, source, error)
    return pack(arrays)


def pack(arrays: list[np.ndarray[Any, Any]]) -> tuple[bytes, str]:
    """(``.npz`` with arrays in order, hash of their bytes)."""
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).tobytes())
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return buffer.getvalue(), hashed.hexdigest()[:12]


def unpack(content: bytes) -> list[np.ndarray[Any, Any]]:
    with np.load(io.BytesIO(content)) as archive:
        return [archive[f"arr_{index}"] for index in range(len(archive.files))]


def load_backbone(model: Any, uri: str) -> None:
    """Give ``model``, as the registry builds it, the backbone's weights at ``uri``."""
    from catdog.models import registry

    arrays = unpack(Location.of(uri).read_bytes())
    for variable, array in zip(registry.backbone_variables(model), arrays, strict=True):
        variable.assign(array)


def _explain(name: ModelName, source: str, error: Exception) -> str:
    if source == "imagenet":
        return cannot_download(name)
    cause = " ".join(str(error).split())[:160]
    return f"{Location.of(source)} does not fit {name}: {cause}"


#: Where Keras' applications have their weights.
ADDRESS = "https://storage.googleapis.com/tensorflow/keras-applications/"
#: Seconds that an answer may take.
ANSWER_S = 3.0


def obstacle(name: str) -> str | None:
    """Why the weights of ``name`` cannot be had, in a few words; ``None`` where they can.

    Asked where Ray's tasks run, which download them, and once in the life of this process. Ray must
    be initialised.
    """
    kept, reason = _seen()
    return None if any(file.startswith(f"{name}_weights_") for file in kept) else reason


@cache
def _seen() -> tuple[frozenset[str], str | None]:
    import ray

    def look() -> tuple[frozenset[str], str | None]:
        return downloaded(), unreachable(ADDRESS)

    seen: tuple[frozenset[str], str | None] = ray.get(ray.remote(num_cpus=1)(look).remote())
    return seen


def downloaded() -> frozenset[str]:
    """Files of weights without a top that Keras has from earlier."""
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    return frozenset(file.name for file in (home / "models").glob("*_notop.h5"))


def unreachable(address: str, limit_s: float = ANSWER_S) -> str | None:
    """Why nothing answers at ``address``, with the proxies of the environment; ``None`` if it does.

    A thread asks, for the look-up of a name may take longer than any time limit.
    """
    found: list[str | None] = []

    def ask() -> None:
        # The schemes are ours.
        request = urllib.request.Request(address, method="HEAD")  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=limit_s):  # noqa: S310
                found.append(None)
        except HTTPError:  # an answer
            found.append(None)
        except (OSError, HTTPException, ValueError) as error:
            cause = getattr(error, "reason", error)
            found.append(" ".join(str(getattr(cause, "strerror", None) or cause).split())[:100])

    thread = threading.Thread(target=ask, name="reach", daemon=True)
    thread.start()
    thread.join(limit_s)
    return found[0] if found else f"no answer in {limit_s:.0f} s"
