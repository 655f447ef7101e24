"""Small weights: bfloat16, and int8 with a scale for each row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, check_mapping, check_shape
from fastlstm._pieces import pieces_of
from fastlstm._stored import as_layers_float

from . import core
from .public import public
from .spec import SCALE, Spec

# Arrays as a layer keeps them, by name.
Stored = Mapping[str, npt.NDArray[Any]]

# Of weights, what inputs may be.
_ACTIVATIONS = {"bfloat16": ("float32", "bfloat16"), "int8": ("float32", "int8")}
_DTYPES: dict[str, np.dtype[Any]] = {"bfloat16": np.dtype(np.uint16), "int8": np.dtype(np.int8)}
# The parameters that inputs are multiplied with; all others stay as they are.
_WEIGHTS = ("weight_ih", "weight_hh", "weight_hr")
# So many products of int8 have a sum of 32 bits, whatever their values are.
_MOST_INT8_INPUTS = 65536
_MOST_INT8 = 127
_LEAST_NORMAL = np.finfo(np.float32).tiny


@public
class Quantization(NamedTuple):
    """How a layer's weights are stored, and what its products multiply them with."""

    weights: str
    """``bfloat16`` or ``int8``."""
    activations: str = "float32"
    """``float32``, ``bfloat16`` or ``int8``."""


def as_bfloat16(values: FloatArray) -> npt.NDArray[np.uint16]:
    """Round float32 to bfloat16, the nearest or the even one; beyond the largest it is infinity.

    Returns
    -------
    ndarray of uint16
        The upper half of each float32. NaN stays NaN.
    """
    rounded = np.empty(values.shape, np.uint16)
    for rows in pieces_of(rounded):
        bits = np.ascontiguousarray(values[rows], np.float32).view(np.uint32)
        to_even = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        rounded[rows] = np.where(np.isnan(values[rows]), (bits >> 16) | 0x40, to_even)
    return rounded


def from_bfloat16(values: npt.NDArray[np.uint16]) -> FloatArray:
    """Return the same values as float32."""
    return as_layers_float(values, "bfloat16")


