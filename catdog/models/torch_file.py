"""Read tensors from torch's legacy file format (before 1.6), without torch.

Such a file is a chain of pickles: magic number, protocol version, facts of the system, a state
dict whose tensors name their storages, the keys of the storages; then each storage's values
(``torch.serialization._legacy_save``). Whoever reads one has checked its hash: a pickle calls what
it names. Here that is nothing but what a state dict consists of.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001

#: What a file may name; a tensor becomes (storage, offset, shape, strides, …), in elements.
_NAMES = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.LongStorage": np.dtype("<i8"),
    "torch._utils._rebuild_tensor_v2": lambda *arguments: arguments,
    "collections.OrderedDict": OrderedDict,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (found := _NAMES.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"{module}.{name} in a state dict")
        return found

    def persistent_load(self, saved: Any) -> tuple[str, np.dtype[Any]]:
        _kind, dtype, key, _device, _count, _view = saved
        return key, dtype


def read_tensors(content: bytes) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict by their names, as read-only views of ``content``, a whole file.

    Raises:
        ValueError, UnpicklingError: it is another kind of file.
    """
    file = io.BytesIO(content)
    magic, protocol, _facts = (_Unpickler(file).load() for _ in range(3))
    if (magic, protocol) != (MAGIC, PROTOCOL):
        raise ValueError("not torch's legacy format")
    tensors, keys = (_Unpickler(file).load() for _ in range(2))
    dtypes = dict(storage for storage, *_ in tensors.values())
    values = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        values[key] = np.frombuffer(content, dtypes[key], count, file.tell())
        file.seek(values[key].nbytes, io.SEEK_CUR)
    return {name: _view(values, *parts[:4]) for name, parts in tensors.items()}


def _view(
    values: dict[str, NDArray[Any]],
    storage: tuple[str, Any],
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> NDArray[Any]:
    """A tensor within its storage. Not every one is contiguous: the strides count."""
    flat = values[storage[0]][offset:]
    steps = [step * flat.itemsize for step in strides]
    return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
