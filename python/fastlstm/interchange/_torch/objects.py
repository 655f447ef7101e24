"""What the names in PyTorch's and NumPy's pickles mean: storages, tensors, arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._stored import FLOATS, Room, as_layers_float

from .operations import LongText
from .packed import PACKED, is_packed_class, packed_cell
from .pickle import Global, Opaque, as_key
from .walk import SAME, Contents

# PyTorch's types of storages -> the type of their elements and its size in bytes.
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
# What an array's values can be.
_MEMORY = (bytes, bytearray, memoryview, str, LongText)
_MOST_ARGUMENTS = 12
_LONGEST_KEY = 200
# As pickle's oldest protocol has them: a tuple's text.
_MODULE_TEXT = re.compile(r"\('module', <class '([^']*)\.(\w+)'>")
_STORAGE_TEXT = re.compile(
    r"\('storage', <class '[\w.]*?(\w+)'>, '([^']*)', '[^']*', (\d{1,18})(, None)?\)"
)


class Storage(NamedTuple):
    """The memory of one or more tensors; where the file keeps it is for the reader to know."""

    key: str
    dtype: str
    element_size: int  # in bytes
    numel: int
    start: int = 0  # of what the tensors see of it, in elements
    data: memoryview | None = None  # where the pickle itself has it

    @property
    def size(self) -> int:
        """In bytes."""
        return self.numel * self.element_size


class Strided(NamedTuple):
    """A tensor: a view of a storage."""

    storage: Storage
    dtype: str
    offset: int  # in elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    negative: bool  # whether its values are those of the storage, negated


class QuantisedTensor(NamedTuple):
    """A tensor of whole numbers, with their scales."""

    numbers: Strided
    scheme: str
    """PyTorch's name of the rule: "per_tensor_affine", ..."""
    scales: Any
    zeros: Any
    """A number each, or a tensor each for the places along an axis."""
    axis: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return self.numbers.shape


class OtherTensor(NamedTuple):
    """A tensor that is not read."""

    kind: str
    shape: tuple[int, ...]


class Dtype:
    """A type of NumPy's."""

    __slots__ = ("name", "order")

    def __init__(self, name: str) -> None:
        self.name = name
        self.order = "="

    def build(self, state: Any) -> None:
        """Take the order of bytes."""
        match state:
            case (int(), "<" | ">" | "|" | "=" as order, *_):
                self.order = order

    def numpy(self) -> np.dtype[Any]:
        """Return it as NumPy has it; bfloat16 as the bytes that it has."""
        if self.name == "bfloat16":
            return np.dtype("<u2")
        if not re.fullmatch(r"[fiub]\d\d?", self.name):
            raise ValueError(f"expected an array of floats, got one of {self.name}")
        return np.dtype(self.name).newbyteorder("<" if self.order == "|" else self.order)  # type: ignore[arg-type]


class NumpyArray:
    """An array of NumPy's."""

    __slots__ = ("data", "dtype", "fortran", "shape")

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: Any = None
        self.fortran = False
        self.data: Any = b""

    def build(self, state: Any) -> None:
        """Take what it is."""
        match state:
            case (_, shape, dtype, fortran, data) | (shape, dtype, fortran, data):
                pass
            case _:
                raise ValueError("an array without a shape")
        self.shape, self.dtype, self.data = sizes(shape), dtype, data
        self.fortran = fortran is True or fortran == 1

    def read(self) -> npt.NDArray[Any]:
        """Return the values, in memory of their own."""
        if not isinstance(self.dtype, Dtype) or not isinstance(self.data, _MEMORY):
            raise ValueError("expected an array of floats, got one of objects")
        dtype = self.dtype.numpy()
        name = self.dtype.name if self.dtype.name == "bfloat16" else dtype.name
        if name not in FLOATS:
            raise ValueError(f"expected an array of floats, got one of {name}")
        data: Any = self.data
        if isinstance(data, (str, LongText)):
            data = data.encode("latin-1")
        if len(data) != math.prod(self.shape) * dtype.itemsize:
            raise ValueError(f"an array of shape {self.shape} with {len(data)} bytes")
        array = np.frombuffer(data, dtype).reshape(self.shape, order="F" if self.fortran else "C")
        return np.array(as_layers_float(array, name), order="C")


def sizes(values: Any) -> tuple[int, ...]:
    """Return the sizes or strides of a tensor."""
    if not isinstance(values, (tuple, list)) or len(values) > 64:
        raise ValueError("expected the sizes of a tensor")
    return tuple([_size(value) for value in values])


