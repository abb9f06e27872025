"""Files of torch are read without torch, and nothing that a file says is carried out."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from catdog.errors import UserError
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


WHOLE = file(state(a=tensor(storage(), 0, [2, 3], [3, 1]), b=tensor(storage(), 1, [2, 2], [1, 3])))


def test_tensors_lie_in_their_storage_as_their_strides_say() -> None:
    content = file(
        state(
            plain=tensor(storage(), 0, [2, 3], [3, 1]),
            turned=tensor(storage(), 0, [3, 2], [1, 3]),
            part=tensor(storage(), 4, [2], [1]),
            scalar=tensor(storage(), 5, [], []),
        )
    )
    found = read_tensors(content, "file")
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
    found = read_tensors(file(pickled, ("8", "7"), tail), "file")
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
    for content in (file(pickled), pickled, HEAD[:15] + pickled):
        with pytest.raises(UserError, match=r"^photo\.pth: no tensors can be read from it"):
            read_tensors(content, "photo.pth")
    assert not trace.exists()
    pickle.loads(pickled)
    assert trace.exists(), "this test would not have seen it"


HOSTILE = {
    "a command as the class of a storage": state(a=tensor(storage(kind="Tensor"), 0, [6], [1])),
    "a function that is called": b"\x80\x02cbuiltins\neval\n" + group(text("1")) + b"R.",
    "an old way to call": b"(" + text("1") + b"ibuiltins\neval\n.",
    "a class that is made": b"\x80\x02cbuiltins\nbytearray\n" + group(number(9)) + b"\x81.",
    "a name from the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "an extension": b"\x80\x02\x82\x01.",
    "a dict with contents": b"\x80\x02ccollections\nOrderedDict\n" + group(b"](]]e") + b"R.",
    "a terabyte": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a text of four gigabytes": b"\x80\x02X\xff\xff\xff\xff.",
    "a frame that is longer than the file": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a memo of four billion places": b"\x80\x02}r\xff\xff\xff\xff.",
    "a memo that was never written": b"\x80\x02h\x05.",
    "a key of tuples in tuples": b"\x80\x02}" + b")" + b"\x85" * 10**5 + b"Ns.",
    "a list for a dict": b"\x80\x02].",
    "a text for a tensor": state(a=text("b")),
    "more than it has": state(a=tensor(storage(), 1, [6], [1])),
    "strides beyond": state(a=tensor(storage(), 0, [2, 3], [4, 1])),
    "a value over and over": state(a=tensor(storage(), 0, [2**30, 2**30], [0, 0])),
    "negative strides": state(a=tensor(storage(), 5, [6], [-1])),
    "a negative size": state(a=tensor(storage(), 0, [-1], [1])),
    "a negative offset": state(a=tensor(storage(), -1, [2], [1])),
    "fewer strides than sizes": state(a=tensor(storage(), 0, [2, 3], [1])),
    "more axes than numpy has": state(a=tensor(storage(), 0, [1] * 99, [1] * 99)),
    "a huge storage": state(a=tensor(storage(count=2**31 - 1), 0, [6], [1])),
    "a negative storage": state(a=tensor(storage(count=-6), 0, [0], [1])),
    "two sizes of one storage": state(
        a=tensor(storage(), 0, [6], [1]), b=tensor(storage(count=5), 0, [5], [1])
    ),
    "another storage": state(a=tensor(storage("8"), 0, [6], [1])),
    "nothing on the stack": b"\x80\x02.",
    "a mark that was never set": b"\x80\x02t.",
}  # fmt: skip


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_state_dict_is_one_line(pickled: bytes) -> None:
    with pytest.raises(UserError) as caught:
        read_tensors(file(pickled), "file")
    line = str(caught.value)
    assert line.startswith("file: no tensors can be read from it (")
    assert "\n" not in line
    assert len(line) < 200


def test_what_is_not_such_a_file_is_one_line(tmp_path: Path) -> None:
    newer = io.BytesIO()
    with zipfile.ZipFile(newer, "w") as archive:
        archive.writestr("archive/data.pkl", WHOLE)
    big_endian = WHOLE.replace(HEAD, HEAD.replace(b"\x88", b"\x89"))
    for content in (b"", newer.getvalue(), pickle.dumps(None), WHOLE + b"\0", big_endian):
        with pytest.raises(UserError, match="no tensors can be read"):
            read_tensors(content, "file")


def test_a_cut_file_is_one_line_wherever_it_is_cut() -> None:
    assert set(read_tensors(WHOLE, "file")) == {"a", "b"}
    for length in range(len(WHOLE)):
        with pytest.raises(UserError, match="no tensors can be read"):
            read_tensors(WHOLE[:length], "file")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_one_line_or_holds_other_numbers(data: st.DataObject) -> None:
    damaged = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_tensors(bytes(damaged), "file")
    except UserError:
        return
    assert all(np.asarray(array).size <= 6 for array in found.values())
