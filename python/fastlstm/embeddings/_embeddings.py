"""Words and their vectors."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._checks import FloatArray, IndexArray, as_bool, as_float_array, as_int, check_shape

from ._saved import save

# So many of the words that are not there are named in an error.
_MOST_NAMED = 5


class Embeddings:
    """Words, and a vector for each.

    :func:`fastlstm.embeddings.load` makes them from files. A word that comes twice has the vector
    of its first place; ``words`` and ``vectors`` keep both, so that they count as the file does.

    Parameters
    ----------
    words : iterable of str
        V words.
    vectors : array_like of float, (V, dim)
        Their vectors. An array of float32 or float64 is taken without a copy, all else as float32.

    Raises
    ------
    ValueError, TypeError
        The vectors are not (V, dim) numbers, or the words not text.

    Examples
    --------
    >>> embeddings = fastlstm.embeddings.Embeddings(["yes", "no"], np.eye(2, 3))
    >>> "no" in embeddings, len(embeddings), embeddings.dim
    (True, 2, 3)
    >>> embeddings["no"]
    array([0., 1., 0.])
    """

    def __init__(self, words: Iterable[str], vectors: npt.ArrayLike) -> None:
        # Mapped vectors may be unaligned, and would be read to be copied.
        if not (isinstance(vectors, np.ndarray) and vectors.dtype in (np.float32, np.float64)):
            vectors = as_float_array("vectors", vectors, np.dtype(np.float32))
        self._set_words(words)
        check_shape("vectors", vectors, (len(self._words), "dim"))
        self._vectors = read_only(vectors)

    def _set_words(self, words: Iterable[str]) -> None:
        self._words = as_words("words", words)
        # Backwards, for the first of equal words to be the one that stays.
        places = range(len(self._words) - 1, -1, -1)
        self._index = dict(zip(reversed(self._words), places, strict=True))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._vectors = read_only(self._vectors)  # pickles forget it

    @property
    def words(self) -> tuple[str, ...]:
        """All V words, in the order of the file."""
        return self._words

    @property
    def vectors(self) -> FloatArray:
        """The words' vectors: (V, dim), read-only."""
        return self._vectors

    @property
    def dim(self) -> int:
        """The size of a vector: a layer's ``input_size``."""
        return int(self.vectors.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""
        return self.vectors.dtype

    def __len__(self) -> int:
        return len(self._words)

    def __iter__(self) -> Iterator[str]:
        return iter(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._index

    def __getitem__(self, word: str) -> FloatArray:
        """Return the (dim,) vector of a word, read-only; KeyError if there is none."""
        (word,) = as_words("word", [word])
        vector = self._vector(word)
        if vector is None:
            raise KeyError(word)
        return vector

    def __repr__(self) -> str:
        name = type(self).__name__
        return f"{name}({len(self)} words, dim={self.dim}, dtype={self.dtype})"

    def indices(self, tokens: Iterable[str], *, unknown: int | None = None) -> IndexArray:
        """Return the places of words in ``words`` and ``vectors``.

        Parameters
        ----------
        tokens : iterable of str
            N words.
        unknown : int, optional
            What stands for a word that is not in the vocabulary.

        Returns
        -------
        (N,) array of int64

        Raises
        ------
        KeyError
            A word is not in the vocabulary, and ``unknown`` is None.

        Examples
        --------
        >>> embeddings = fastlstm.embeddings.Embeddings(["yes", "no"], np.eye(2))
        >>> embeddings.indices(["no", "yes", "perhaps"], unknown=-1)
        array([ 1,  0, -1])
        """
        tokens = as_words("tokens", tokens)
        if unknown is None:
            _refuse(token for token in tokens if token not in self._index)
            other = 0  # is not used
        else:
            other = as_int("unknown", unknown, -(2**63), 2**63 - 1)
        places = (self._index.get(token, other) for token in tokens)
        return np.fromiter(places, np.int64, len(tokens))

    def lookup(
        self,
        sentences: Iterable[Iterable[str]],
        *,
        unknown: str | npt.ArrayLike = "zeros",
        batch_first: bool = False,
    ) -> tuple[FloatArray, IndexArray]:
        """Return sentences as a layer's input: ``layer(x, lengths=lengths)``.

        Parameters
        ----------
        sentences : iterable of iterables of str
            B sentences, each as its words.
        unknown : "zeros", "error" or (dim,) array_like of float
            The vector of words that have none. With a FastText model that has subwords nearly every
            word has one.
        batch_first : bool
            As the layer's.

        Returns
        -------
        x : (T, B, dim) array, or (B, T, dim)
            The words' vectors in ``dtype``, and zeros after a sentence's end. T is the length of
            the longest sentence.
        lengths : (B,) array of int64
            The number of words of each sentence.

        Raises
        ------
        KeyError
            A word has no vector, and ``unknown`` is "error".
        ValueError, TypeError
            ``unknown`` is something else, or a sentence is no sequence of words.
        """
        batch_first = as_bool("batch_first", batch_first)
        if isinstance(sentences, str) or not isinstance(sentences, Iterable):
            kind = "text" if isinstance(sentences, str) else type(sentences).__name__
            raise TypeError(f"sentences: expected lists of words, got {kind}")
        rows = [as_words("sentences", sentence) for sentence in sentences]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        # Each distinct word is looked up, or composed, once.
        places = {word: n for n, word in enumerate(dict.fromkeys(w for row in rows for w in row))}
        table = self._table(list(places), unknown)
        T, B = int(lengths.max(initial=0)), len(rows)
        x = np.zeros((B, T, self.dim) if batch_first else (T, B, self.dim), self.dtype)
        by_sentence = x if batch_first else x.swapaxes(0, 1)
        for b, row in enumerate(rows):
            if row:
                by_sentence[b, : len(row)] = table[[places[word] for word in row]]
        return x, lengths

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write words and vectors to a file that :func:`load` maps into memory without reading it.

        It is a safetensors file. Subwords of a FastText model are not in it: vectors of other words
        than ``words`` need the model's own file, which is mapped, too.

        Parameters
        ----------
        path : path-like
            The file, written as a layer's: complete or as it was before, with the mode and owner
            that it had.

        Raises
        ------
        OSError
            The file cannot be written.
        TypeError
            The path is neither text nor path-like.
        """
        save(self.words, self.vectors, path)

    def _vector(self, word: str) -> FloatArray | None:
        place = self._index.get(word)
        return None if place is None else self.vectors[place]

    def _table(self, words: Sequence[str], unknown: str | npt.ArrayLike) -> FloatArray:
        """Return the vectors of words, (N, dim)."""
        if isinstance(unknown, str):
            if unknown not in ("zeros", "error"):
                raise ValueError(
                    f"unknown: expected 'zeros', 'error' or an array, got {unknown!r}; for the "
                    "vector of a word pass that: embeddings[word]"
                )
            other = np.zeros(self.dim, self.dtype)
        else:
            other = as_float_array("unknown", unknown, self.dtype)
            check_shape("unknown", other, (self.dim,))
        table = np.empty((len(words), self.dim), self.dtype)
        missing = []
        for n, word in enumerate(words):
            vector = self._vector(word)
            if vector is None:
                missing.append(word)
            table[n] = other if vector is None else vector
        if isinstance(unknown, str) and unknown == "error":
            _refuse(missing)
        return table


def as_words(name: str, words: Iterable[str]) -> tuple[str, ...]:
    """Return words as a tuple; one text is none, as it would become its letters."""
    if isinstance(words, (str, bytes)):
        raise TypeError(f"{name}: expected a list of words, got text; split it into words first")
    try:
        result = tuple(words)
    except TypeError:
        kind = type(words).__name__
        raise TypeError(f"{name}: expected a list of words, got {kind}") from None
    for word in result:
        if not isinstance(word, str):
            raise TypeError(f"{name}: expected words as str, got {type(word).__name__}")
    return result


def _refuse(words: Iterable[str]) -> None:
    """Raise KeyError if there are any words."""
    missing = list(dict.fromkeys(words))
    if missing:
        names = ", ".join(map(repr, missing[:_MOST_NAMED]))
        more = len(missing) - _MOST_NAMED
        raise KeyError(f"no vectors for {names}" + (f" and {more} more" if more > 0 else ""))


def read_only(array: FloatArray) -> FloatArray:
    """Return the same values in an array that cannot be made writable."""
    # What is mapped is read-only as it is.
    return _core.read_only(array) if array.flags.writeable else array
