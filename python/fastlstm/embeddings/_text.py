"""Text: lines of a word and its numbers, as GloVe, and below a header as Word2Vec and FastText.

Spaces and tabs are between them, one or more. Words may have spaces within (GloVe's have), so the
numbers are found from the end of a line. What could be read in another way is refused.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from fastlstm._checks import FloatArray

from ._words import BLOCK, MOST_DIM, MOST_LINE, Encoding, Rows, check_dim

_HEADER = re.compile(rb"[ \t]*([0-9]{1,18})[ \t]+([0-9]{1,18})[ \t]*\r?")
_END = b" \t\r"  # what may follow the last number
# A part of a word that may be a number, in another notation, too: "0,1", "[0.1", "0x1p-4", "1.5f".
_NUMBER_IN_WORD = re.compile(
    rb" ([^0-9A-Za-z ]*[0-9][^ ]*|[-+]?(?:nan|inf|infinity)(?![^ ]))", re.IGNORECASE
)
# Control characters, which binary numbers have and text has not.
_BINARY = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
_OTHER_UNICODE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # or 32 LE


def without_mark(head: bytes) -> bytes:
    """Return the beginning of a file without its byte-order mark, if that is UTF-8's."""
    if head.startswith(_OTHER_UNICODE):
        raise ValueError("text in UTF-16 or UTF-32: convert the file to UTF-8")
    return head.removeprefix(codecs.BOM_UTF8)


def parse_header(line: bytes) -> tuple[int, int] | None:
    """Return the numbers of words and of dimensions from a first line, if these are what it has."""
    match = _HEADER.fullmatch(line)
    return (int(match[1]), int(match[2])) if match else None


def trailing_numbers(line: bytes) -> int:
    """Return how many numbers follow a word; not more than tell that they are too many."""
    fields = (field for field, _ in _from_the_end(line.rstrip(_END)))
    return sum(1 for _ in itertools.takewhile(_is_number, itertools.islice(fields, MOST_DIM + 1)))


def looks_like_text(rest: bytes, dim: int) -> bool:
    """Whether what follows a header is text: if in doubt it is, as its reader refuses the binary.

    Binary numbers that have no byte but those of text are few and short.
    """
    if trailing_numbers(rest.partition(b"\n")[0]) >= dim:
        return True
    numbers = rest.partition(b" ")[2][: 4 * dim]
    try:
        codecs.getincrementaldecoder("utf-8")().decode(numbers)  # which may end within a letter
    except UnicodeDecodeError:
        return False
    return _BINARY.search(numbers) is None


def read(
    file: BinaryIO, header: bool, limit: int, dtype: np.dtype[Any], encoding: Encoding
) -> tuple[list[str], FloatArray, bool]:
    """Return words, (V, dim) vectors, and whether the last number may have been cut off."""
    blocks = _blocks(file)
    number, lines, has_end = next(blocks, (1, [], True))
    expected = None
    if header:
        sizes = parse_header(lines[0]) if lines else None
        if sizes is None:
            raise ValueError("line 1: expected the numbers of words and of dimensions")
        expected, dim = sizes
        check_dim(dim, "line 1")
        number, lines = 2, lines[1:]
    else:
        if not has_end:
            raise ValueError("line 1: it has no end: some of its numbers may have been cut off")
        dim = check_dim(trailing_numbers(lines[0]) if lines else 0, "line 1")
    words: list[str] = []
    rows = Rows(dim, dtype)
    while True:
        wanted = lines[: limit - len(words)]
        if wanted:
            names, vectors = _parse(wanted, number, dim, dtype)
            if number == 1 and b"." in names[0] and _is_number(names[0]):
                raise ValueError("line 1: expected a word and numbers, got numbers alone")
            words += [encoding.decode(w, f"line {number + n}") for n, w in enumerate(names)]
            rows.append(vectors)
        if len(words) == limit:
            break
        last = number + len(lines) - 1
        if expected is not None and len(words) > expected:
            raise ValueError(f"line {last}: the first line says {expected} words, there are more")
        following = next(blocks, None)
        if following is None:
            if expected is not None and len(words) < expected:
                raise ValueError(
                    f"line {last}: the file ends after {len(words)} of the {expected} words that "
                    "the first line says"
                )
            break
        number, lines, has_end = following
    # A space after the last number would be its end.
    may_be_cut = not has_end and wanted == lines != [] and lines[-1][-1:] not in _END
    return words, rows.finish(), may_be_cut


