"""Files of torch are read without torch, and no command that a file names is run."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catdog.models.torch_file import MAGIC, PROTOCOL, read_tensors

HEAD = b"".join(pickle.dumps(part, 2) for part in (MAGIC, PROTOCOL, {"little_endian": True}))
EMPTY_DICT = b"ccollections\nOrderedDict\n)R"
VALUES = np.arange(6, dtype=np.float32)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def group(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def storage(key: str = "7", count: int = 6, kind: str = "FloatStorage") -> bytes:
    named = b"ctorch\n" + kind.encode() + b"\n"
    return group(text("storage"), named, text(key), text("cpu"), number(count), b"N") + b"Q"


def tensor(of: bytes, offset: int, shape: list[int], strides: list[int]) -> bytes:
    sizes = (group(*map(number, shape)), group(*map(number, strides)))
    arguments = group(of, number(offset), *sizes, b"\x89", EMPTY_DICT)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def state(**tensors: bytes) -> bytes:
    items = b"".join(text(name) + value for name, value in tensors.items())
    # With the attribute _metadata, as torch writes it.
    return b"\x80\x02" + EMPTY_DICT + b"(" + items + b"u}" + text("_metadata") + EMPTY_DICT + b"sb."


def file(pickled: bytes, keys: Any = ("7",), tail: bytes | None = None) -> bytes:
    tail = struct.pack("<q", 6) + VALUES.tobytes() if tail is None else tail
    return HEAD + pickled + pickle.dumps(list(keys), 2) + tail


WHOLE = file(state(a=tensor(storage(), 0, [2, 3], [3, 1])))


def test_tensors_lie_in_their_storage_as_their_strides_say() -> None:
    content = file(
        state(
            plain=tensor(storage(), 0, [2, 3], [3, 1]),
            turned=tensor(storage(), 0, [3, 2], [1, 3]),
            part=tensor(storage(), 4, [2], [1]),
            scalar=tensor(storage(), 5, [], []),
        )
    )
    found = read_tensors(content)
    np.testing.assert_array_equal(found["plain"], VALUES.reshape(2, 3))
    np.testing.assert_array_equal(found["turned"], VALUES.reshape(2, 3).T)
    np.testing.assert_array_equal(found["part"], [4, 5])
    assert found["scalar"].shape == ()
    assert found["scalar"] == 5
    assert not found["plain"].flags.writeable


def test_whole_numbers_have_a_storage_of_their_own() -> None:
    pickled = state(
        a=tensor(storage(), 0, [6], [1]), n=tensor(storage("8", 1, "LongStorage"), 0, [], [])
    )
    tail = struct.pack("<qq", 1, 12) + struct.pack("<q", 6) + VALUES.tobytes()
    found = read_tensors(file(pickled, ("8", "7"), tail))
    assert found["n"] == 12
    np.testing.assert_array_equal(found["a"], VALUES)


class Command:
    """Pickled, it runs a command when it is read by pickle."""

    def __init__(self, line: str) -> None:
        self.line = line

    def __reduce__(self) -> Any:
        return os.system, (self.line,)


@pytest.mark.parametrize("protocol", range(5))
def test_no_command_is_run(tmp_path: Path, protocol: int) -> None:
    trace = tmp_path / "trace"
    pickled = pickle.dumps({"a": Command(f"touch {trace}")}, protocol)
    for content in (file(pickled), pickled):
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            read_tensors(content)
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.exists(), "this test would not have seen it"


def test_what_is_not_such_a_file_is_an_error() -> None:
    newer = io.BytesIO()
    with zipfile.ZipFile(newer, "w") as archive:
        archive.writestr("archive/data.pkl", WHOLE)
    for content in (newer.getvalue(), WHOLE.replace(HEAD, HEAD.replace(b"\xe9\x03", b"\xe8\x03"))):
        with pytest.raises((ValueError, pickle.UnpicklingError)):
            read_tensors(content)
