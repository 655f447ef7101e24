"""FastText models: words, and one matrix of what their vectors are composed from.

The file has the training's options, the words, and a matrix with a row for each word and for each
bucket that n-grams of letters are hashed into. The vector of a word is the mean of its own row and
of its n-grams' rows; a word that is not in the vocabulary has only the latter. The matrix is
mapped: of a file of gigabytes only the rows that are asked for are read.
"""

from __future__ import annotations

import mmap
import struct
from array import array
from typing import Any, BinaryIO

import numpy as np

from fastlstm._checks import FloatArray, IndexArray
from fastlstm._files import map_file

from ._embeddings import Embeddings, as_words, read_only
from ._words import MOST_WORD, Encoding, check_dim

MAGIC = struct.pack("<i", 793712314)
# dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn, lrUpdateRate, t
_OPTIONS = "<12id"
_DICTIONARY = "<3i2q"  # entries, words, labels, tokens, entries that pruning left
_ENTRY_END = "<qb"  # count, and whether it is a label
_MATRIX = "<?2q"  # whether it is quantised, rows, columns
_SUPERVISED = 3
# Letters in an n-gram, and n-grams of the vocabulary for each row of the matrix. The default of the
# first is 6, and words have some 30 of the second: far above is damage, which would take time.
_MOST_MAXN = 32
_MOST_NGRAMS = 256
_END_OF_SENTENCE = b"</s>"  # a word that has no n-grams
_MOST_NUMBERS = 1 << 20  # that are gathered at a time


