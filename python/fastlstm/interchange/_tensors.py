"""Tensors in files: described first, read when needed."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


@dataclass
class Tensor:
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], npt.NDArray[Any]]
    """Returns the values, or raises one of DAMAGE."""
