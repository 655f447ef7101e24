"""ONNX models and where they come from: files, and the data that lies beside them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import readable_path
from fastlstm._extras import needs_extra
from fastlstm._kinds import kind_of, what_it_is_instead
from fastlstm.interchange._tensors import DAMAGE

from .protobuf import check_memory

_HEAD = 1024  # bytes in which a file shows what it is
_SPARE = 40 << 20  # for the models of small files


@dataclass(frozen=True)
class Model:
    """A model that was read."""

    where: str
    """What to call it in errors."""
    proto: Any
    folder: str | None
    """Where data beside the model lies; None: the model was in memory."""


def load(source: Any) -> Model:
    """Read a model, but not the data beside it.

    Raises
    ------
    ValueError
        The file is not an ONNX model, or damaged.
    TypeError
        The source is neither a ModelProto nor a path.
    OSError, ModuleNotFoundError
        As :func:`fastlstm.from_onnx`'s.
    """
    with needs_extra("from_onnx", "onnx"):
        import onnx
        from google.protobuf.message import DecodeError

    if isinstance(source, onnx.ModelProto):
        return Model("model", source, None)
    if isinstance(source, type):
        raise TypeError(f"source: expected a model or a path, got the class {source.__name__}")
    path = readable_path("source", source, "a model or a path")
    with open(path, "rb") as file:
        data = file.read()
    instead = what_it_is_instead(data[:_HEAD]) or _another_form(data[:_HEAD])
    if instead:
        raise ValueError(f"{path}: not an ONNX model but {instead}")
    try:
        check_memory(data, onnx.ModelProto.DESCRIPTOR, 3 * len(data) + _SPARE)
        proto = onnx.ModelProto.FromString(data)
    except (DecodeError, *DAMAGE) as error:
        if isinstance(error, DecodeError) and "alloc" in str(error):
            raise MemoryError(f"{path}: {error}") from None
        if kind := _another_kind(data[:_HEAD]):
            raise ValueError(f"{path}: not an ONNX model but {kind}") from error
        raise ValueError(f"{path}: not an ONNX model that can be read: {error}") from error
    if not proto.opset_import:
        raise ValueError(f"{path}: not an ONNX model: it names no version of the operators")
    return Model(path, proto, os.path.dirname(os.path.abspath(path)))


def _another_form(head: bytes) -> str | None:
    """Say what else it is that people take for an ONNX model."""
    if head[4:8] == b"ORTM":
        return "ONNX Runtime's own format: the .onnx file that it was made from is expected"
    # Every model of ONNX begins with the number of a field, which is no letter.
    if head and all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        return "text: the binary form is expected, which onnx.save(onnx.load(path), '.onnx') writes"
    return None


def _another_kind(head: bytes) -> str | None:
    """Say what it is that cannot be read as a model; None: perhaps a damaged one."""
    kind = kind_of(head)
    return None if kind is None or "ONNX" in kind else kind


class Tensors:
    """Reads the tensors of a model, of which none may claim more bytes than it has."""

    def __init__(self, model: Model) -> None:
        self._folder = model.folder
        self._stored = _stored_bytes(model.proto)
        self._read: dict[int, Any] = {}
        # By file, whatever its names: bytes, and the most that a tensor of it grows.
        self._beside: dict[tuple[int, int], tuple[int, int]] = {}

    @property
    def size(self) -> int:
        """Bytes of the model, and of what was read from beside it.

        Tensors that were read and have less than 32 bits are counted as float32 numbers, which
        they become.
        """
        return self._stored + sum(nbytes for nbytes, _ in self._beside.values())

    def read(self, tensor: Any) -> npt.NDArray[Any]:
        """Return a tensor's values."""
        from onnx import TensorProto, helper, numpy_helper

        if tensor.data_type == TensorProto.STRING:
            raise ValueError(f"{tensor.name}: expected numbers, got text")
        count = elements(tensor.dims)
        if id(tensor) not in self._read:
            self._read[id(tensor)] = tensor  # kept, so that its identity is its own
            growth = _growth(tensor)
            self._stored += _byte_size(tensor) * (growth - 1) if growth > 1 else 0
        if tensor.data_location == TensorProto.EXTERNAL:
            data = self._read_beside(tensor)
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            if dtype.isbuiltin == 1 and 8 * dtype.itemsize == _bits(tensor):
                return np.frombuffer(data, dtype.newbyteorder("<")).reshape(tuple(tensor.dims))
            tensor = TensorProto(dims=tensor.dims, data_type=tensor.data_type, raw_data=data)
        field = {
            TensorProto.FLOAT: tensor.float_data,
            TensorProto.DOUBLE: tensor.double_data,
            TensorProto.INT64: tensor.int64_data,
        }.get(tensor.data_type)
        if not field or tensor.raw_data:
            return np.asarray(numpy_helper.to_array(tensor))
        if len(field) != count:
            raise ValueError(f"{tensor.name}: expected {count} numbers, got {len(field)}")
        # onnx would make a list of them first, of eight times the size.
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.fromiter(field, dtype, len(field)).reshape(tuple(tensor.dims))

    def _read_beside(self, tensor: Any) -> bytes:
        import onnx
        from onnx.external_data_helper import load_external_data_for_tensor

        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if self._folder is None:
            raise ValueError(
                f"{tensor.name}: its values are in the file {location!r} beside the model, which "
                "was not loaded with it: pass the model's path"
            )
        path = os.path.join(self._folder, location)
        size = os.path.getsize(path) if os.path.isfile(path) else 0
        expected = (elements(tensor.dims) * _bits(tensor) + 7) // 8
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", size - offset))
        if length != expected or offset + length > size:  # before room is made for them
            raise ValueError(
                f"{tensor.name}: expected {expected} bytes in {location!r}, which has {size}, got "
                f"{length} from {offset}{_what_lies_there(self._folder, location)}"
            )
        filled = _Filled(tensor.name, [*tensor.external_data])
        try:  # onnx sees to it that the file is in the model's folder, and no link out of it
            load_external_data_for_tensor(filled, self._folder)
        except (onnx.checker.ValidationError, *DAMAGE) as error:
            raise ValueError(f"{tensor.name}: {error}") from error
        file = os.stat(path)
        known, growth = self._beside.get((file.st_dev, file.st_ino), (0, 1))
        growth = max(growth, _growth(tensor))
        known = min(known + length * _growth(tensor), size * growth)  # many may name the same bytes
        self._beside[file.st_dev, file.st_ino] = known, growth
        return filled.raw_data


