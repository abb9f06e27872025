"""Read photos from archives: ``.zip``, zips within zips, ``.tar``, ``.tar.gz``.

Archives are not trusted. Nothing is unpacked under a name from the archive: members are copied one
after the other into a few pack files, which are read by offset and removed when the photos are
prepared. The unpacked size is counted while reading, whatever the headers claim, and limited; so is
the depth of archives within archives. Memory stays at a few buffers.
"""

from __future__ import annotations

import contextlib
import posixpath
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from tarfile import ReadError
from typing import IO, BinaryIO, Self, cast

from catdog.cluster import private
from catdog.errors import StorageAway, UserError
from catdog.storage import Location
from catdog.storage.streams import Written, opened

MAX_DEPTH = 3
MAX_MEMBERS = 20_000_000
#: Photos do not compress: an archive that unpacks to more than this many times its size is a bomb.
MAX_RATIO = 100
#: What even a small archive may unpack to.
FREE_BYTES = 512 << 20
#: Long names and the like, before a file of a tar; more is an attack on memory.
MAX_TAR_HEADER = 1 << 20
#: A zip's list of its files, read as a whole: some millions of photos.
MAX_ZIP_DIRECTORY = 512 << 20
_PIECE = 1 << 20
_IN_MEMORY = 16 << 20
_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
_TAR_HEADERS = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_BROKEN = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError)


def is_archive(name: str) -> bool:
    return name.lower().endswith(_ENDINGS)


@dataclass
class Budget:
    """How much may still be unpacked before an archive is refused as a zip bomb."""

    name: str
    limit: int
    used: int = 0
    members: int = 0

    def take(self, count: int) -> None:
        self.used += count
        if self.used > self.limit:
            raise UserError(
                f"{self.name} unpacks to more than {self.limit >> 20} MiB, {MAX_RATIO} times its "
                "size: this is no archive of photos; unpack it yourself if you trust it"
            )

    def count(self) -> None:
        self.members += 1
        if self.members > MAX_MEMBERS:
            raise UserError(f"{self.name} holds more than {MAX_MEMBERS:,} files")


@dataclass
class Member:
    """A file in an archive: its cleaned path, its declared size, and its content in pieces.

    ``pieces`` works only until the next member is asked for. ``problem`` says why a member cannot
    be read at all.
    """

    path: str
    size: int
    problem: str | None = None
    pieces: Callable[[], Iterator[bytes]] = field(default=lambda: iter(()))


def members(stream: BinaryIO, name: str, size: int) -> Iterator[Member]:
    """All regular files of an archive and of the archives within it.

    Args:
        stream: seekable.
        name: of the archive, for its kind and for messages.
        size: of the archive in bytes.

    Raises:
        UserError: it is damaged, nested too deep, or unpacks to more than its size allows.
    """
    budget = Budget(name, max(FREE_BYTES, MAX_RATIO * size))
    yield from _walk(stream, name, "", 1, budget)


def _walk(
    stream: IO[bytes], name: str, prefix: str, depth: int, budget: Budget
) -> Iterator[Member]:
    if depth > MAX_DEPTH:
        raise UserError(f"{budget.name} holds archives more than {MAX_DEPTH} levels deep: {prefix}")
    walk = _zip_members if name.lower().endswith(".zip") else _tar_members
    with _told(prefix or budget.name):
        for member in walk(stream):
            budget.count()
            member = _metered(member, budget)
            inside = posixpath.join(prefix, member.path)
            if is_archive(member.path) and member.problem is None:
                with _spooled(member) as inner:
                    yield from _walk(inner, member.path, inside, depth + 1, budget)
            else:
                member.path = inside
                yield member


@contextlib.contextmanager
def _told(name: str) -> Iterator[None]:
    """Turn an error of the archive modules into one line for the user."""
    try:
        yield
    except _BROKEN as error:
        raise UserError(f"{name} is damaged or no archive: {error}"[:300]) from error
    except StorageAway:
        raise
    except OSError as error:
        if error.errno is not None:  # of the disk or the network
            raise
        raise UserError(f"{name} is damaged: {error}"[:300]) from error


def _metered(member: Member, budget: Budget) -> Member:
    plain = member.pieces

    def pieces() -> Iterator[bytes]:
        for piece in plain():
            budget.take(len(piece))
            yield piece

    return Member(member.path, member.size, member.problem, pieces)


@contextlib.contextmanager
def _spooled(member: Member) -> Iterator[IO[bytes]]:
    """An archive within an archive, seekable: in memory while small, then in a temporary file."""
    with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as file:
        for piece in member.pieces():
            file.write(piece)
        file.seek(0)
        yield cast(IO[bytes], file)


