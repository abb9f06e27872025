"""Whether this machine has what a run needs, found without starting or importing anything large."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from catdog.cluster import machine
from catdog.console import size
from catdog.errors import UserError
from catdog.storage import Location
from catdog.storage.access import check_readable, check_writable

DISTRIBUTION = "catdog-ray"
INSTALL = "pip install --constraint constraints.txt --editable ."
#: A run of some thousand photos at 224 pixels, with features and checkpoints, takes about as much.
COMFORTABLE_DISK, LEAST_DISK = 10 << 30, 1 << 30
#: Ray writes no more objects to a disk that is fuller than this.
RAY_FULL = 0.95
#: Below it Ray keeps its objects in files, which are slower.
COMFORTABLE_SHM = 1 << 30
#: TensorFlow, Ray and two workers of the base CNN together.
COMFORTABLE_MEMORY = 6 << 30
#: Of the path of a Unix socket, and what Ray adds to its folder.
SOCKET_PATH = 107
SOCKET_NAME = len("/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """One line: ``problem`` is what training needs and does not have; ``text`` says what to do."""

    status: Status
    subject: str
    text: str


def diagnose(storage: str) -> Iterator[Finding]:
    """Findings about this machine and ``storage``, as soon as each is known."""
    needed = needs()
    yield python(needed.python)
    yield from packages(needed.packages)
    yield cores()
    yield instructions()
    yield memory()
    yield gpu()
    yield temporary()
    yield shared_memory()
    yield from store(storage)


@dataclass(frozen=True)
class Needs:
    """What ``pyproject.toml`` asks for."""

    python: str
    packages: tuple[Requirement, ...]


def needs() -> Needs:
    """Of the checkout that this is, else of the installed distribution."""
    file = Path(__file__).resolve().parents[2] / "pyproject.toml"
    if file.exists():
        project = tomllib.loads(file.read_text())["project"]
        return Needs(project["requires-python"], tuple(map(Requirement, project["dependencies"])))
    try:
        known = metadata(DISTRIBUTION)
    except PackageNotFoundError:
        return Needs("", ())
    lines = [Requirement(line) for line in known.get_all("Requires-Dist") or ()]
    plain = tuple(r for r in lines if r.marker is None or r.marker.evaluate({"extra": ""}))
    return Needs(str(known["Requires-Python"] or ""), plain)


def python(asked: str) -> Finding:
    version = platform.python_version()
    if SpecifierSet(asked).contains(version, prereleases=True):
        return Finding("ok", "Python", version)
    return Finding("problem", "Python", f"{version}; {asked} is needed: make PYTHON=/path/to/it")


def packages(needed: tuple[Requirement, ...]) -> Iterator[Finding]:
    wrong = [line for line in map(_wrong, needed) if line]
    for line in wrong:
        yield Finding("problem", "packages", f"{line}; {INSTALL}")
    if not needed:
        yield Finding("note", "packages", "what is needed is not known: catdog is not installed")
    elif not wrong:
        yield Finding("ok", "packages", f"all {len(needed)} that are needed, in versions that fit")


def _wrong(requirement: Requirement) -> str:
    found = machine.installed(requirement.name)
    if found is None:
        return f"{requirement.name} is missing"
    if requirement.specifier.contains(found, prereleases=True):
        return ""
    return f"{requirement.name} {found} is installed and {requirement.specifier} is needed"


def cores() -> Finding:
    count = machine.cores()
    if count > 1:
        return Finding("ok", "cores", f"{count} of {machine.cpu_name()}")
    return Finding("note", "cores", f"1 of {machine.cpu_name()}: give --workers 1")


def instructions() -> Finding:
    """What the guarantee of equal bits on any number of workers stands on here."""
    found = machine.instruction_sets()
    named = " ".join(found) or f"none known of {platform.machine()}"
    if "sse4_1" in found and "avx" not in found:
        text = f"{named}; TensorFlow's packages need AVX: take another machine"
        return Finding("problem", "instructions", text)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        text = "equal bits on any number of workers need oneDNN: unset TF_ENABLE_ONEDNN_OPTS"
        return Finding("note", "instructions", f"{named}; {text}")
    if "avx2" not in found:
        text = "equal bits on any number of workers were seen on AVX2 and SSE4.1 (oneDNN); here "
        text += "each training proves them first and says where they do not hold"
        return Finding("note", "instructions", f"{named}; {text}")
    text = "equal bits on any number of workers stand on oneDNN, which is on (AVX2 is there)"
    if machine.BFLOAT16 & set(found):
        text += "; in bfloat16, the default here, up to eight workers"
    return Finding("ok", "instructions", f"{named}; {text}")


def memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return Finding("note", "memory", "the system does not say how much there is")
    if total >= COMFORTABLE_MEMORY:
        return Finding("ok", "memory", size(total))
    return Finding("note", "memory", f"{size(total)} is little: give --workers 1")


def gpu() -> Finding:
    found = machine.gpus()
    if not found:
        text = "none that nvidia-smi knows; models are trained on CPU cores"
        return Finding("ok", "GPU", text)
    shown = "; ".join(found)
    names = (distribution.name or "" for distribution in distributions())
    if any(name.startswith("nvidia-cudnn") for name in names):
        return Finding("ok", "GPU", shown)
    return Finding("note", "GPU", f"{shown}; TensorFlow lacks CUDA's libraries: make gpu")


def temporary() -> Finding:
    """Ray keeps its sockets, logs and spilled objects there."""
    folder = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    try:
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        text = f"{folder}: {error.strerror}; set TMPDIR and RAY_TMPDIR to a folder that is writable"
        return Finding("problem", "temporary", text)
    ray = os.environ.get("RAY_TMPDIR") or "/tmp"
    if len(ray) + SOCKET_NAME > SOCKET_PATH:
        text = f"{ray} is too long a path for Ray's sockets; set RAY_TMPDIR to a shorter one"
        return Finding("problem", "temporary", text)
    usage = shutil.disk_usage(folder)
    free = f"{folder}, {size(usage.free)} free"
    if usage.free < (1 - RAY_FULL) * usage.total:
        return Finding("note", "temporary", f"{free}: fuller than Ray likes (95 %), make room")
    return Finding("ok", "temporary", free)


def shared_memory() -> Finding:
    """Where Ray keeps objects; a container's 64 MB make it use files."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Finding("ok", "shared memory", "no /dev/shm on this system; Ray uses files")
    total = shutil.disk_usage(folder).total
    if total >= COMFORTABLE_SHM:
        return Finding("ok", "shared memory", f"/dev/shm, {size(total)}")
    text = f"/dev/shm has {size(total)}; Ray uses files instead: docker run --shm-size=2g"
    return Finding("note", "shared memory", text)


def store(storage: str) -> Iterator[Finding]:
    place = Location.of(storage)
    if not place.is_local:
        try:
            check_readable(storage, "--storage")
            check_writable(storage, "--storage")
        except UserError as error:
            yield Finding("problem", "storage", str(error).removeprefix("--storage: "))
        else:
            yield Finding("ok", "storage", f"{place} can be read and written")
        return
    folder = place.local_path
    above = next(path for path in (folder, *folder.parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        text = f"{above} is not writable; give another --storage"
        yield Finding("problem", "storage", text)
        return
    free = place.free_bytes() or 0
    room = f"{folder}, {size(free)} free"
    if free < LEAST_DISK:
        yield Finding("problem", "storage", f"{room}, of which {size(LEAST_DISK)} are needed")
    elif free < COMFORTABLE_DISK:
        text = f"{room}; enough for some thousand photos, catdog runs prune may make room"
        yield Finding("note", "storage", text)
    else:
        yield Finding("ok", "storage", room)