def _blocks(file: BinaryIO) -> Iterator[tuple[int, list[bytes], bool]]:
    """Yield the number of a first line (from 1), some lines, and whether the last has an end.

    Lines at the end of the file that have nothing are left out.
    """
    number = 1
    empty: int | None = None  # the first of the empty lines that were left out
    begun, block = b"", without_mark(file.read(BLOCK))
    while begun or block:
        *lines, begun = (begun + block).split(b"\n")
        if len(begun) > MOST_LINE:
            raise ValueError(f"line {number + len(lines)}: longer than {MOST_LINE} bytes")
        if not block:  # the end of the file
            lines, begun = [begun], b""
        count = len(lines)
        while lines and not lines[-1].strip(_END):
            lines.pop()
        if lines:
            if empty is not None:
                raise ValueError(f"line {empty}: expected a word and numbers, got nothing")
            yield number, lines, bool(block)
        if len(lines) < count and empty is None:
            empty = number + len(lines)
        number += count
        block = file.read(BLOCK)


def _parse(
    lines: list[bytes], number: int, dim: int, dtype: np.dtype[Any]
) -> tuple[list[bytes], FloatArray]:
    words, tails = [], []
    for n, line in enumerate(lines):
        line = line.rstrip(_END)
        spaced = line.replace(b"\t", b" ")
        word, _, tail = spaced.partition(b" ")
        if not word or spaced.count(b" ") != dim or b"  " in spaced:
            word, tail = _split(line, number + n, dim)
        words.append(word)
        tails.append(tail)
    joined = b" ".join(words)
    for what, name in ((b"\r", "a carriage return"), (b"\0", "a NUL byte, as UTF-16 has")):
        if what in joined:
            n = next(n for n, word in enumerate(words) if what in word)
            raise ValueError(f"line {number + n}: expected a word, got {name} within")
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
    _check_range(vectors, tails, number)
    return words, vectors


def _split(line: bytes, number: int, dim: int) -> tuple[bytes, bytes]:
    """Split a line that is not one word and `dim` fields with a space or tab between."""
    by_tabs = line.split(b"\t")
    if len(by_tabs) == 1 + dim and all(by_tabs) and b" " not in b"".join(by_tabs[1:]):
        return by_tabs[0], b" ".join(by_tabs[1:])  # spaces and numbers are the word's
    fields = list(itertools.islice(_from_the_end(line), dim))
    if len(fields) < dim:
        raise ValueError(f"line {number}: expected a word and {dim} numbers, got {len(fields)}")
    word = line[: fields[-1][1]]
    if not word or b"\t" in word or word.startswith(b" "):
        raise ValueError(f"line {number}: expected a word, got a tab within it or a space before")
    if more := _NUMBER_IN_WORD.search(word):
        text = repr(more[1][:40])[1:]
        raise ValueError(f"line {number}: expected a word and {dim} numbers, got more: {text}")
    return word, b" ".join(field for field, _ in reversed(fields))


def _from_the_end(line: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield all fields of a line but the first, from the last, and where what is before ends."""
    spaced = line.replace(b"\t", b" ")
    end = len(line)
    while (begin := spaced.rfind(b" ", 0, end)) >= 0:
        field = line[begin + 1 : end]
        end = begin
        while spaced.endswith(b" ", 0, end):
            end -= 1
        yield field, end


def _check_range(vectors: FloatArray, tails: list[bytes], number: int) -> None:
    """Raise ValueError where a number became infinity."""
    infinite = np.isinf(vectors)
    for n in np.flatnonzero(infinite.any(axis=1)):
        for field, is_infinite in zip(tails[n].split(b" "), infinite[n], strict=True):
            if is_infinite and b"inf" not in field.lower():
                text = repr(field[:40])[1:]
                raise ValueError(f"line {number + n}: {text} is beyond {vectors.dtype}'s range")


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return b"_" not in field
