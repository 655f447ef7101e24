"""Text: lines of a word and its numbers, as GloVe, and below a header as Word2Vec and FastText.

Words may have spaces within (GloVe's have), so the numbers are found from the end of a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from fastlstm._checks import FloatArray

from ._words import BLOCK, MOST_LINE, Encoding, Rows, check_dim

_HEADER = re.compile(rb" *([0-9]{1,18}) +([0-9]{1,18}) *\r?")
_END = b" \r"  # what may follow the last number
_NUMERIC = frozenset(b"0123456789+-.eEnaifNAIF \r")


def parse_header(line: bytes) -> tuple[int, int] | None:
    """Return the numbers of words and of dimensions from a first line, if these are what it has."""
    match = _HEADER.fullmatch(line)
    return (int(match[1]), int(match[2])) if match else None


def trailing_numbers(line: bytes) -> int:
    """Return how many numbers follow a word."""
    fields = line.rstrip(_END).split(b" ")
    count = 0
    while count < len(fields) - 1 and _is_number(fields[-1 - count]):
        count += 1
    return count


def looks_like_text(rest: bytes, dim: int) -> bool:
    """Whether what follows a header is text. Binary vectors are what text is not by any chance."""
    if not rest:
        return True
    line = rest.partition(b"\n")[0]
    numbers = line.partition(b" ")[2]
    if len(numbers) >= 2 * dim - 1 and _NUMERIC.issuperset(numbers):  # though they may be too few
        return True
    return trailing_numbers(line) >= dim


def read(
    file: BinaryIO, header: bool, limit: int, dtype: np.dtype[Any], encoding: Encoding
) -> tuple[list[str], FloatArray]:
    """Return words and (V, dim) vectors."""
    blocks = _blocks(file)
    number, lines = next(blocks, (1, []))
    expected = None
    if header:
        sizes = parse_header(lines[0]) if lines else None
        if sizes is None:
            raise ValueError("line 1: expected the numbers of words and of dimensions")
        expected, dim = sizes
        check_dim(dim, "line 1")
        number, lines = 2, lines[1:]
    else:
        dim = check_dim(trailing_numbers(lines[0]) if lines else 0, "line 1")
    words: list[str] = []
    rows = Rows(dim, dtype)
    while True:
        lines = lines[: limit - len(words)]
        if lines:
            names, vectors = _parse(lines, number, dim, dtype)
            words += [encoding.decode(w, f"line {number + n}") for n, w in enumerate(names)]
            rows.append(vectors)
        if len(words) == limit:
            return words, rows.finish()
        last = number + len(lines) - 1
        if expected is not None and len(words) > expected:
            raise ValueError(f"line {last}: the first line says {expected} words, there are more")
        try:
            number, lines = next(blocks)
        except StopIteration:
            break
    if expected is not None and len(words) < expected:
        raise ValueError(
            f"line {last}: the file ends after {len(words)} of the {expected} words that the first "
            "line says"
        )
    return words, rows.finish()


def _blocks(file: BinaryIO) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the number of a first line (from 1), and some whole lines without their ends."""
    number = 1
    begun = b""
    while block := file.read(BLOCK):
        *lines, begun = (begun + block).split(b"\n")
        if len(begun) > MOST_LINE:
            raise ValueError(f"line {number + len(lines)}: longer than {MOST_LINE} bytes")
        if lines:
            yield number, lines
        number += len(lines)
    if begun:
        raise ValueError(f"line {number}: it has no end, the file was truncated")


def _parse(
    lines: list[bytes], number: int, dim: int, dtype: np.dtype[Any]
) -> tuple[list[bytes], FloatArray]:
    words, tails = [], []
    for n, line in enumerate(lines):
        word, _, tail = line.partition(b" ")
        tail = tail.rstrip(_END)
        if not tail or tail.count(b" ") != dim - 1:
            word, tail = _split(line, number + n, dim)
        words.append(word)
        tails.append(tail)
    # ASCII: what else there is becomes what is no number.
    texts = b"\n".join(tails).decode("ascii", "replace").split("\n")
    try:
        vectors = np.loadtxt(texts, dtype, comments=None, delimiter=" ", ndmin=2)
    except ValueError as error:
        for n, tail in enumerate(tails):
            for field in tail.split(b" "):
                if not _is_number(field):
                    text = repr(field[:40])[1:]
                    raise ValueError(f"line {number + n}: expected a number, got {text}") from None
        last = number + len(lines) - 1
        raise ValueError(f"between line {number} and line {last}: {error}") from error
    return words, vectors


def _split(line: bytes, number: int, dim: int) -> tuple[bytes, bytes]:
    """Split a line that is not one word and `dim` fields."""
    word, *fields = line.rstrip(_END).rsplit(b" ", dim)
    if len(fields) < dim:
        raise ValueError(f"line {number}: expected a word and {dim} numbers, got {len(fields)}")
    if b" " in word and _is_number(word.rpartition(b" ")[2]):
        raise ValueError(f"line {number}: expected a word and {dim} numbers, got more")
    return word, b" ".join(fields)


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field
