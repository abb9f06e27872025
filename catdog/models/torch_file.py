"""Read tensors from torch's legacy file format (before 1.6), without torch.

Such a file is a chain of pickles: magic number, protocol version, facts of the system, a state
dict whose tensors name their storages, the keys of the storages; then each storage's values
(``torch.serialization._legacy_save``). ``pickle`` itself would run whatever a file tells it to,
and with a list of allowed names it can still be made to take all memory (a memo index of 2**32, a
``BYTEARRAY8``) or to overflow the stack (the hash of a deeply nested tuple). So the opcodes that a
state dict consists of are carried out here: none of them calls anything.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from catdog.errors import UserError

T = TypeVar("T")

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

_DTYPES: dict[str, np.dtype[Any]] = {
    "torch FloatStorage": np.dtype("<f4"),
    "torch LongStorage": np.dtype("<i8"),
}
_TENSOR = "torch._utils _rebuild_tensor_v2"
_DICT = "collections OrderedDict"
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE"}


@dataclass(frozen=True)
class _Global:
    """A name that a file mentions."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True)
class _Tensor:
    """Offset and strides are in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by their names, as read-only views of ``content``.

    Args:
        content: the whole file.
        name: of the file, for the error.

    Raises:
        UserError: it is damaged, cut, or anything else than such a file.
    """
    try:
        return _read(io.BytesIO(content), content)
    except (ArithmeticError, LookupError, TypeError, ValueError, struct.error) as error:
        cause = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{name}: no tensors can be read from it ({cause})") from error


def _read(file: io.BytesIO, content: bytes) -> dict[str, NDArray[Any]]:
    head = [_unpickle(file) for _ in range(3)]
    if head[:2] != [MAGIC, PROTOCOL] or _only(dict, head[2]).get("little_endian") is not True:
        raise ValueError("not torch's legacy format")
    tensors, keys = _unpickle(file), _unpickle(file)
    known: dict[str, _Storage] = {}
    for name, tensor in _only(dict, tensors).items():
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"{name!r} is not a tensor")
        if known.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
            raise ValueError(f"storage {tensor.storage.key!r} is described in two ways")
    if sorted(_only(str, key) for key in _only(list, keys)) != sorted(known):
        raise ValueError("its storages are not those of its tensors")
    values = {key: _values(file, content, known[key]) for key in keys}
    if file.tell() != len(content):
        raise ValueError("it goes on after its last storage")
    return {name: _view(tensor, values) for name, tensor in tensors.items()}


def _values(file: io.BytesIO, content: bytes, storage: _Storage) -> NDArray[Any]:
    (count,) = struct.unpack("<q", file.read(8))
    start, size = file.tell(), storage.count * storage.dtype.itemsize
    if count != storage.count or start + size > len(content):
        raise ValueError(f"storage {storage.key!r} is cut or has another size")
    file.seek(size, io.SEEK_CUR)
    return np.frombuffer(content, storage.dtype, count, start)


def _view(tensor: _Tensor, values: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """``tensor`` within its storage. Not every tensor is contiguous: the strides count."""
    flat = values[tensor.storage.key]
    last = tensor.offset + sum(
        (size - 1) * step for size, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    if last >= len(flat) or math.prod(tensor.shape) > len(flat):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [step * flat.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, strides, writeable=False
    )


def _opcodes(file: io.BytesIO) -> list[tuple[Any, Any, int | None]]:
    with warnings.catch_warnings():
        # Of escapes in quoted strings, which a damaged file may have and a good one has not.
        warnings.simplefilter("ignore", DeprecationWarning)
        return list(pickletools.genops(file))


def _unpickle(file: io.BytesIO) -> Any:
    """The next pickle of ``file``: numbers, texts, tuples, lists, dicts and tensors.

    Raises:
        ValueError, TypeError, LookupError: it holds anything else.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def pop(count: int) -> list[Any]:
        taken = [stack.pop() for _ in range(count)]
        return taken[::-1]

    def since_mark() -> list[Any]:
        start = marks.pop()
        return pop(len(stack) - start)

    for opcode, argument, _ in _opcodes(file):
        match opcode.name:
            case "PROTO":
                pass
            case "MARK":
                marks.append(len(stack))
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case name if name in _VALUES:
                stack.append(argument)
            case "EMPTY_TUPLE":
                stack.append(())
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop(int(opcode.name[-1]))))
            case "APPEND" | "APPENDS":
                items = since_mark() if opcode.name == "APPENDS" else pop(1)
                _only(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else pop(2)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    _only(dict, stack[-1])[_only(str, key)] = value
            case "BINPUT" | "LONG_BINPUT":
                memo[_only(int, argument)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[_only(int, argument)])
            case "GLOBAL":
                stack.append(_Global(_only(str, argument)))
            case "BINPERSID":
                stack.append(_storage(*_only(tuple, stack.pop())))
            case "REDUCE":
                made, arguments = pop(2)
                stack.append(_made(made, _only(tuple, arguments)))
            case "BUILD":
                pop(1)  # attributes of the state dict: versions of torch's modules
            case "STOP":
                (result,) = stack
                return result
            case _:
                raise ValueError(f"opcode {opcode.name} in a state dict")
    raise ValueError("it ends within a pickle")


def _only(kind: type[T], value: Any) -> T:
    """``value``, which is of exactly this type."""
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} where {kind.__name__} is expected")
    found: T = value
    return found


def _made(name: Any, arguments: tuple[Any, ...]) -> Any:
    if name == _Global(_DICT) and not arguments:
        return {}
    if name != _Global(_TENSOR):
        raise ValueError(f"{getattr(name, 'name', 'a value')} is called in a state dict")
    storage, offset, shape, strides, _gradient, _hooks = arguments
    for number in (offset, *_only(tuple, shape), *_only(tuple, strides)):
        if _only(int, number) < 0:
            raise ValueError("a tensor with a negative size")
    return _Tensor(_only(_Storage, storage), offset, shape, strides)


def _storage(kind: Any, dtype: Any, key: Any, _device: Any, count: Any, view: Any) -> _Storage:
    if kind != "storage" or view is not None or _only(int, count) < 0:
        raise ValueError("a storage of an unknown kind")
    return _Storage(_only(str, key), _DTYPES[_only(_Global, dtype).name], count)