def _size(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise ValueError("expected a size")
    return value


# --- what pickles ask for -------------------------------------------------------------------------


def storage_of(described: Any) -> Any:
    """Return the storage that a pickle describes, or the class of a module."""
    if isinstance(described, tuple) and len(described) > _MOST_ARGUMENTS:
        described = None
    match described:
        case ("module", cls, *_source):  # before PyTorch 1.6
            return cls
        case ("storage", Global(_, kind), str(key), _, numel, *view) if len(key) <= _LONGEST_KEY:
            dtype, element_size = _STORAGES.get(kind, (kind, 1))
            start = 0
            if view and view[0] is not None:  # a part of it, before PyTorch 0.4
                _, start, part = view[0]
                if _size(start) + _size(part) > _size(numel):
                    raise ValueError("a part of a storage that reaches beyond it")
            return Storage(key, dtype, element_size, _size(numel), start)
        case str(text) if len(text) < 300 and (found := _STORAGE_TEXT.fullmatch(text)):
            kind, key, numel = found.group(1, 2, 3)
            return Storage(key, *_STORAGES.get(kind, (kind, 1)), int(numel))
        case str(text) if found := _MODULE_TEXT.match(text[:300]):
            return Global(*found.group(1, 2))
    raise ValueError("a storage of an unknown kind")


def call(
    function: Any, arguments: Any, room: Room, load: Callable[[bytes | memoryview], Any]
) -> Any:
    """Return what a call in a pickle makes: an Opaque, where it is not known.

    Parameters
    ----------
    room : Room
        For bytes that are made.
    load : callable
        Reads a storage that stands in the pickle as bytes.
    """
    # What is known takes few; unpacking many, again and again, would take for ever.
    few = isinstance(arguments, (tuple, list)) and len(arguments) <= _MOST_ARGUMENTS
    if not isinstance(function, Global) or not few:
        return Opaque(function, arguments)
    module, name = function
    package = module.partition(".")[0]
    made = None
    if package == "torch":
        made = _torch(name, arguments, load)
    elif package == "numpy":
        made = _numpy(name, arguments)
    elif package == "collections" and name == "OrderedDict":
        made = _ordered(arguments, room)
    elif package == "_codecs" and name == "encode":  # bytes, before protocol 3
        text, encoding = arguments
        if not isinstance(text, (str, LongText)) or encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes in an unknown encoding")
        room.take(len(text))
        made = text.encode("latin-1")
    elif package in ("copyreg", "copy_reg"):
        made = _copyreg(name, arguments)
    elif package in ("builtins", "__builtin__") and name in ("bytes", "bytearray"):
        made = arguments[0] if arguments else b""
    elif package == "joblib":
        raise ValueError("a file of joblib's: load it, and pass on what it has")
    return Opaque(function, arguments) if made is None else made


def _torch(name: str, arguments: Any, load: Callable[[bytes | memoryview], Any]) -> Any:
    for _ in range(4):  # a tensor of another class, which may be a parameter
        if not name.startswith("_rebuild_from_type"):
            break
        function, _cls, arguments, *_state = arguments
        few = isinstance(arguments, (tuple, list)) and len(arguments) <= _MOST_ARGUMENTS
        if not isinstance(function, Global) or not few:
            return None
        name = function.name
    match name, arguments:
        case "_rebuild_tensor" | "_rebuild_tensor_v2", (storage, offset, shape, strides, *more):
            return _strided(storage, None, offset, shape, strides, more[2:])
        case "_rebuild_tensor_v3", (storage, offset, shape, strides, _, _, Global(_, dtype), *more):
            return _strided(storage, dtype, offset, shape, strides, more)
        case (
            (
                "_rebuild_parameter"
                | "_rebuild_parameter_with_state"
                | "Parameter"
                | "_rebuild_device_tensor_from_numpy"
                | "_rebuild_device_tensor_from_cpu_tensor"
                | "_rebuild_xla_tensor"
                | "restore_type_tag"
            ),
            (data, *_),
        ):
            return data
        case "build_tensorlist", _:  # a TorchScript module's parameters once more
            return ()
        case "Size", (shape,):
            return sizes(shape)
        case "_rebuild_qtensor", (
            (storage, offset, shape, strides, (Global(_, scheme), scales, zeros, *axis), *_)
        ):
            numbers = _strided(storage, None, offset, shape, strides, [])
            return QuantisedTensor(numbers, scheme, scales, zeros, axis[0] if axis else None)
        case "_rebuild_qtensor", (_, _, shape, *_):
            return OtherTensor("a quantised tensor", sizes(shape))
        case "_rebuild_sparse_tensor", (_, (_, _, shape, bool() | None)):
            return OtherTensor("a sparse tensor", sizes(shape))
        case "_rebuild_sparse_tensor", (_, (_, _, _, shape)):
            return OtherTensor("a sparse tensor", sizes(shape))
        case "_rebuild_meta_tensor_no_storage", (_, shape, *_):
            return OtherTensor("a tensor without values (of the device meta)", sizes(shape))
        case "_rebuild_wrapper_subclass", (_, _, shape, *_):
            return OtherTensor("a tensor of a class that is not known", sizes(shape))
        case "_rebuild_nested_tensor", _:
            return OtherTensor("a nested tensor", ())
        case "_load_from_bytes", (bytes() | memoryview() as data,):
            return load(data)
    return None


def _strided(
    storage: Any, dtype: str | None, offset: Any, shape: Any, strides: Any, metadata: list[Any]
) -> Strided:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    bits = metadata[0] if metadata and isinstance(metadata[0], dict) else {}
    return Strided(
        storage,
        dtype or storage.dtype,
        _size(offset),
        sizes(shape),
        sizes(strides),
        bits.get("neg") is True,
    )


def _numpy(name: str, arguments: Any) -> Any:
    match name, arguments:
        case "_reconstruct", (_cls, _, _):
            return NumpyArray()
        case "_frombuffer", (data, dtype, shape, order):
            array = NumpyArray()
            array.build((1, shape, dtype, order == "F", data))
            return array
        case "dtype", (str(text), *_):
            return Dtype(text)
        case "dtype", (Global("ml_dtypes", text), *_):
            return Dtype(text)
        case "scalar", (Dtype() as dtype, bytes() | str() as data):
            if not re.fullmatch(r"[fiub]\d", dtype.name):
                return None
            data = data.encode("latin-1") if isinstance(data, str) else data
            return np.frombuffer(data, dtype.numpy(), 1)[0].item()
    return None


def _ordered(arguments: Any, room: Room) -> Any:
    if not arguments:
        return {}
    (pairs,) = arguments  # of Python 2
    if not isinstance(pairs, list):
        return None
    room.take(100 * len(pairs))
    return {as_key(key): value for key, value in pairs}


def _copyreg(name: str, arguments: Any) -> Any:
    match name, arguments:
        case "_reconstructor", (cls, _base, state):
            made = Opaque(cls)
            if isinstance(state, dict):
                made.items = state
            elif isinstance(state, list):
                made.elements = state
            else:
                made.arguments = state
            return made
        case "__newobj__", (cls, *_):
            return Opaque(cls, arguments[1:])
        case "__newobj_ex__", (cls, positional, keywords):
            return Opaque(cls, (positional, keywords))
    return None


# --- where there are more -------------------------------------------------------------------------


def is_module(thing: Any) -> bool:
    """Whether it is a module of torch.nn, or of a class of it."""
    state = getattr(thing, "state", None)
    return isinstance(state, dict) and all(
        isinstance(state.get(part), dict) for part in ("_parameters", "_modules")
    )


def is_packed_parameter(thing: Any) -> bool:
    """Whether it is the module around the weights of a quantised layer and direction."""
    kind = getattr(thing, "type", None)
    return is_module(thing) and isinstance(kind, Global) and is_packed_class(*kind)


def is_script(thing: Any) -> bool:
    """Whether it is a module of TorchScript."""
    kind = getattr(thing, "type", None)
    is_one = isinstance(kind, Global) and kind.module.partition(".")[0] == "__torch__"
    return is_one and isinstance(thing.state, dict)


def contents_of(thing: Any) -> Contents:
    """Return what something in a pickle holds."""
    if isinstance(thing, dict):
        return thing.items()
    if isinstance(thing, (Storage, Strided, QuantisedTensor, OtherTensor, Global)):
        return None
    if isinstance(thing, (list, tuple)):
        return enumerate(thing)
    parts: tuple[Any, ...]
    # Parts that things share are visited once, too.
    if isinstance(thing, NumpyArray):
        parts = (thing.data if isinstance(thing.data, list) else None,)  # an array of objects
    elif not isinstance(thing, Opaque):
        return None
    elif (cell := packed_cell(thing.state)) is not None:
        parts = (cell,)
    elif is_packed_parameter(thing):
        parts = ({PACKED: thing.state[PACKED]},)
    elif is_module(thing):
        parts = tuple(thing.state.get(part) for part in ("_parameters", "_buffers", "_modules"))
    else:
        made_by = thing.type if isinstance(thing.type, Opaque) else None  # a partial function
        parts = (thing.items, thing.elements, *_states(thing.state), thing.arguments, made_by)
    return [(SAME, part) for part in parts if isinstance(part, (dict, list, tuple, Opaque))]


def _states(state: Any) -> tuple[Any, ...]:
    """Attributes in a dictionary and in slots, or whatever a class makes of itself."""
    match state:
        case (None | dict() as attributes, dict() as slots):
            return attributes, slots
    return (state,)
