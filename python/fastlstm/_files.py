"""Files that are read in parts, one after the other."""

from __future__ import annotations

import errno
import io
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

_AT_ONCE = 8 << 20  # bytes


def map_file(descriptor: int) -> mmap.mmap:
    """Return all of an open file, mapped into memory.

    Raises
    ------
    MemoryError
        There is no room, which says nothing about the file.
    ValueError, OSError
        It is empty, or cannot be mapped.
    """
    try:
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno != errno.ENOMEM:
            raise
        size = os.fstat(descriptor).st_size
        raise MemoryError(f"no room to map a file of {size} bytes") from None


class _QuietFile(io.FileIO):
    """What the collector closes without a warning."""

    # In C: an exception of a signal's handler would be lost in a function of Python's.
    __del__ = io.FileIO.close


class HeldFile:
    """A file, open until nobody holds it: what takes its name's place meanwhile is another.

    Parameters
    ----------
    path : str
        Its name, for errors afterwards.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._file = _QuietFile(path)
        self._descriptor = self._file.fileno()
        self.size = os.fstat(self._descriptor).st_size

    def at(self, offset: int) -> io.BufferedReader:
        """Return it at a place, for a ``with`` block."""
        file = open(self._descriptor, "rb", closefd=False)  # noqa: SIM115
        file.seek(offset)
        return file

    def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes, or those that there are."""
        with self.at(offset) as file:
            return file.read(size)

    def values(
        self, offset: int, dtype: npt.DTypeLike, shape: int | tuple[int, ...]
    ) -> npt.NDArray[Any]:
        """Return an array that owns its memory; of a file that is cut, the numbers that there are.

        In pieces, which let signals in between them. What their handlers raise stays what it is,
        which it would not in np.fromfile.
        """
        array = np.empty(shape, dtype)
        values = array.reshape(-1)
        rest = values.view(np.uint8).data
        with self.at(offset) as file:
            while rest and (size := file.readinto(rest[:_AT_ONCE])):
                rest = rest[size:]
        return values[: (values.nbytes - len(rest)) // values.itemsize] if rest else array

    def mapped(self) -> mmap.mmap:
        """Return all of it, mapped into memory. Empty files cannot be (ValueError)."""
        return map_file(self._descriptor)
