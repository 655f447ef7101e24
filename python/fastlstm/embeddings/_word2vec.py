"""Word2Vec's binary files: a header, then each word, a space, and its numbers as float32.

Words are of any length, so the vectors lie at no regular distance and cannot be mapped as an array:
they are read. What ``Embeddings.save`` writes can be mapped.
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from fastlstm._checks import FloatArray

from ._text import parse_header, trailing_numbers
from ._words import BLOCK, MOST_WORD, Encoding, Rows, check_dim


def read(
    file: BinaryIO, size: int | None, limit: int, dtype: np.dtype[Any], encoding: Encoding
) -> tuple[list[str], FloatArray]:
    """Return words and (V, dim) vectors; size is the file's in bytes, if it is known."""
    line = file.readline(100)
    sizes = parse_header(line.removesuffix(b"\n")) if line.endswith(b"\n") else None
    if sizes is None:
        raise ValueError("line 1: expected the numbers of words and of dimensions")
    count, dim = sizes
    check_dim(dim, "line 1")
    width = 4 * dim
    if size is not None and len(line) + count * (1 + width) > size:
        raise ValueError(
            f"line 1: {count} words of {dim} numbers are more than the file's {size} bytes"
        )
    words: list[str] = []
    rows = Rows(dim, dtype)
    # Some bytes of the file, and where the next word begins in them.
    data, position = file.read(BLOCK), 0
    offset = len(line)  # of data in the file
    # Text, which binary numbers would be made of; a single number may look like text.
    if dim > 1 and trailing_numbers(data.partition(b"\n")[0]) >= dim:
        raise ValueError("line 2: expected binary numbers, got text")
    wanted = min(count, limit)
    while len(words) < wanted:
        vectors = []
        while len(words) < wanted:
            while data.startswith(b"\n", position):  # the end of the vector before
                position += 1
            space = data.find(b" ", position)
            if (space if space >= 0 else len(data)) - position > MOST_WORD:
                raise ValueError(
                    f"byte {offset + position}: expected a word, got more than {MOST_WORD} bytes "
                    "without a space"
                )
            end = space + 1 + width
            if space < 0 or end > len(data):
                break
            word = data[position:space]
            if b"\n" in word or b"\0" in word:  # after a word with a space within
                raise ValueError(
                    f"byte {offset + position}: expected a word, got {word[:40]!r}: numbers are "
                    "taken for a part of it, as where the word before has a space within"
                )
            words.append(encoding.decode(word, f"byte {offset + position}"))
            vectors.append(data[space + 1 : end])
            position = end
        if vectors:
            rows.append(np.frombuffer(b"".join(vectors), "<f4").reshape(-1, dim))
        if len(words) < wanted:
            block = file.read(BLOCK)
            if not block:
                raise ValueError(
                    f"byte {offset + len(data)}: the file ends after {len(words)} of the {count} "
                    "words that its first line says"
                )
            offset += position
            data, position = data[position:] + block, 0
    if wanted == count and (data[position:] + file.read(1)).strip(b"\n"):
        raise ValueError(
            f"byte {offset + position}: expected the end of the file after {count} words"
        )
    return words, rows.finish()
