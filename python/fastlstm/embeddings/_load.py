"""``load``: which format a file has, and its reader."""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from typing import BinaryIO, cast

import numpy.typing as npt

from fastlstm._checks import as_dtype, as_int, readable_path

from . import _fasttext, _saved, _text, _word2vec
from ._embeddings import Embeddings
from ._words import MOST_LINE, Encoding

FORMATS = ("word2vec", "word2vec-binary", "glove", "fasttext", "fasttext-binary", "saved")
_GZIP = b"\x1f\x8b"


def load(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    limit: int | None = None,
    dtype: npt.DTypeLike = "float32",
    encoding: str = "utf-8",
    errors: str = "strict",
) -> Embeddings:
    """Load pretrained word embeddings.

    Parameters
    ----------
    path : path-like
        A file in one of the formats below. Those that are not mapped may be compressed by gzip.
    format : str, optional
        None recognises the format by the content, whatever the file's name:

        - "word2vec": text, a first line with the numbers of words and of dimensions, then lines of
          a word and its numbers. "fasttext" (FastText's .vec files) is the same.
        - "glove": such text without the first line.
        - "word2vec-binary": the first line, then words in text and numbers in binary.
        - "fasttext-binary": a FastText model, .bin. It is mapped into memory. Vectors of words are
          composed from their subwords when they are asked for, also of words that are not in the
          vocabulary.
        - "saved": what :meth:`Embeddings.save` wrote. It is mapped into memory.
    limit : int, optional
        Only so many words, the first, which are mostly the most frequent; the rest is not read. Not
        for FastText models, as words without their own part would get other vectors.
    dtype : "float32" or "float64"
        Of the vectors. Binary formats hold float32; to convert mapped vectors is to read them.
    encoding, errors : str
        As :meth:`bytes.decode` has them, for the words. The encoding must have ASCII in it.

    Returns
    -------
    Embeddings

    Raises
    ------
    ValueError
        The file is none of these, is damaged or truncated: the message says in which line or at
        which byte. A model is quantised or pruned (.ftz). A last line without its line feed counts
        as truncated.
    OSError
        It cannot be read.
    TypeError
        An argument has another type than stated.

    Notes
    -----
    While mapped embeddings live, their file must not be truncated or overwritten; replacing it by
    another file of its name does no harm.
    """
    path = readable_path("path", path)
    if format is not None and format not in FORMATS:
        raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
    most = sys.maxsize if limit is None else as_int("limit", limit, 0, sys.maxsize)
    numbers = as_dtype(dtype)
    text = Encoding(encoding, errors)
    with open(path, "rb") as raw:
        compressed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        file = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if compressed else raw
        try:
            if format is None:
                format = recognise(file.read(MOST_LINE))
                file.seek(0)
            if format in ("fasttext-binary", "saved"):
                if compressed:
                    raise ValueError(f"{format} is mapped into memory: decompress the file first")
                if format == "saved":
                    return Embeddings(*_saved.load(path, most, numbers))
                if limit is not None:
                    raise ValueError("a FastText model cannot be loaded with a limit")
                return _fasttext.load(raw, numbers, text)
            size = None if compressed else os.fstat(raw.fileno()).st_size
            if format == "word2vec-binary":
                words, vectors = _word2vec.read(file, size, most, numbers, text)
            else:
                words, vectors = _text.read(file, format != "glove", most, numbers, text)
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: {error}") from error
    return Embeddings(words, vectors)


def recognise(head: bytes) -> str:
    """Return the name of a format by the beginning of a file, MOST_LINE bytes of it."""
    if head.startswith(_fasttext.MAGIC):
        return "fasttext-binary"
    if _saved.is_one(head):
        return "saved"
    line, newline, rest = head.partition(b"\n")
    sizes = _text.parse_header(line)
    if newline and sizes:
        return "word2vec" if _text.looks_like_text(rest, sizes[1]) else "word2vec-binary"
    if newline and _text.trailing_numbers(line):
        return "glove"
    raise ValueError(
        "no word embeddings that can be recognised: expected text or binary of Word2Vec, text of "
        "GloVe, a FastText model, or what Embeddings.save wrote"
    )