def _zip_members(stream: IO[bytes]) -> Iterator[Member]:
    if (size := private.zip_directory_bytes(stream)) > MAX_ZIP_DIRECTORY:
        raise zipfile.BadZipFile(f"its directory takes {size >> 20} MiB")
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            if info.is_dir():
                continue
            problem = "encrypted in the archive" if info.flag_bits & 1 else None

            def pieces(info: zipfile.ZipInfo = info) -> Iterator[bytes]:
                with archive.open(info) as file:
                    yield from _in_pieces(file)

            yield Member(_clean(info.filename), info.file_size, problem, pieces)


def _tar_members(stream: IO[bytes]) -> Iterator[Member]:
    with tarfile.open(fileobj=stream, mode="r|*", errorlevel=2, tarinfo=_TarInfo) as archive:
        for info in archive:
            if info.isdir():
                continue
            problem = None if info.isreg() else "a link or device in the archive"

            def pieces(info: tarfile.TarInfo = info) -> Iterator[bytes]:
                file = archive.extractfile(info)
                if file is None:
                    return
                try:
                    yield from _in_pieces(file)
                except (EOFError, zlib.error, OSError) as error:
                    # What follows in a stream cannot be read either.
                    raise tarfile.ReadError(str(error)) from error

            yield Member(_clean(info.name), info.size if info.isreg() else -1, problem, pieces)
            archive.members = []  # type: ignore[attr-defined]  # it keeps every header it has seen
        if not getattr(archive, "ended", False):
            raise tarfile.ReadError("ends before its end marker")


class _TarInfo(tarfile.TarInfo):
    """``TarInfo`` that limits the size of headers and notes the end marker.

    :mod:`tarfile` reads a header of any size as a whole, and takes an archive that was cut between
    two files for whole.
    """

    def _proc_member(self, tarfile: tarfile.TarFile) -> Self:
        if self.type in _TAR_HEADERS and self.size > MAX_TAR_HEADER:
            raise ReadError(f"a header of {self.size >> 20} MiB")
        return cast(Self, super()._proc_member(tarfile))  # type: ignore[misc]

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except private.TAR_END.get():
            tarfile.ended = True  # type: ignore[attr-defined]
            raise


def _in_pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _clean(path: str) -> str:
    """A member's name without roots, drives and ``..``; only ever shown and matched for labels."""
    text = path.replace("\\", "/").encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    parts = [part for part in text.split("/") if part not in ("", ".", "..")]
    return "/".join(parts) or "unnamed"


@dataclass(frozen=True)
class Packed:
    """Where a member's bytes lie: number of the pack, offset, length; or why they do not."""

    path: str
    pack: int
    offset: int
    size: int
    problem: str | None


def pack(
    place: Location,
    size: int,
    folder: Location,
    *,
    keep: Callable[[str], bool],
    max_file_bytes: int,
    head_bytes: int,
    pack_bytes: int = 256 << 20,
    room: int | None = None,
) -> tuple[list[Packed], list[Location]]:
    """Copy the members of an archive one after the other into pack files in ``folder``.

    Of a member above ``max_file_bytes`` only the first ``head_bytes`` are kept. ``room`` bounds
    what may be written.

    Raises:
        UserError: as :func:`members`, or the packs would not fit.
    """
    found: list[Packed] = []
    packs: list[Location] = []
    written = 0
    with opened(place) as stream, contextlib.ExitStack() as stack, _told(place.name):
        out: Written | None = None
        for member in members(stream, place.name, size):
            if not keep(member.path):
                continue
            if out is None or out.length >= pack_bytes:
                if out is not None:
                    out.close()
                packs.append(folder / f"pack-{len(packs):05d}.bin")
                out = stack.enter_context(contextlib.closing(Written(packs[-1])))
            start, problem = out.length, member.problem
            limit = head_bytes if member.size > max_file_bytes else max_file_bytes
            if problem is None:
                problem = _copy(member, out, limit)
            written += out.length - start
            if room is not None and written > room:
                raise UserError(f"{place.name} unpacked does not fit on the disk of {folder}")
            where = (len(packs) - 1, start, out.length - start)
            found.append(Packed(member.path, *where, problem))
    return found, packs


def _copy(member: Member, out: Written, limit: int) -> str | None:
    """Append a member; ``None``, or why it cannot be read (the rest of the archive can)."""
    left = limit
    try:
        for piece in member.pieces():
            out.write(piece[:left])
            left -= min(left, len(piece))
            if not left:
                break
    except zipfile.BadZipFile as error:
        return f"damaged in the archive: {error}"
    except (zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return f"damaged in the archive: {error}"
    return None
