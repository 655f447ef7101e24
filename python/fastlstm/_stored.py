"""Numbers as files store them, and how much a file may ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import FloatArray

# How files call the types that layers can hold, exactly or converted without loss.
FLOATS = {"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2"}


def as_layers_float(array: npt.NDArray[Any], dtype: str) -> FloatArray:
    """Return values, as they are stored in memory for a type of FLOATS, as float32 or float64."""
    if dtype == "bfloat16":  # the upper half of a float32
        wide = np.empty(array.shape, np.float32)
        wide.view(np.uint32)[...] = array
        wide.view(np.uint32)[...] <<= 16
        return wide
    return array.astype(np.float64 if dtype == "float64" else np.float32, copy=False)


class Room:
    """What is left of the memory that a file may take: four times its size, and 64 MB.

    A layer has its parameters twice, as arrays and packed: what is read counts twice.

    Parameters
    ----------
    size : int
        The file's, in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = 4 * size + (60 << 20)

    def take(self, size: int) -> None:
        """Raise ValueError unless there is so much room, before it is filled."""
        self._left -= size
        if self._left < 0:
            raise ValueError(
                "it describes more than a file of its size can hold (4 times that, and 64 MB)"
            )
