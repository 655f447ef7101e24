"""``load``: which format a file has, and its reader."""

from __future__ import annotations

import gzip
import os
import re
import sys
import warnings
import zlib
from typing import BinaryIO, cast

import numpy.typing as npt

from fastlstm._checks import as_dtype, as_int, readable_path
from fastlstm._kinds import what_it_is_instead

from . import _fasttext, _saved, _text, _word2vec
from ._embeddings import Embeddings
from ._words import MOST_LINE, Encoding

FORMATS = ("word2vec", "word2vec-binary", "glove", "fasttext", "fasttext-binary", "saved")
_GZIP = b"\x1f\x8b"
# Vectors compress to a third or half; so much more only where it is made to be too much.
_MOST_RATIO = 64
_ALWAYS = 1 << 20  # bytes that a small file may have all the same
_ARCHIVE = "an archive ({}): extract the file of vectors first"
_OTHERS = {
    b"PK\x03\x04": _ARCHIVE.format("zip"),
    b"PK\x05\x06": _ARCHIVE.format("zip"),
    b"7z\xbc\xaf": _ARCHIVE.format("7z"),
    b"Rar!": _ARCHIVE.format("rar"),
    _GZIP: "compressed by gzip twice: decompress the file first",
    b"BZh": "compressed by bzip2: decompress the file first",
    b"\xfd7zXZ": "compressed by xz: decompress the file first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: decompress the file first",
    b"\x80": "a pickle, as gensim's save writes: have gensim write it by save_word2vec_format",
    b"\x93NUMPY": "a NumPy array, which has no words",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database",
}
_UTF_16 = re.compile(rb"([^\0]\0){4}|(\0[^\0]){4}")


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
        which byte. A model is quantised or pruned (.ftz). Compressed, it is less than a 64th.
    OSError
        It cannot be read.
    TypeError
        An argument has another type than stated.

    Warns
    -----
    UserWarning
        The last line of text has no line feed: its last number may have been cut off.

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
    may_be_cut, is_recognised, head = False, False, None
    with open(path, "rb") as raw:
        compressed = raw.read(len(_GZIP)) == _GZIP
        raw.seek(0)
        file = cast(BinaryIO, _Gzip(raw)) if compressed else raw
        try:
            head = file.read(MOST_LINE)
            file.seek(0)
            is_recognised, format = format is None, format or recognise(head)
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
                has_header = format != "glove"
                words, vectors, may_be_cut = _text.read(file, has_header, most, numbers, text)
        except (ValueError, EOFError, gzip.BadGzipFile, zlib.error) as error:
            instead = None if head is None else what_it_is_instead(head) or _another_format(head)
            what = instead or str(error)
            if what.startswith("Not a gzipped file"):
                what = "what follows its compressed data is not gzip's"
            elif is_recognised and head is not None and _may_have_no_header(head):
                what += '; if its first line is a word and its number, pass format="glove"'
            raise ValueError(f"{path}: {what}") from error
    if may_be_cut:
        warnings.warn(
            f"{path}: its last line has no end: the last number may have been cut off", stacklevel=2
        )
    return Embeddings(words, vectors)


class _Gzip(gzip.GzipFile):
    """A compressed file that gives no more than one of vectors can hold."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__(fileobj=raw)
        self._most = _MOST_RATIO * os.fstat(raw.fileno()).st_size + _ALWAYS

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if self.tell() > self._most:
            raise ValueError(f"decompressed, it is more than {_MOST_RATIO} times as large")
        return data


def _may_have_no_header(head: bytes) -> bool:
    """Whether the first lines may be a word and a number each, the first a number, too."""
    first, second, *_ = (*head.split(b"\n", 2), b"")
    return _text.parse_header(first) is not None and _text.trailing_numbers(second) == 1


def _another_format(head: bytes) -> str | None:
    """Say what else a file is by its first bytes."""
    if _UTF_16.match(head):
        return "text in UTF-16: convert the file to UTF-8"
    if head[257:262] == b"ustar":
        return _ARCHIVE.format("tar")
    return next((what for magic, what in _OTHERS.items() if head.startswith(magic)), None)


def recognise(head: bytes) -> str:
    """Return the name of a format by the beginning of a file, MOST_LINE bytes of it."""
    if head.startswith(_fasttext.MAGIC):
        return "fasttext-binary"
    if _saved.is_one(head):
        return "saved"
    line, _, rest = _text.without_mark(head).partition(b"\n")
    sizes = _text.parse_header(line)
    if sizes:
        return "word2vec" if _text.looks_like_text(rest, sizes[1]) else "word2vec-binary"
    if _text.trailing_numbers(line):
        return "glove"
    raise ValueError(
        "no word embeddings that can be recognised: expected text or binary of Word2Vec, text of "
        "GloVe, a FastText model, or what Embeddings.save wrote"
    )