@dataclass
class _Filled:
    """What onnx fills in place of a tensor: protobuf ends the process where it finds no room."""

    name: str
    external_data: list[Any]
    raw_data: bytes = b""
    data_location: int = 0


def _stored_bytes(message: Any) -> int:
    """The bytes of a model: of its parts, as protobuf copies what it measures."""
    total = 0
    for _, value in message.ListFields():
        if hasattr(value, "ListFields"):
            total += _stored_bytes(value)
        elif not isinstance(value, (str, bytes, int, float)):
            total += sum(_byte_size(part) for part in value if hasattr(part, "ListFields"))
    return total


def _byte_size(message: Any) -> int:
    from google.protobuf.message import EncodeError

    try:
        return int(message.ByteSize())
    except EncodeError as error:
        raise MemoryError(f"{message.DESCRIPTOR.name}: {error}") from None


def elements(shape: Any) -> int:
    """The number of elements, in Python's integers, of a shape without negative sizes."""
    count = 1
    for size in shape:
        if size < 0:
            raise ValueError(f"a size is negative: {tuple(shape)}")
        count *= int(size)
    return count


def _what_lies_there(folder: str, location: str) -> str:
    """Say of a small file beside the model what it is instead of its data."""
    path = os.path.join(folder, location)
    if location not in os.listdir(folder) or os.path.islink(path) or not os.path.isfile(path):
        return ""
    with open(path, "rb") as file:
        instead = what_it_is_instead(file.read(_HEAD))
    return f"; it is {instead}" if instead else ""


def _bits(tensor: Any) -> int:
    """Bits of an element as it is stored."""
    name = tensor.DataType.Name(tensor.data_type)
    number = re.search(r"\d+", name)
    return int(number[0]) if number else {"DOUBLE": 64, "BOOL": 8}.get(name, 32)


def _growth(tensor: Any) -> int:
    """How many times its bytes a tensor has as float32 numbers, where it has fewer bits."""
    return max(1, 32 // _bits(tensor))