def as_int8(values: FloatArray) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Round the rows of a float32 matrix to int8, each with the scale of its largest value.

    Returns
    -------
    ndarray of int8, ndarray of float32
        q and scale: a row is about q * scale. Where the scale is no normal number, both are 0.

    Raises
    ------
    ValueError
        A value is NaN or infinite.
    """
    rounded = np.empty(values.shape, np.int8)
    scale = np.empty(values.shape[0], np.float32)
    for rows in pieces_of(rounded):
        some = np.asarray(values[rows], np.float32)
        if not np.isfinite(some).all():
            wrong = some[~np.isfinite(some)][0]
            raise ValueError(f"expected finite values for int8, got {wrong}")
        largest = np.abs(some).max(axis=1, initial=0.0)
        with np.errstate(under="ignore"):
            of_rows = largest / np.float32(_MOST_INT8)
        none = of_rows < _LEAST_NORMAL
        of_rows[none] = 0.0
        divisor = np.where(none, np.float32(np.inf), of_rows)[:, None]
        q = np.clip(np.rint(some / divisor), -_MOST_INT8, _MOST_INT8)
        rounded[rows] = q.astype(np.int8)
        scale[rows] = of_rows
    return rounded, scale


def as_quantization(spec: Spec, weights: Any, activations: Any) -> Quantization:
    """Return how weights are stored and multiplied.

    Raises
    ------
    ValueError
        There is no such way, or not for such a layer.
    """
    if not isinstance(weights, str) or weights not in _ACTIVATIONS:
        raise ValueError(f"weights: expected 'bfloat16' or 'int8', got {weights!r}")
    names = _ACTIVATIONS[weights]
    if not isinstance(activations, str) or activations not in names:
        expected = " or ".join(repr(name) for name in names)
        raise ValueError(
            f"activations: expected {expected} for weights of {weights}, got {activations!r}"
        )
    if spec.dtype != np.float32:
        raise ValueError(f"dtype: expected float32 for small weights, got {spec.dtype}")
    widest = max(shape[1] for shape in spec.shapes.values() if len(shape) == 2)
    if activations == "int8" and widest > _MOST_INT8_INPUTS:
        raise ValueError(
            f"activations: expected at most {_MOST_INT8_INPUTS} inputs of a product of int8, "
            f"got {widest}"
        )
    return Quantization(weights, activations)


def with_quantization(config: core.Config, quantization: Quantization) -> core.Config:
    """Return what the core is told of such a layer."""
    return {**config, "arithmetic": tuple(quantization)}


def _small_names(spec: Spec) -> list[str]:
    return [p.name for cell in spec.parameters for kind, p in cell.items() if kind in _WEIGHTS]


def stored_values(
    spec: Spec, quantization: Quantization, values: Mapping[str, FloatArray]
) -> dict[str, npt.NDArray[Any]]:
    """Return the parameters of a layer as a quantized one keeps them.

    Raises
    ------
    ValueError
        A weight is NaN or infinite, and there is no int8 for it.
    """
    small = set(_small_names(spec))
    stored: dict[str, npt.NDArray[Any]] = {}
    for name in spec.shapes:
        if name not in small:
            stored[name] = values[name].copy()
        elif quantization.weights == "bfloat16":
            stored[name] = as_bfloat16(values[name])
        else:
            try:
                stored[name], stored[name + SCALE] = as_int8(values[name])
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return stored


def own_stored(
    spec: Spec, quantization: Quantization, stored: Stored
) -> dict[str, npt.NDArray[Any]]:
    """Return all arrays of a quantized layer in order: those that own their memory, or copies.

    Raises
    ------
    ValueError
        Names, shapes or types are not such a layer's.
    """
    check_mapping("stored", stored)
    small = set(_small_names(spec))
    expected: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    float32: np.dtype[Any] = np.dtype(np.float32)
    of_weights = _DTYPES[quantization.weights]
    for name, shape in spec.shapes.items():
        expected[name] = shape, of_weights if name in small else float32
        if name in small and quantization.weights == "int8":
            expected[name + SCALE] = shape[:1], float32
    missing = [name for name in expected if name not in stored]
    unexpected = [str(name) for name in stored if name not in expected]
    if missing or unexpected:
        raise ValueError(
            f"stored: expected the arrays of a layer with weights of {quantization.weights}; "
            f"missing: {', '.join(missing) or 'none'}; "
            f"unexpected: {', '.join(unexpected) or 'none'}"
        )
    own = {}
    for name, (shape, dtype) in expected.items():
        array = np.asarray(stored[name])
        check_shape(name, array, shape)
        if array.dtype != dtype:
            raise ValueError(f"{name}: expected {dtype}, got {array.dtype}")
        if name.endswith(SCALE) and not ((array >= 0) & np.isfinite(array)).all():
            raise ValueError(f"{name}: expected finite scales of at least 0")
        keeps = array.flags.owndata and array.flags.c_contiguous
        own[name] = array if keeps else np.array(array, order="C")
    return own


class WidenedParams(Mapping[str, FloatArray]):
    """The parameters that a quantized layer computes with, by PyTorch's names.

    Each is made anew as often as it is asked for, and nobody keeps it: float32 arrays that are not
    to be written to.
    """

    def __init__(self, spec: Spec, stored: Stored) -> None:
        self._names = tuple(spec.shapes)
        self._stored = stored

    def __getitem__(self, name: str) -> FloatArray:
        if name not in self._names:
            raise KeyError(name)
        array = self._stored[name]
        if array.dtype == np.float32:
            return array
        if array.dtype == np.uint16:
            wide = from_bfloat16(array)
        else:
            wide = array.astype(np.float32) * self._stored[name + SCALE][:, None]
        return core.read_only(wide)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
