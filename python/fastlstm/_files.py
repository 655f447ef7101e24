"""Files that are read in parts, one after the other."""

from __future__ import annotations

import mmap
import os
from typing import BinaryIO


class HeldFile:
    """A file, open until nobody holds it: what takes its name's place meanwhile is another.

    Parameters
    ----------
    path : str
        Its name, for errors afterwards.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def at(self, offset: int) -> BinaryIO:
        """Return it at a place, for a ``with`` block."""
        file = open(self._descriptor, "rb", closefd=False)  # noqa: SIM115
        file.seek(offset)
        return file

    def read(self, offset: int, size: int) -> bytes:
        """Return so many bytes, or those that there are."""
        with self.at(offset) as file:
            return file.read(size)

    def mapped(self) -> mmap.mmap:
        """Return all of it, mapped into memory. Empty files cannot be (ValueError)."""
        return mmap.mmap(self._descriptor, 0, access=mmap.ACCESS_READ)
