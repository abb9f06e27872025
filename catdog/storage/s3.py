"""S3 file systems of pyarrow: timeouts, retries and credentials.

pyarrow opens an ``s3://`` URI with 6 s of quick attempts against a store that refuses connections
and with 90 s against one that hangs. Here both are bounded by attempts, and a failed attempt is
followed by a longer pause than the one before it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.fs as pafs

#: Seconds until a connection stands, and seconds of silence until a request is given up.
CONNECT_S, SILENCE_S = 5.0, 10.0
#: Attempts at one request: 1 s against a store that refuses, 30 s against one that hangs.
ATTEMPTS = 3
#: Where nobody above repeats a failed request: a minute or more against a store that refuses.
PATIENT_ATTEMPTS = 12

#: Where EC2 tells its instances their credentials.
METADATA = ("169.254.169.254", 80)


class S3FileSystem(pafs.S3FileSystem):  # type: ignore[misc]  # pyarrow has no types
    """pyarrow's S3 file system with other timeouts, which are kept when it is pickled.

    pyarrow's own forgets its retry strategy when it is pickled.
    """

    def __init__(self, attempts: int, silence_s: float = SILENCE_S, **options: Any) -> None:
        self._made_from = (attempts, silence_s, options)
        limits = {"connect_timeout": CONNECT_S, "request_timeout": silence_s}
        retry = pafs.AwsStandardS3RetryStrategy(max_attempts=attempts)
        super().__init__(**{**options, **limits, "retry_strategy": retry})

    def __reduce__(self) -> tuple[Any, ...]:
        return _made, self._made_from

    @classmethod
    def of(cls, filesystem: pafs.S3FileSystem, attempts: int) -> S3FileSystem:
        """``filesystem`` with its other options, as pickling knows them."""
        (options,) = pafs.S3FileSystem.__reduce__(filesystem)[1]
        return cls(attempts, **options)

    def with_attempts(self, attempts: int, silence_s: float = SILENCE_S) -> S3FileSystem:
        return S3FileSystem(attempts, silence_s, **self._made_from[2])


def _made(attempts: int, silence_s: float, options: dict[str, Any]) -> S3FileSystem:
    return S3FileSystem(attempts, silence_s, **options)


def opened(uri: str) -> tuple[S3FileSystem, str]:
    """The file system of an ``s3://`` URI and the path within it (``bucket/key``)."""
    ask_metadata_only_where_it_is()
    filesystem, path = pafs.FileSystem.from_uri(uri)
    return S3FileSystem.of(filesystem, ATTEMPTS), path


def with_a_region(uri: str) -> str:
    """``uri`` with a region (any, if it names none), so that opening it needs no network."""
    if "region" in parse_qs(urlsplit(uri).query):
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}region=us-east-1"


def ask_metadata_only_where_it_is() -> None:
    """Turn off EC2's metadata service in this process where there is none, to avoid its timeout.

    Where packets to it are lost, opening a URI took 14 s without credentials (4 s with them) and
    every request another 62 s.
    """
    if {"AWS_EC2_METADATA_DISABLED", "AWS_EC2_METADATA_SERVICE_ENDPOINT"} & os.environ.keys():
        return
    if not _answers(METADATA, 1.0):
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"


def endpoint_of(uri: str) -> tuple[str, int]:
    """Host and port that ``uri`` or the environment names, else Amazon's own."""
    query = parse_qs(urlsplit(uri).query)
    named = query.get("endpoint_override", [""])[0]
    named = named or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if not named:
        region = query.get("region", [""])[0]
        region = region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
        country = ".cn" if region.startswith("cn-") else ""
        return f"s3.{region or 'us-east-1'}.amazonaws.com{country}", 443
    scheme = query.get("scheme", ["https"])[0]
    parts = urlsplit(named if "://" in named else f"{scheme}://{named}")
    return parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)


def is_there(endpoint: tuple[str, int]) -> bool:
    """Whether ``endpoint`` accepts connections; takes 5 s at most."""
    return _answers(endpoint, CONNECT_S)


def _answers(address: tuple[str, int], limit_s: float) -> bool:
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError, UnicodeError):
            socket.create_connection(address, timeout=limit_s).close()
            connected.set()

    # In a thread that is left alone: looking up a name has no limit of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(limit_s)
    return connected.is_set()


def has_credentials(uri: str) -> bool:
    """Whether anything but a machine's own profile gives credentials for ``uri``, good or bad."""
    if urlsplit(uri).username:
        return True
    named = (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    )
    if any(os.environ.get(name) for name in named):
        return True
    files = {
        "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
        "AWS_CONFIG_FILE": "~/.aws/config",
    }
    places = (Path(os.environ.get(name, usual)) for name, usual in files.items())
    return any(place.expanduser().is_file() for place in places)
