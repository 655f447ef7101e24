"""What ``torch.save`` and ``torch.jit.save`` wrote, read without PyTorch.

No code of a file is run: :mod:`.pickle` says how. What a file may take of memory is bounded by its
size: :class:`fastlstm._stored.Room` keeps count.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray
from fastlstm._files import HeldFile
from fastlstm._kinds import kind_of
from fastlstm._stored import FLOATS, Room, as_layers_float
from fastlstm.interchange._tensors import DAMAGE, Int8, Tensor

from .objects import (
    NumpyArray,
    OtherTensor,
    QuantisedTensor,
    Storage,
    Strided,
    call,
    contents_of,
    is_module,
    is_script,
    storage_of,
)
from .operations import Operations
from .packed import int8_of
from .parameters import may_be_of_a_layer, with_lists_marked
from .pickle import Global, Machine
from .script import attributes, code_file, python_class
from .walk import LEAVES, Contents, find
from .zip import Archive

# The first number in files from before PyTorch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
# What a tensor's or module's description and name take in memory, and a search of what holds some.
_NAMED = 800
_VISIT = 160
# What a layer has beside the values, for each of its parameters.
_READ = 1000
_CHUNK = 1 << 20
# What holds so few plain values is looked at wherever it is shared, rather than kept as seen.
_FEW = 16
# Of the tensors directly in one thing, so many that are no parameters of layers get their names:
# they speak for the others.
_MOST_OTHERS = 100


# Types of scales and zero points.
_NUMBERS = {"float64": "<f8", "float32": "<f4", "int64": "<i8", "int32": "<i4"}
_MADE = Global("", "a class that the file itself makes")


@dataclass
class Module:
    """A module that was saved whole."""

    type: Global
    attributes: Mapping[str, Any]


@dataclass
class TorchFile:
    """Tensors and modules by their dotted names."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)


# Returns where a storage begins in the file, after it has been checked.
Locate = Callable[[Storage], int]
# Returns what the code of a class of TorchScript says of its modules.
Script = Callable[[Global], dict[str, Any]]


def read_torch_file(path: str) -> TorchFile:
    """Describe what is in a file of ``torch.save``, in today's (zip) or the older format.

    Also read are archives of ``torch.jit.save``, and pickles of arrays or tensors.

    Raises
    ------
    ValueError
        It is damaged, or something else.
    """
    file = HeldFile(path)
    head = file.read(0, 4096)
    room = Room(file.size)
    try:
        if head.startswith(b"PK"):
            value, locate, script = _read_zip(file, room)
        else:
            value, locate = _read_pickles(file, head, room)
            script = _no_script
        found = _collect(value, script, _Values(file, locate, room))
        if not found.tensors and not found.modules and not head.startswith(b"PK"):
            raise ValueError("a pickle with no tensors or arrays in it")
        return found
    except DAMAGE as error:
        raise ValueError(f"{path}: not a PyTorch file that can be read: {error}") from error


def _no_script(_: Global) -> dict[str, Any]:
    return {}


# --- today's format -------------------------------------------------------------------------------


def _read_zip(file: HeldFile, room: Room) -> tuple[Any, Locate, Script]:
    archive = Archive(file, room)
    members = archive.members
    pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
    if len(pickles) != 1:
        raise ValueError(f"expected a zip archive with one data.pkl, got {_kind_of_zip(members)}")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("written by a big-endian machine")
    value = _machine(Operations(memoryview(archive.read(pickles[0]))), room).run()

    checked: set[str] = set()

    def locate(storage: Storage) -> int:
        name = f"{root}data/{storage.key}"
        offset = archive.offset(name)
        member = members[name]
        if member.full_size != storage.size:
            raise ValueError(f"{name} has {member.full_size} bytes instead of {storage.size}")
        if name not in checked and member.crc:  # PyTorch can be told to leave it out
            if _check_sum(file, offset, member.size) != member.crc:
                raise ValueError(f"{name} is damaged")
            checked.add(name)
        return offset

    @functools.cache
    def of_file(name: str) -> dict[str, dict[str, Any]]:
        return attributes(archive.read(name, compressed=True).decode())

    def script(kind: Global) -> dict[str, Any]:
        name = f"{root}code/{code_file(kind)}"
        return of_file(name).get(kind.name, {}) if name in members else {}

    return value, locate, script


def _check_sum(held: HeldFile, offset: int, size: int) -> int:
    crc = 0
    with held.at(offset) as file:
        while size > 0 and (chunk := file.read(min(size, _CHUNK))):
            crc = zlib.crc32(chunk, crc)
            size -= len(chunk)
    return crc


