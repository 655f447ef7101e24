"""Checks and conversions of arguments: errors name the argument, what was expected, what came."""

from __future__ import annotations

import errno
import math
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ._foreign import RefusedError, read_array
from ._pieces import copied

FloatArray: TypeAlias = "npt.NDArray[np.floating[Any]]"
IndexArray: TypeAlias = "npt.NDArray[np.int64]"
# The core counts in 32-bit integers where BLAS does.
MOST_SIZE = (2**31 - 1) // 8
# One axis of an expected shape: its size, or a letter for any size.
Axis: TypeAlias = "int | str"


def as_int(name: str, value: Any, least: int, most: int) -> int:
    """Return value as an int within the bounds."""
    try:
        if isinstance(value, bool):  # whoever passes one has mistaken the argument
            raise TypeError
        n = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}") from None
    if not least <= n <= most:
        raise ValueError(f"{name}: expected an integer from {least} to {most}, got {n}")
    return n


def as_bool(name: str, value: Any) -> bool:
    """Return value as a bool; only bools are."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


def as_float(name: str, value: Any) -> float:
    """Return value as a float, of any value."""
    # Text and booleans convert to float, but whoever passes one has mistaken the argument.
    try:
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}") from None
    except OverflowError:  # an integer beyond float64's range
        return math.inf if value > 0 else -math.inf


def as_real(name: str, value: Any, least: float, most: float) -> float:
    """Return value as a float within the bounds."""
    real = as_float(name, value)
    if not least <= real <= most:
        raise ValueError(f"{name}: expected a number from {least:g} to {most:g}, got {real:g}")
    return real


def as_path(name: str, value: Any, expected: str = "str or os.PathLike") -> str:
    """Return a path as text. The number of an open file is none, nor are bytes."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str):
        kind = type(value).__name__
        raise TypeError(f"{name}: expected {expected}, got {kind}")
    if "\0" in path:
        raise ValueError(f"{name}: expected a path without a NUL character, got {path!r}")
    return path


def readable_path(name: str, value: Any, expected: str = "str or os.PathLike") -> str:
    """Return the path of a file that can be read, or raise the system's error.

    Devices and pipes are refused: they have no size, and no place to go back to.
    """
    path = as_path(name, value, expected)
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "Not a regular file", path)
    with open(path, "rb"):
        pass
    return path


def check_mapping(name: str, value: Any) -> None:
    """Raise TypeError unless value is a mapping."""
    if not isinstance(value, Mapping):
        has_one = isinstance(getattr(value, "params", None), Mapping)
        raise TypeError(
            f"{name}: expected a mapping, got {type(value).__name__}"
            + (": pass its params" if has_one else "")
        )


def as_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    # NumPy takes None for float64, as an argument and in comparisons of dtypes.
    try:
        name = None if dtype is None else np.dtype(dtype).str
    except (TypeError, ValueError):
        name = None
    for kind in (np.float32, np.float64):
        if name == np.dtype(kind).str:
            return np.dtype(kind)
    raise ValueError(f"dtype: expected float32 or float64, got {dtype!r}")


def to_numpy(name: str, value: Any) -> npt.NDArray[Any]:
    """Return what NumPy makes of an array, a DLPack or ``__array__`` object, or nested lists."""
    try:
        return read_array(value)
    except MemoryError:
        raise
    except RefusedError as error:
        raise TypeError(f"{name}: expected {error}") from None
    except Exception as error:
        kind = type(value).__name__
        raise TypeError(
            f"{name}: expected an array, got {kind}, which NumPy cannot read: {error}"
        ) from error


def as_float_array(name: str, value: Any, dtype: np.dtype[Any]) -> FloatArray:
    """Return value as a C-contiguous array of dtype: itself if it is one, a copy otherwise.

    Integers and booleans convert; complex numbers, objects and text do not.
    """
    if type(value) is np.ndarray and value.dtype == dtype and value.flags.carray:
        return value  # what most callers pass
    array = to_numpy(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got an array of {array.dtype}")
    # Not ascontiguousarray, which makes a scalar an array of one axis.
    if array.dtype == dtype and array.flags.c_contiguous and array.flags.aligned:
        return np.asarray(array)
    return copied(array, dtype)


def check_shape(name: str, array: npt.NDArray[Any], *expected: Sequence[Axis]) -> None:
    """Raise ValueError unless the array's shape is one of the expected ones."""
    actual = array.shape
    for shape in expected:
        if actual == shape:
            return
    for shape in expected:
        if len(shape) == array.ndim and all(
            isinstance(axis, str) or axis == size
            for axis, size in zip(shape, array.shape, strict=True)
        ):
            return
    texts = " or ".join(shape_text(shape) for shape in expected)
    raise ValueError(f"{name}: expected {texts}, got {shape_text(array.shape)}")


def shape_text(shape: Sequence[Axis]) -> str:
    """Return a shape as Python writes a tuple, letters without quotes."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def as_lengths(value: Any, B: int, T: int) -> IndexArray:
    """Return lengths as a new (B,) array of integers from 0 to T."""
    array = to_numpy("lengths", value)
    if array.size == 0:
        array = array.astype(np.int64)  # an empty list is an array of floats
    if array.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got an array of {array.dtype}")
    check_shape("lengths", array, (B,))
    if array.size and (array.min() < 0 or array.max() > T):
        raise ValueError(
            f"lengths: expected values from 0 to {T}, got {array.min()} to {array.max()}"
        )
    # A copy, so that nobody changes it while the core reads it.
    return np.array(array, dtype=np.int64, order="C", copy=True)


def check_out(name: str, array: Any, dtype: np.dtype[Any], shape: Sequence[int]) -> FloatArray:
    """Return an array of the caller's that results are written to."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array, got {type(array).__name__}")
    if array.dtype != dtype:
        raise TypeError(f"{name}: expected an array of {dtype}, got {array.dtype}")
    check_shape(name, array, shape)
    if not array.flags.carray:  # C-contiguous, writable and aligned
        raise ValueError(f"{name}: expected a writable C-contiguous array")
    return array


def check_apart(outs: Mapping[str, FloatArray], others: Mapping[str, FloatArray | None]) -> None:
    """Raise ValueError where an array to write to shares memory with any other array.

    All are contiguous, so that where they begin and end says it.
    """
    arrays = {**others, **outs}
    spans = []
    for name, array in arrays.items():
        if array is not None and array.size > 0:
            start = array.__array_interface__["data"][0]
            spans.append((start, start + array.nbytes, name))
    # How far those reach that begin before: all of them, and those that are written to.
    furthest = furthest_out = (0, "")
    for start, end, name in sorted(spans):
        reach, other = furthest if name in outs else furthest_out
        if reach > start:
            first, last = sorted((name, other), key=list(arrays).index)
            raise ValueError(f"{last}: expected memory of its own, got some of {first}'s")
        furthest = max(furthest, (end, name))
        if name in outs:
            furthest_out = max(furthest_out, (end, name))
