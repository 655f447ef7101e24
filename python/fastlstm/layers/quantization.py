"""Small weights: bfloat16, and int8 with a scale for each row."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray
from fastlstm._pieces import pieces_of
from fastlstm._stored import as_layers_float

from .public import public

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
