"""Preflight: check that a storage URI can be reached, read and written. Fails within seconds.

During a run a failing store is retried (:func:`catdog.storage.retrying.retried`). Before it nothing
is lost yet, and the cause is most often a mistake of the user: it gets one line.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

import pyarrow.fs as pafs

from catdog.errors import UserError
from catdog.storage import Location, s3

#: Attempts before a run and seconds of silence that each waits for an answer.
ATTEMPTS, SILENCE_S = 2, 5.0

_REFUSED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "HTTP status 40")
_AWAY = (
    "NETWORK_CONNECTION",
    "Could not connect",
    "Couldn't connect",
    "curlCode: 28",
    "UNAVAILABLE",
)


def check_readable(given: str, flag: str) -> None:
    """Check that ``given`` can be reached and read; whether anything exists there is not checked.

    Args:
        given: a path (nothing is checked) or a URI.
        flag: what it was given as, for the line.

    Raises:
        UserError: the store does not answer, refuses, or has no such bucket.
    """
    place = Location.of(given)
    if place.is_local:
        return
    with_answers(place, flag, lambda: _look(place, flag))


def check_writable(given: str, flag: str) -> None:
    """Check that files can be written below ``given``, by writing one and deleting it.

    Raises:
        UserError: as :func:`check_readable`.
    """
    place = Location.of(given)
    if place.is_local:
        return
    with_answers(place, flag, lambda: _touch(place / f".writable-{uuid.uuid4().hex[:12]}"))


def with_answers(place: Location, flag: str, ask: Callable[[], None]) -> None:
    """Run ``ask`` and turn an error of the store into one line.

    Raises:
        UserError: the line.
    """
    if place.is_s3 and not s3.is_there(s3.endpoint_of(place.uri)):
        host, port = s3.endpoint_of(place.uri)
        raise UserError(
            f"{flag}: nobody answers at {host}:{port}, the endpoint of {place}; check the network, "
            "or correct the endpoint"
        )
    try:
        ask()
    except OSError as error:
        raise UserError(f"{flag}: {explained(place, str(error))}") from error


def _look(place: Location, flag: str) -> None:
    filesystem = _brief(place)
    bucket = place.path.partition("/")[0]
    if filesystem.get_file_info(place.path).type != pafs.FileType.NotFound:
        return
    with contextlib.suppress(PermissionError):
        found = _bucket_info(filesystem, bucket)
        if found == pafs.FileType.NotFound:
            raise UserError(f"{flag}: {_no_bucket(place)}")


def _bucket_info(filesystem: pafs.FileSystem, bucket: str) -> pafs.FileType:
    try:
        return filesystem.get_file_info(bucket).type
    except OSError as error:
        # Who may read some keys only may not ask for the bucket.
        if "ACCESS_DENIED" in str(error):
            raise PermissionError from error
        raise


def _touch(file: Location) -> None:
    filesystem = _brief(file)
    with filesystem.open_output_stream(file.path) as stream:
        stream.write(b"")
    with contextlib.suppress(OSError):  # one may be allowed to write and not to delete
        filesystem.delete_file(file.path)


def _brief(place: Location) -> pafs.FileSystem:
    filesystem = place.filesystem
    if isinstance(filesystem, s3.S3FileSystem):
        return filesystem.with_attempts(ATTEMPTS, SILENCE_S)
    if place.is_gs and "retry_limit_seconds" not in place.uri:
        # Google's client would go on for a quarter of an hour.
        mark = "&" if "?" in place.uri else "?"
        limited = f"{place.uri}{mark}retry_limit_seconds={SILENCE_S:.0f}"
        return Location(limited).filesystem
    return filesystem


def explained(place: Location, error: str) -> str:
    """Explain a store's ``error`` to the user who named ``place``, in one line."""
    if "NO_SUCH_BUCKET" in error or "Bucket '" in error or "bucket does not exist" in error:
        return _no_bucket(place)
    if any(word in error for word in _AWAY):
        return (
            f"the store of {place} does not answer; check the network, the region and the endpoint"
        )
    if place.is_s3 and not s3.has_credentials(place.uri):
        return (
            f"there are no credentials that open {place}; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the machine an instance profile"
        )
    if any(word in error for word in _REFUSED):
        return (
            f"the store refuses {place} to these credentials; check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or what the instance profile allows"
        )
    return f"{place} cannot be used: {(error.splitlines() or [''])[0][:200]}"


def _no_bucket(place: Location) -> str:
    parts = urlsplit(str(place))
    return f"there is no bucket {parts.netloc} for {place}; create it, or correct its name"
