"""What the readers share: bounds against damage, words as bytes, vectors that become more."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray

# Far above any embeddings, so that beyond them is damage; they bound what damage can take.
MOST_DIM = 1 << 16
MOST_WORD = 1 << 16  # bytes
MOST_LINE = 32 * MOST_DIM  # bytes
BLOCK = 1 << 19  # bytes that are read at a time: of the shortest lines a hundredfold is taken
_ASCII = b"az 09\t\r\n"


@dataclass(frozen=True)
class Encoding:
    """How words are written, and what to do with those that are not."""

    name: str
    errors: str

    def __post_init__(self) -> None:
        try:
            codecs.lookup(self.name)
            codecs.lookup_error(self.errors)
            has_ascii = _ASCII.decode(self.name) == _ASCII.decode()
        except (LookupError, TypeError, UnicodeDecodeError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"encoding, errors: {error}") from None
        if not has_ascii:
            raise ValueError(f"encoding: expected one that has ASCII in it, got {self.name!r}")

    def decode(self, word: bytes, place: str) -> str:
        """Return a word as text; place says in errors where in the file it is."""
        try:
            return word.decode(self.name, self.errors)
        except UnicodeDecodeError as error:
            raise ValueError(f"{place}: a word that is not {self.name}: {error}") from error

    def encode(self, word: str) -> bytes:
        """Return a word as it would be in a file."""
        return word.encode(self.name, "replace")


def check_dim(dim: int, place: str) -> int:
    """Return the number of dimensions if it can be one."""
    if not 1 <= dim <= MOST_DIM:
        raise ValueError(f"{place}: expected from 1 to {MOST_DIM} dimensions, got {dim}")
    return dim


class Rows:
    """A (V, dim) array that grows, in place where the system can: V is only known at the end."""

    def __init__(self, dim: int, dtype: np.dtype[Any]) -> None:
        self._array = np.empty((0, dim), dtype)
        self._count = 0

    def append(self, rows: FloatArray) -> None:
        """Add (n, dim) rows."""
        count = self._count + len(rows)
        if count > len(self._array):
            self._resize(max(count, len(self._array) * 5 // 4))
        self._array[self._count : count] = rows
        self._count = count

    def finish(self) -> FloatArray:
        """Return all rows."""
        self._resize(self._count)
        return self._array

    def _resize(self, count: int) -> None:
        self._array.resize((count, self._array.shape[1]), refcheck=False)