class _Reader:
    """Numbers and words of a mapped file, one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def read(self, format: str) -> tuple[Any, ...]:
        size = struct.calcsize(format)
        self.check(size)
        values = struct.unpack_from(format, self.data, self.position)
        self.position += size
        return values

    def check(self, size: int) -> None:
        """Raise ValueError unless there are so many bytes."""
        if size > len(self.data) - self.position:
            raise ValueError(
                f"byte {self.position}: expected {size} more bytes, "
                f"got {len(self.data) - self.position}: the file was truncated"
            )

    def read_word(self) -> bytes:
        most = self.position + MOST_WORD + 1
        end = self.data.find(b"\0", self.position, most)
        if end < 0:
            what = "the file ended" if most > len(self.data) else f"it has over {MOST_WORD} bytes"
            raise ValueError(f"byte {self.position}: expected a word, but {what}")
        word = self.data[self.position : end]
        self.position = end + 1
        return word

    def read_matrix(self, name: str) -> tuple[int, int, int]:
        """Return where the numbers of a matrix begin, its rows and columns."""
        start = self.position
        quantised, rows, columns = self.read(_MATRIX)
        if quantised:
            raise ValueError(f"a quantised model (.ftz): its {name} matrix has no numbers to map")
        if rows < 0 or columns < 0:
            raise ValueError(f"byte {start}: a {name} matrix of {rows} rows, {columns} columns")
        offset = self.position
        self.check(4 * rows * columns)
        self.position += 4 * rows * columns
        return offset, rows, columns


def load(file: BinaryIO, dtype: np.dtype[Any], encoding: Encoding) -> Embeddings:
    """Map a model."""
    if file.read(len(MAGIC)) != MAGIC:
        raise ValueError("byte 0: no FastText model, or one of the format without a version")
    data = map_file(file.fileno())
    reader = _Reader(data)
    _, version = reader.read("<2i")
    if version not in (11, 12):
        raise ValueError(f"byte 4: expected version 11 or 12 of FastText's models, got {version}")
    start = reader.position
    dim, _, _, _, _, _, _, model, bucket, minn, maxn, _, _ = reader.read(_OPTIONS)
    check_dim(dim, f"byte {start}")
    if bucket < 0 or not -1 <= maxn <= _MOST_MAXN:
        raise ValueError(f"byte {start}: unlikely options: bucket={bucket}, maxn={maxn}")
    if version == 11 and model == _SUPERVISED:  # had the option, but did not use it
        maxn = 0

    start = reader.position
    entries, count, labels, _, pruned = reader.read(_DICTIONARY)
    if count < 0 or labels < 0 or entries != count + labels:
        raise ValueError(f"byte {start}: {entries} entries, but {count} words and {labels} labels")
    if pruned >= 0:
        raise ValueError("a pruned model (.ftz): most of its n-grams are missing")
    words, starts = [], array("q")
    letters = 0
    for n in range(entries):
        place = reader.position
        word = reader.read_word()
        _, is_label = reader.read(_ENTRY_END)
        if is_label != (n >= count):
            raise ValueError(f"byte {place}: expected {count} words, then {labels} labels")
        if n < count:
            words.append(encoding.decode(word, f"byte {place}"))
            starts.append(place)
            letters += len(word)

    start = reader.position
    offset, rows, columns = reader.read_matrix("input")
    if (rows, columns) != (count + bucket, dim):
        raise ValueError(
            f"byte {start}: expected ({count + bucket}, {dim}) numbers, got ({rows}, {columns})"
        )
    reader.read_matrix("output")
    if reader.position != len(data):
        raise ValueError(f"byte {reader.position}: expected the end of the file")
    matrix = np.frombuffer(data, "<f4", rows * columns, offset).reshape(rows, columns)
    if bucket == 0 or maxn < max(minn, 1):
        return Embeddings(words, matrix[:count].astype(dtype, copy=False))
    if letters * maxn > _MOST_NGRAMS * rows:
        raise ValueError(f"unlikely words: {letters} letters, with {rows} vectors for all n-grams")
    return FastTextEmbeddings(words, data, starts, matrix, (minn, maxn), dtype, encoding)


class FastTextEmbeddings(Embeddings):
    """Embeddings whose vectors are composed from subwords, also those of unknown words.

    :func:`fastlstm.embeddings.load` makes them. ``in``, ``words``, ``indices`` and ``vectors`` know
    the vocabulary; ``embeddings[word]`` and ``lookup`` any word that has n-grams. They read the
    mapped file; ``vectors`` is composed when it is first asked for, which reads all of it.
    """

    def __init__(
        self,
        words: list[str],
        data: mmap.mmap,
        starts: array[int],
        matrix: FloatArray,
        ngrams: tuple[int, int],
        dtype: np.dtype[Any],
        encoding: Encoding,
    ) -> None:
        self._words = as_words("words", words)
        self._data = data
        self._starts = np.array(starts, np.int64)
        self._matrix = matrix
        self._ngrams = ngrams
        self._dtype = dtype
        self._encoding = encoding
        self._composed: FloatArray | None = None

    @property
    def vectors(self) -> FloatArray:
        """The words' vectors: (V, dim), read-only; composed at the first use, and kept."""
        if self._composed is None:
            vectors = np.empty((len(self), self.dim), self.dtype)
            for place in range(len(self)):
                vectors[place] = self._of_vocabulary(place)
            self._composed = read_only(vectors)
        return self._composed

    @property
    def dim(self) -> int:
        """The size of a vector: a layer's ``input_size``."""
        return int(self._matrix.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64; they are composed in float32, as FastText does."""
        return self._dtype

    def _vector(self, word: str) -> FloatArray | None:
        place = self._index.get(word)
        if place is not None:
            return self._of_vocabulary(place) if self._composed is None else self._composed[place]
        rows = self._subwords(self._encoding.encode(word))
        return self._mean(rows) if len(rows) else None

    def _of_vocabulary(self, place: int) -> FloatArray:
        # The word's bytes, which decoding may have changed.
        start = int(self._starts[place])
        word = self._data[start : self._data.find(b"\0", start)]
        return self._mean(np.append(np.int64(place), self._subwords(word)))

    def _subwords(self, word: bytes) -> IndexArray:
        """Return the rows of a word's n-grams."""
        if word == _END_OF_SENTENCE:
            return np.empty(0, np.int64)
        buckets = len(self._matrix) - len(self)
        hashes = np.frombuffer(hashes_of_ngrams(word, *self._ngrams), np.uint32)
        return len(self) + hashes.astype(np.int64) % buckets

    def _mean(self, rows: IndexArray) -> FloatArray:
        """Return the mean of rows, summed one after the other, as FastText does."""
        total = np.zeros(self.dim, np.float32)
        at_a_time = max(_MOST_NUMBERS // self.dim, 1)
        with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN go on
            for n in range(0, len(rows), at_a_time):
                part = self._matrix[rows[n : n + at_a_time]]
                total = np.add.reduce(np.vstack([total, part]), axis=0)
        return read_only((total * np.float32(1 / len(rows))).astype(self.dtype, copy=False))


def hashes_of_ngrams(word: bytes, minn: int, maxn: int) -> array[int]:
    """Return FastText's hashes of all n-grams of minn to maxn letters of a word, and its ends.

    The hash is FNV-1a with 32 bits, but bytes from 128 come with their sign: as FastText's C++ has
    them on x86. A letter is a byte with all that follow it in UTF-8. The marks of the word's ends
    are no n-grams by themselves.
    """
    marked = b"<" + word + b">"
    hashes = array("I")
    # What each byte is combined with by exclusive or.
    signed = [byte if byte < 128 else byte | 0xFFFFFF00 for byte in marked]
    begins = [n for n, byte in enumerate(marked) if byte & 0xC0 != 0x80]
    begins.append(len(marked))
    for first in range(len(begins) - 1):
        value = 2166136261
        for last in range(first + 1, min(first + maxn, len(begins) - 1) + 1):
            for byte in signed[begins[last - 1] : begins[last]]:
                value = (value ^ byte) * 16777619 & 0xFFFFFFFF
            n = last - first
            is_mark = n == 1 and (first == 0 or last == len(begins) - 1)
            if n >= minn and not is_mark:
                hashes.append(value)
    return hashes