def _kind_of_zip(members: Iterable[str]) -> str:
    names = [*itertools.islice(members, 1000)]
    ends = {name.rpartition(".")[2].lower() for name in names if not name.endswith("/")}
    if "model.weights.h5" in names:
        return "a .keras file: fastlstm.from_keras reads those"
    if "[Content_Types].xml" in names:
        return "a document"
    if ends == {"npy"}:
        return "an .npz file: pass on what numpy.load makes of it"
    if any(name.endswith("/archive_format") or "/models/" in name for name in names):
        return "a program of torch.export: save the state_dict instead"
    inner = [name for name in names if name.lower().endswith((".pt", ".pth", ".bin", ".ckpt"))]
    if inner:
        return f"an archive of files, {inner[0][:100]} among them: unpack it first"
    return f"{', '.join(name[:50] for name in names[:5]) or 'nothing'}"


# --- pickles --------------------------------------------------------------------------------------


def _machine(
    operations: Operations,
    room: Room,
    persistent: Callable[[Any], Any] = storage_of,
    *,
    nested: bool = False,
) -> Machine:
    loaded: dict[int, tuple[bytes | memoryview, Storage]] = {}

    def load(data: bytes | memoryview) -> Storage:
        """What the memory of a tensor becomes in a plain pickle: a file with it alone."""
        if nested:
            raise ValueError("files in files in files")
        if id(data) not in loaded:
            loaded[id(data)] = (data, _load_storage(data, room))
        return loaded[id(data)][1]

    return Machine(operations, room, functools.partial(call, room=room, load=load), persistent)


def _load_storage(data: bytes | memoryview, room: Room) -> Storage:
    operations = Operations(memoryview(data))
    if _machine(operations, room, nested=True).run() != _LEGACY_MAGIC:
        raise ValueError("the memory of a tensor in an unknown format")
    storage, places = _read_legacy(operations, room, nested=True)
    if not isinstance(storage, Storage):
        raise ValueError("the memory of a tensor in an unknown format")
    offset = places(storage)
    return storage._replace(data=memoryview(data)[offset : offset + storage.size])


def _read_pickles(file: HeldFile, head: bytes, room: Room) -> tuple[Any, Locate]:
    try:
        # Unlike a file, mapped memory reads what is there, however much a length asks for.
        operations = Operations(memoryview(file.mapped()), room)
        value = _machine(operations, room).run()
    except DAMAGE as error:
        # Pickles of the first protocol are text, too.
        kind = None if head.startswith(b"\x80") else kind_of(head)
        raise ValueError(kind or f"neither a zip archive nor a pickle: {error}") from error
    if type(value) is int and value == _LEGACY_MAGIC:
        return _read_legacy(operations, room)
    return value, _nowhere


def _nowhere(_: Storage) -> int:
    raise ValueError("its values are not in the file, which is a plain pickle")


def _read_legacy(operations: Operations, room: Room, *, nested: bool = False) -> tuple[Any, Locate]:
    """Read what follows the magic number, until the memory of all tensors."""
    storages: dict[str, Storage] = {}

    def persistent(described: Any) -> Any:
        storage = storage_of(described)
        if isinstance(storage, Storage):
            storages[storage.key] = storage
        return storage

    def run() -> Any:
        return _machine(operations, room, persistent, nested=nested).run()

    run()  # the format's version
    system = run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written by a big-endian machine")
    value, keys = run(), run()
    places: dict[str, tuple[int, int]] = {}
    position = operations.position
    for key in keys:
        if not isinstance(key, str):
            raise ValueError("a storage whose name is no text")
        numel = int.from_bytes(operations.data[position : position + 8], "little")
        places[key] = position + 8, numel
        position += 8 + numel * storages[key].element_size
        if position > len(operations.data):
            raise ValueError(f"storage {key} is cut")

    def locate(storage: Storage) -> int:
        offset, numel = places[storage.key]
        if numel != storage.numel:
            raise ValueError(f"storage {storage.key} has another size than its tensors say")
        return offset

    return value, locate


# --- from objects to named tensors ----------------------------------------------------------------


