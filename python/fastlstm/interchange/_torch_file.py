"""What ``torch.save`` wrote, read without PyTorch and without running what a pickle asks for.

A pickle is a program, and unpickling runs it: any function that it names, with any arguments.
:class:`_Machine` runs the same program on a stack of its own, where a name stays a name: the few
calls that make tensors and dictionaries are understood, all others become inert :class:`Opaque`
objects. So a file can do nothing but describe data.
"""

from __future__ import annotations

import functools
import io
import mmap
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ._tensors import DAMAGE, FLOATS, Tensor, as_layers_float, read_member

# The first number in files from before PyTorch 1.6.
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DEEPEST = 50  # levels of dictionaries and modules that are searched for tensors
_MOST_THINGS = 100_000  # in them


class Global(NamedTuple):
    """The name of a class or function."""

    module: str
    name: str


@dataclass
class Opaque:
    """An object of a class, or a result of a function, that is only known by name."""

    type: Any
    state: Any = None


@dataclass(frozen=True)
class Storage:
    """The memory of one or more tensors; where the file keeps it is for the reader to know."""

    key: str
    dtype: str
    numel: int
    element_size: int

    @property
    def size(self) -> int:
        """In bytes."""
        return self.numel * self.element_size


@dataclass
class Module:
    """A module that was saved whole."""

    type: Global
    attributes: dict[str, Any]


@dataclass
class TorchFile:
    """Tensors and modules by their dotted names."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, Module] = field(default_factory=dict)


def read_torch_file(path: str) -> TorchFile:
    """Describe what is in a file of ``torch.save``, in today's (zip) or the older format.

    Raises
    ------
    ValueError
        It is damaged, or something else.
    """
    with open(path, "rb") as file:
        try:
            if zipfile.is_zipfile(file):
                value, read = _read_zip(path)
            else:
                value, read = _read_legacy(file)
            # Modules that were on a GPU have all their tensors in one storage.
            return _collect(value, functools.lru_cache(maxsize=1)(read))
        except DAMAGE as error:
            raise ValueError(f"{path}: not a PyTorch file that can be read: {error}") from error


# --- the two formats ------------------------------------------------------------------------------

ReadStorage = Callable[[Storage], bytes]


def _read_zip(path: str) -> tuple[Any, ReadStorage]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        pickles = [name for name in members if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("expected a zip archive with one data.pkl")
        root = pickles[0].removesuffix("data.pkl")
        if any(name.startswith(f"{root}code/") for name in members):
            raise ValueError("TorchScript: expected a saved state_dict or module")

        if f"{root}byteorder" in members and read_member(archive, f"{root}byteorder") != b"little":
            raise ValueError("written by a big-endian machine")
        value = _Machine(io.BytesIO(read_member(archive, f"{root}data.pkl"))).run()

    def read_storage(storage: Storage) -> bytes:
        with zipfile.ZipFile(path) as archive:
            data = read_member(archive, f"{root}data/{storage.key}")
        if len(data) != storage.size:
            raise ValueError(f"{storage.key} has {len(data)} bytes instead of {storage.size}")
        return data

    return value, read_storage


def _read_legacy(file: BinaryIO) -> tuple[Any, ReadStorage]:
    # Unlike a file, mapped memory reads what is there, however much a damaged length asks for.
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if _Machine(data).run() != _LEGACY_MAGIC:
        raise ValueError("neither a zip archive nor a pickle of PyTorch's")
    _Machine(data).run()  # the format's version
    system = _Machine(data).run()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("written by a big-endian machine")
    machine = _Machine(data)
    value = machine.run()
    offsets: dict[str, int] = {}
    keys = _Machine(data).run()
    position = data.tell()
    for key in keys:
        storage = machine.storages[key]
        numel = int.from_bytes(data[position : position + 8], "little")
        offsets[key] = position + 8
        position += 8 + storage.size
        if numel != storage.numel or position > len(data):
            raise ValueError(f"storage {key} has another size than its tensors say")

    def read_storage(storage: Storage) -> bytes:
        offset = offsets[storage.key]
        return data[offset : offset + storage.size]

    return value, read_storage


# --- from objects to named tensors ----------------------------------------------------------------


class _Strided(NamedTuple):
    """A tensor: a view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _collect(value: Any, read: ReadStorage) -> TorchFile:
    """Find all tensors and modules in nested dictionaries and modules."""
    found = TorchFile()
    things = 0
    stack: list[tuple[str, int, Any]] = [("", 0, value)]
    while stack:
        name, depth, thing = stack.pop()
        things += 1
        if depth > _DEEPEST or things > _MOST_THINGS:
            raise ValueError("dictionaries are nested too deeply")
        if isinstance(thing, _Strided):
            found.tensors[name] = Tensor(thing.shape, functools.partial(_values, thing, read))
            continue
        if isinstance(thing, dict):
            parts = [thing]
        elif isinstance(thing, Opaque) and isinstance(thing.state, dict):
            attributes = thing.state
            if isinstance(thing.type, Global):
                found.modules[name] = Module(thing.type, attributes)
            keys = ("_parameters", "_buffers", "_modules")
            parts = [p for p in map(attributes.get, keys) if isinstance(p, dict)]
        else:
            continue
        prefix = f"{name}." if name else ""
        for part in parts:
            stack += [(f"{prefix}{key}", depth + 1, inner) for key, inner in part.items()]
    return found


