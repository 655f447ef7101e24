"""Tensors in files: described first, read when needed."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from fastlstm._stored import FLOATS as FLOATS
from fastlstm._stored import as_layers_float as as_layers_float

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


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return a file of an archive. Compressed ones are refused: they could be of any size."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"{name} is compressed")
    if info.file_size > os.path.getsize(str(archive.filename)):  # room is made before it is read
        raise ValueError(f"{name} is larger than the file")
    return archive.read(info)