class _Values:
    """The values of tensors, in memory of their own."""

    def __init__(self, file: HeldFile, locate: Locate, room: Room) -> None:
        self.room = room
        self._file = file
        self._locate = locate
        self._counted: set[int] = set()

    def strided(self, tensor: Strided) -> FloatArray:
        dtype = tensor.dtype
        if dtype not in FLOATS:
            raise ValueError(f"expected a tensor of floats, got one of {dtype}")
        array = as_layers_float(self._elements(tensor, np.dtype(f"<{FLOATS[dtype]}")), dtype)
        if array.base is not None or not array.flags.c_contiguous:
            array = np.array(array, order="C")
        return np.negative(array, out=array) if tensor.negative else array

    def int8(self, tensor: QuantisedTensor) -> Int8:
        numbers = tensor.numbers
        if numbers.dtype != "qint8":
            raise ValueError(f"expected whole numbers of 8 bits, qint8, got {numbers.dtype}")
        values = self._elements(numbers, np.dtype(np.int8))
        scales, zeros = self._numbers(tensor.scales), self._numbers(tensor.zeros)
        return int8_of(values, tensor.scheme, scales, zeros, tensor.axis)

    def _numbers(self, part: Any) -> Any:
        """A number, or a tensor of some."""
        if not isinstance(part, Strided):
            return part
        if part.dtype not in _NUMBERS:
            raise ValueError(f"expected scales in numbers, got {part.dtype}")
        return self._elements(part, np.dtype(_NUMBERS[part.dtype]))

    def _elements(self, tensor: Strided, stored: np.dtype[Any]) -> npt.NDArray[Any]:
        """The elements of a type, as they lie in the file."""
        storage = tensor.storage
        count = math.prod(tensor.shape)
        # From the first element to the last.
        pairs = [*zip(tensor.shape, tensor.strides, strict=True)]
        span = 1 + sum((size - 1) * stride for size, stride in pairs) if count else 0
        begin = storage.start * storage.element_size + tensor.offset * stored.itemsize
        if begin + span * stored.itemsize > storage.size:
            raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its storage")
        self._count(tensor, count * (max(4, stored.itemsize) if stored.itemsize > 1 else 1))
        if storage.data is not None:
            memory = np.frombuffer(storage.data, stored, span, begin)
        else:
            memory = self._file.values(self._locate(storage) + begin, stored, span)
        if memory.size != span:
            raise ValueError(f"storage {storage.key} is cut")
        strides = [stride * stored.itemsize for stride in tensor.strides]
        return np.lib.stride_tricks.as_strided(memory, tensor.shape, strides if count else None)

    def numpy(self, array: NumpyArray) -> FloatArray:
        self._count(array, max(4 * math.prod(array.shape), len(array.data)))
        return array.read()

    def other(self, tensor: OtherTensor) -> NoReturn:
        raise ValueError(f"expected a tensor of floats, got {tensor.kind}")

    def not_quantised(self, _: QuantisedTensor) -> NoReturn:
        raise ValueError("expected a tensor of floats, got a quantised tensor")

    def _count(self, tensor: Any, size: int) -> None:
        self.room.take(_READ)  # for each layer that shares it
        # A layer has its parameters twice; who asks for a tensor again has let go of it before.
        if id(tensor) not in self._counted:
            self._counted.add(id(tensor))
            self.room.take(2 * size)


def _collect(value: Any, script: Script, values: _Values) -> TorchFile:
    readers: dict[type, Callable[[Any], FloatArray]] = {
        Strided: values.strided,
        NumpyArray: values.numpy,
        OtherTensor: values.other,
        QuantisedTensor: values.not_quantised,
    }

    def wanted(thing: Any) -> bool:
        is_one = type(thing) in readers or is_module(thing) or is_script(thing)
        if is_one:
            values.room.take(_NAMED)
        return is_one

    def contents(thing: Any) -> Contents:
        if type(thing) in (dict, list, tuple) and len(thing) <= _FEW:
            values_in = thing.values() if type(thing) is dict else thing
            if all(type(value) in LEAVES for value in values_in):
                return None
        inner = with_lists_marked(thing) if type(thing) is dict else contents_of(thing)
        if inner is not None:
            values.room.take(_VISIT)
            return with_few_others(inner)
        return None

    def with_few_others(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        others = 0
        for key, thing in items:
            if type(thing) in readers and not may_be_of_a_layer(key):
                others += 1
                if others > _MOST_OTHERS:
                    continue
            yield key, thing

    found = TorchFile()
    for name, thing in find(value, contents, wanted).items():
        if f".{name}".rpartition(".")[0].endswith("._flat_weights"):
            continue  # a module of TorchScript has its parameters once more
        if type(thing) in readers:
            read = functools.partial(readers[type(thing)], thing)
            found.tensors[name] = Tensor(thing.shape, read)
            if type(thing) is QuantisedTensor:
                found.tensors[name].read_int8 = functools.partial(values.int8, thing)
        elif is_module(thing):
            kind = thing.type if isinstance(thing.type, Global) else _MADE
            found.modules[name] = Module(kind, thing.state)
        else:
            attributes = ChainMap(script(thing.type), thing.state)
            found.modules[name] = Module(python_class(thing.type), attributes)
    return found
