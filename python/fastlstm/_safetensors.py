"""Safetensors files: the header of a JSON object, and after it the values of each tensor.

The safetensors package reads them too, but maps the whole file, and NumPy has no bfloat16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import FloatArray
from ._files import HeldFile
from ._kinds import kind_of
from ._stored import FLOATS, Room, as_layers_float

# Bits of one value; other types can stand in a file, but are not read.
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("F16", "BF16", "U16", "I16"), 16),
    **dict.fromkeys(("F32", "U32", "I32"), 32),
    **dict.fromkeys(("F64", "U64", "I64", "C64"), 64),
}
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# What a layer of small weights keeps.
_SMALL = {"F32": "f4", "BF16": "u2", "I8": "i1"}
# The most memory that a byte of the header takes as Python's objects.
_OBJECTS = 30


@dataclass(frozen=True)
class StoredTensor:
    """One tensor and where the file has it."""

    file: HeldFile
    dtype: str  # as safetensors calls it
    shape: tuple[int, ...]
    offset: int
    size: int  # in bytes

    def read(self) -> FloatArray:
        """Return the values, in memory of their own.

        Raises
        ------
        ValueError
            They are no floats, or the file has been cut.
        """
        dtype = _FLOATS.get(self.dtype)
        if dtype is None:
            raise ValueError(f"expected a tensor of floats, got one of {self.dtype}")
        return as_layers_float(self._values(FLOATS[dtype]), dtype)

    def read_stored(self) -> npt.NDArray[Any]:
        """Return the values of a quantized layer's file as they are; of bfloat16 as uint16.

        Raises
        ------
        ValueError
            They are of another type, or the file has been cut.
        """
        if self.dtype not in _SMALL:
            raise ValueError(f"expected a tensor of {', '.join(_SMALL)}, got one of {self.dtype}")
        return self._values(_SMALL[self.dtype])

    def _values(self, kind: str) -> npt.NDArray[Any]:
        values = self.file.values(self.offset, np.dtype(kind).newbyteorder("<"), self.shape)
        if values.shape != self.shape:
            raise ValueError(f"expected {math.prod(self.shape)} values, got {values.size}")
        return values


def read_header(path: str) -> tuple[dict[str, str], dict[str, StoredTensor]]:
    """Return a file's metadata and its tensors, whose values are not read yet.

    Raises
    ------
    ValueError
        It is no safetensors file, or damaged; the message begins with its path.
    OSError
        It cannot be read.
    """
    file = HeldFile(path)
    head = file.read(0, 4096)
    length = int.from_bytes(head[:8], "little")
    try:
        if head[8:9] != b"{" or 8 + length > file.size:
            raise ValueError(kind_of(head) or "it does not begin with a header")
        Room(file.size).take(_OBJECTS * length)
        header = json.loads(file.read(8, length), object_pairs_hook=_without_repeats)
        return _metadata(header), _tensors(file, header, 8 + length)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: not a safetensors file that can be read: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a name stands in its header twice")
    return values


def _metadata(header: dict[str, Any]) -> dict[str, str]:
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata is no text")
    return metadata


def _tensors(file: HeldFile, header: dict[str, Any], start: int) -> dict[str, StoredTensor]:
    tensors = {}
    for name, entry in header.items():
        match entry:
            case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]}:
                if len(shape) > 64 or not _are_sizes([*shape, begin, end]) or begin > end:
                    raise ValueError(f"{name}: its shape or place is none")
            case _:
                raise ValueError(f"{name}: expected dtype, shape and data_offsets")
        if dtype in _BITS and math.prod(shape) * _BITS[dtype] != 8 * (end - begin):
            raise ValueError(f"{name}: {end - begin} bytes for the shape {tuple(shape)}")
        tensors[name] = StoredTensor(file, dtype, tuple(shape), start + begin, end - begin)
    # One after the other, without gaps: nothing hides, and nothing is there twice.
    place = start
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != place:
            raise ValueError("its tensors do not follow one another")
        place += tensor.size
    if place != file.size:
        raise ValueError(f"expected {place} bytes, got {file.size}")
    return tensors


def _are_sizes(values: Iterable[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 2**62 for value in values)