def _values(tensor: _Strided, read: ReadStorage) -> npt.NDArray[Any]:
    storage = tensor.storage
    if storage.dtype not in FLOATS:
        raise ValueError(f"expected a tensor of floats, got one of {storage.dtype}")
    # Where the last element is; a view that repeats elements would be larger than the file.
    last = tensor.offset
    count = 1
    for size, stride in zip(tensor.shape, tensor.strides, strict=True):
        last += (size - 1) * stride
        count *= size
    if count and not (count <= storage.numel and last < storage.numel):
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its storage")
    memory = np.frombuffer(read(storage), dtype="<" + FLOATS[storage.dtype])
    if memory.size != storage.numel:
        raise ValueError(f"storage {storage.key} is truncated")
    if count == 0:
        memory = memory[:0].reshape(tensor.shape)
    else:
        memory = np.lib.stride_tricks.as_strided(
            memory[tensor.offset :],
            tensor.shape,
            [stride * memory.itemsize for stride in tensor.strides],
        )
    return as_layers_float(memory, storage.dtype)


# --- the pickle machine ---------------------------------------------------------------------------

# What PyTorch calls the types of storages -> ours, and their size in bytes.
_STORAGES = {
    "DoubleStorage": ("float64", 8),
    "FloatStorage": ("float32", 4),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "QInt8Storage": ("qint8", 1),
    "QUInt8Storage": ("quint8", 1),
    "QInt32Storage": ("qint32", 4),
}

_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,
}
# Whose argument is the value.
_LITERALS = re.compile(
    "BININT[12]?|LONG[14]|BINFLOAT|(SHORT_)?BIN(UNICODE|BYTES|STRING)|BIN(UNICODE|BYTES)8"
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError("expected a size")
    return value


def _sizes(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or len(values) > 64:
        raise ValueError("expected the sizes of a tensor")
    return tuple(_int(value) for value in values)


class _Machine:
    """Runs one pickle of a file, up to its STOP."""

    def __init__(self, file: Any) -> None:
        self._operations: Iterator[tuple[Any, Any, Any]] = pickletools.genops(file)
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each MARK
        self._memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def run(self) -> Any:
        for operation, argument, _ in self._operations:
            name = operation.name
            if name == "STOP":
                return self._stack.pop()
            if name in _CONSTANTS:
                self._stack.append(_CONSTANTS[name]())
            elif _LITERALS.fullmatch(name):
                self._stack.append(argument)
            elif name in _TUPLES:
                count = _TUPLES[name]
                values = tuple(self._pop() for _ in range(count))[::-1]
                self._stack.append(values)
            else:
                method = getattr(self, f"_op_{name.lower()}", None)
                if method is None:
                    raise ValueError(f"a pickle with the operation {name}")
                method(argument)
        raise ValueError("a pickle without an end")

    def _pop(self) -> Any:
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        values, self._stack = self._stack, self._outer.pop()
        return values

    def _op_proto(self, _: Any) -> None:
        pass

    _op_frame = _op_proto

    def _op_mark(self, _: Any) -> None:
        self._outer.append(self._stack)
        self._stack = []

    def _op_pop(self, _: Any) -> None:
        self._pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _op_dup(self, _: Any) -> None:
        self._stack.append(self._stack[-1])

    def _op_put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self._stack[-1]

    def _op_get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    _op_binget = _op_long_binget = _op_get

    def _op_tuple(self, _: Any) -> None:
        values = tuple(self._pop_mark())
        self._stack.append(values)

    def _op_list(self, _: Any) -> None:
        values = self._pop_mark()
        self._stack.append(values)

    _op_frozenset = _op_list

    def _op_dict(self, _: Any) -> None:
        values = self._pop_mark()
        self._stack.append({})
        self._set_items(values)

    def _op_append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _op_appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    _op_additems = _op_appends

    def _extend(self, values: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(values)

    def _op_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _op_setitems(self, _: Any) -> None:
        self._set_items(self._pop_mark())

    def _set_items(self, values: list[Any]) -> None:
        top = self._stack[-1]
        if not isinstance(top, dict):
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, (str, int)):  # others name no tensors
                top[key] = value

    def _op_global(self, name: str) -> None:
        module, _, name = name.partition(" ")
        self._stack.append(Global(module, name))

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._stack.append(Global(str(module), str(name)))

    def _op_build(self, _: Any) -> None:
        state = self._pop()
        top = self._stack[-1]
        if isinstance(top, Opaque):
            top.state = state

    def _op_newobj(self, _: Any) -> None:
        arguments, cls = self._pop(), self._pop()
        self._stack.append(_call(cls, arguments))

    _op_reduce = _op_newobj

    def _op_newobj_ex(self, _: Any) -> None:
        self._pop()
        self._op_newobj(None)

    def _op_binpersid(self, _: Any) -> None:
        match self._pop():
            case ("module", cls, *_source):  # the class of a module, before PyTorch 1.6
                self._stack.append(cls)
            case ("storage", Global(_, kind), str(key), _, numel) | (
                "storage",
                Global(_, kind),
                str(key),
                _,
                numel,
                None,
            ):
                dtype, element_size = _STORAGES.get(kind, (kind, 1))
                storage = Storage(key, dtype, _int(numel), element_size)
                self.storages[key] = storage
                self._stack.append(storage)
            case _:
                raise ValueError("a storage of an unknown kind")


def _call(function: Any, arguments: Any) -> Any:
    """What a call in a pickle makes: known are those for tensors, parameters, dictionaries."""
    match function:
        case Global("collections", "OrderedDict") if arguments == ():
            return {}
        case Global("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"):
            storage, offset, shape, strides, *_ = arguments
            if not isinstance(storage, Storage):
                raise ValueError("a tensor without a storage")
            return _Strided(storage, _int(offset), _sizes(shape), _sizes(strides))
        case Global("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state"):
            return arguments[0]
        case Global("torch._tensor", "_rebuild_from_type_v2"):
            return _call(arguments[0], arguments[2])
    return Opaque(function)
