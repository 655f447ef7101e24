"""Tensors in files: described first, read when needed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

# What reading a damaged file raises, by whatever part of the readers or their libraries. Not
# MemoryError: that the machine has too little says nothing about the file.
DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    EOFError,
    RuntimeError,  # zipfile's too, for passwords, and for features that it lacks
    OSError,  # h5py's; what the system says of the path is found out before
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


class Int8(NamedTuple):
    """A matrix of whole numbers with a scale for each row, as layers store it."""

    values: npt.NDArray[np.int8]
    """(rows, columns)"""
    scales: npt.NDArray[np.float32]
    """(rows,)"""


def symmetric(values: npt.NDArray[Any], scales: npt.NDArray[Any], zeros: npt.NDArray[Any]) -> Int8:
    """Return a matrix of the values ``scales (values - zeros)`` without zero points.

    Parameters
    ----------
    values : ndarray
        (rows, columns) of 8 bits.
    scales, zeros : ndarray
        One for each row, (rows,), or one for all, ().

    Raises
    ------
    ValueError
        Without their zero points the values are none of int8; or a scale is none.
    """
    rows = len(values)
    if values.dtype not in (np.int8, np.uint8, np.int16):
        raise ValueError(f"expected whole numbers of 8 bits, got {values.dtype}")
    if any(array.shape not in ((), (rows,)) for array in (scales, zeros)):
        raise ValueError(f"expected scales and zero points {(rows,)}, got {scales.shape}")
    scales = np.broadcast_to(scales, rows).astype(np.float32)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise ValueError("expected scales that are finite and not negative")
    # Of zero points that are no numbers of 8 bits, all are beyond.
    zeros = np.clip(np.broadcast_to(zeros, rows), -512, 512).astype(np.int16)
    moved = values.astype(np.int16) - zeros[:, np.newaxis]
    low, high = moved.min(initial=0), moved.max(initial=0)
    if low < -128 or high > 127:
        raise ValueError(
            f"less their zero points, the whole numbers reach from {low} to {high}: expected -128 "
            "to 127, which int8 holds"
        )
    return Int8(moved.astype(np.int8), scales)


@dataclass
class Tensor:
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[Any]]
    """Returns the values, or raises one of DAMAGE."""
    read_int8: Callable[[], Int8] | None = None
    """The same of a quantised tensor, whose `read` raises."""
