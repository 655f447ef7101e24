"""X: sequences of numbers or of tokens, however they are passed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_array

from fastlstm._checks import FloatArray, IndexArray, as_lengths, to_numpy

from ._options import one_of

Float64Array = npt.NDArray[np.float64]
Token = str | int
Tokenize = Callable[[str], Iterable[str]]
# The place of what is not in the vocabulary.
UNKNOWN = 0
# So many unknown tokens are named in an error.
_MOST_NAMED = 5
_AT_ONCE = 1 << 16  # rows, of what is scaled

# What a file can name instead of a function.
TOKENIZERS: dict[str, Tokenize] = {
    "space": str.split,
    "words": lambda text: re.findall(r"\w+(?:['\u2019]\w+)*|[^\w\s]", text.lower()),
    "characters": list,
}


class Sequences(NamedTuple):
    """n sequences of different lengths in one array."""

    values: npt.NDArray[Any]
    """(N, ...): the steps of all sequences, one sequence after the other, gaps between them or not;
    (N, F) numbers, or (N,) integers."""
    starts: IndexArray
    """(n,): the first step of each."""
    lengths: IndexArray
    """(n,): its steps."""

    def batch(self, rows: IndexArray) -> tuple[npt.NDArray[Any], IndexArray]:
        """Return some sequences as (T, B, ...), and their lengths, (B,).

        What stands past a sequence's end is its last step again, or a neighbour's of an empty one.
        """
        starts, lengths = self.starts[rows], self.lengths[rows]
        if len(rows) == 1:
            return self.values[starts[0] : starts[0] + lengths[0], None], lengths
        steps = np.arange(lengths.max(initial=0))[:, None]
        places = starts + np.minimum(steps, np.maximum(lengths - 1, 0))
        return np.take(self.values, places, axis=0, mode="clip"), lengths

    def one_by_one(self, values: npt.NDArray[Any] | None = None) -> list[npt.NDArray[Any]]:
        """Return each sequence's steps, or those that others have at their places."""
        array = self.values if values is None else values
        ends = self.starts + self.lengths
        return [array[a:b] for a, b in zip(self.starts.tolist(), ends.tolist(), strict=True)]


def join(arrays: Sequence[npt.NDArray[Any]], dtype: Any = None) -> Sequences:
    """Put (T_i, ...) arrays into one."""
    lengths = np.array([len(array) for array in arrays], np.int64)
    values = arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    return Sequences(
        values if dtype is None else values.astype(dtype, copy=False),
        np.cumsum(lengths) - lengths,
        lengths,
    )


# --- numbers --------------------------------------------------------------------------------------


def read_numbers(X: Any, lengths: Any, estimator: Any) -> Sequences:
    """Return sequences of numbers, (N, F) of whatever type they have.

    Parameters
    ----------
    X : list of array_like, or array_like
        Each (T_i, F), or (T_i,) of one feature; or (n, T, F), or (n, T) of one feature.
    lengths : array_like of int or None
        (n,), of an array.
    estimator : object
        For messages.

    Raises
    ------
    ValueError, TypeError
        They are none, or a number is NaN or infinite.
    """
    if _is_list(X):
        if lengths is not None:
            raise ValueError("lengths: expected None for a list of sequences, which have their own")
        sequences = join(_number_arrays(list(X)))
    else:
        array = check_array(
            X,
            dtype="numeric",
            allow_nd=True,
            ensure_all_finite=False,
            estimator=estimator,
            input_name="X",
        )
        if array.ndim == 2:
            array = array[:, :, None]
        if array.ndim > 3:
            raise ValueError(f"X: expected (n, T, F) or (n, T), got {array.shape}")
        n, T, F = array.shape
        of_each = _checked_lengths(lengths, n, T)
        starts = np.arange(n, dtype=np.int64) * T
        sequences = Sequences(array.reshape(n * T, F), starts, of_each)
        if of_each.sum() < n * T:  # nothing looks at what is past the ends
            sequences = join(sequences.one_by_one())
    values = sequences.values
    if values.shape[1] == 0:
        raise ValueError("X: expected at least one feature a step, got none")
    _check_steps(sequences.lengths)
    # A sum is finite where all numbers are, or nearly always, and takes no memory.
    if values.dtype.kind == "f" and not np.isfinite(values.sum(dtype=np.float64)):
        for i, steps in enumerate(sequences.one_by_one()):
            if not np.isfinite(steps).all():
                kind = "NaN" if np.isnan(steps).any() else "infinity"
                raise ValueError(f"X[{i}]: expected finite numbers, got {kind}")
    return sequences


def _is_list(X: Any) -> bool:
    """Whether X has sequences one by one: a list, or an array or pandas' series of objects."""
    if isinstance(X, (str, bytes)):
        raise TypeError("X: expected a list of sequences, got a string")
    return isinstance(X, (list, tuple)) or (
        getattr(X, "ndim", 0) == 1 and getattr(X, "dtype", None) == np.dtype(object)
    )


def _checked_lengths(lengths: Any, n: int, T: int) -> IndexArray:
    return np.full(n, T, np.int64) if lengths is None else as_lengths(lengths, n, T)


def as_tokenize(name: str, value: Any) -> Any:
    """Return a tokenizer's name, a function, or None."""
    return value if value is None or callable(value) else one_of(*TOKENIZERS)(name, value)


def _check_steps(lengths: IndexArray) -> None:
    if len(lengths) == 0:
        raise ValueError("X: expected at least one sequence, got 0 sample(s)")
    if not lengths.all():
        raise _no_steps(int(np.flatnonzero(lengths == 0)[0]))


def _no_steps(i: int) -> ValueError:
    return ValueError(f"X[{i}]: expected at least one step, got an empty sequence")


def _number_arrays(items: list[Any]) -> list[npt.NDArray[Any]]:
    """Each as (T_i, F)."""
    arrays: list[npt.NDArray[Any]] = []
    for i, item in enumerate(items):
        array = item if type(item) is np.ndarray else _as_array(i, item)
        if array.ndim == 1:
            array = array[:, None]
        if array.dtype.kind not in "fiub":
            kind = "text" if array.dtype.kind in "US" else f"an array of {array.dtype}"
            hint = ": tokens need an embedding, say embedding=100" if kind == "text" else ""
            raise TypeError(f"X[{i}]: expected numbers, got {kind}{hint}")
        if array.ndim != 2:
            raise ValueError(f"X[{i}]: expected (T, F) or (T,), got {array.shape}")
        if len(array) == 0:
            raise _no_steps(i)
        if arrays and array.shape[1] != arrays[0].shape[1]:
            raise ValueError(
                f"X[{i}]: expected {arrays[0].shape[1]} features, as X[0], got {array.shape[1]}"
            )
        arrays.append(array)
    if not arrays:
        _check_steps(np.zeros(0, np.int64))
    return arrays


def _as_array(i: int, item: Any) -> npt.NDArray[Any]:
    if isinstance(item, str):
        return np.array([item])
    return to_numpy(f"X[{i}]", item)


def moments(values: npt.NDArray[Any]) -> tuple[Float64Array, Float64Array]:
    """Return mean and standard deviation of columns, (N, F); 1 where they are constant."""
    mean: Float64Array = values.mean(axis=0, dtype=np.float64)
    deviation: Float64Array = values.std(axis=0, dtype=np.float64)
    # Of equal numbers it is nearly zero, as their mean is rounded.
    return mean, np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0)


def scaled(
    sequences: Sequences, mean: FloatArray | None, deviation: FloatArray | None, dtype: str
) -> Sequences:
    """Return the numbers without mean and deviation, or as they are, in a type."""
    values = sequences.values
    if mean is None or deviation is None:
        new = np.ascontiguousarray(values, dtype)
    else:
        new = np.empty(values.shape, dtype)
        for first in range(0, len(values), _AT_ONCE):
            rows = slice(first, first + _AT_ONCE)
            new[rows] = (values[rows] - mean) / deviation
    return sequences._replace(values=new)


# --- tokens ---------------------------------------------------------------------------------------


def read_tokens(X: Any, lengths: Any, tokenize: str | Tokenize | None) -> list[list[Token]]:
    """Return sequences of tokens.

    Parameters
    ----------
    X : list of list of str or int, list of str, or array_like of int
        Tokens, texts with `tokenize`, or (n, T) integers.
    lengths : array_like of int or None
        (n,), of an array.
    tokenize : str, callable or None
        Makes tokens of a text.

    Raises
    ------
    ValueError, TypeError
        They are none.
    """
    split = TOKENIZERS[tokenize] if isinstance(tokenize, str) else tokenize
    if getattr(X, "ndim", 0) == 2:
        array = np.asarray(X)
        of_each = _checked_lengths(lengths, *array.shape)
        items = [row[:length] for row, length in zip(array.tolist(), of_each, strict=True)]
    elif lengths is not None:
        raise ValueError("lengths: expected None for a list of sequences, which have their own")
    elif _is_list(X) or getattr(X, "ndim", 0) == 1:
        items = list(X)
    else:
        raise TypeError(f"X: expected sequences of tokens, got {type(X).__name__}")
    if not items:
        _check_steps(np.zeros(0, np.int64))
    return [_tokens_of(i, item, split) for i, item in enumerate(items)]


def _tokens_of(i: int, item: Any, split: Tokenize | None) -> list[Token]:
    if isinstance(item, str):
        if split is None:
            raise TypeError(
                f"X[{i}]: expected a list of tokens, got a string: "
                "tokenize='words' makes words of it"
            )
        tokens: list[Any] = list(split(item))
    elif isinstance(item, np.ndarray):
        tokens = item.tolist()
    elif isinstance(item, Iterable):
        tokens = list(item)
    else:
        raise TypeError(f"X[{i}]: expected a list of tokens, got {type(item).__name__}")
    if not set(map(type, tokens)) <= {str, int}:
        tokens = [_token(i, token) for token in tokens]
    if not tokens:
        raise ValueError(f"X[{i}]: expected at least one token, got an empty sequence")
    return tokens


def _token(i: int, token: Any) -> Token:
    if isinstance(token, str):
        return str(token)
    if isinstance(token, (int, np.integer)) and not isinstance(token, bool):
        return int(token)
    raise TypeError(f"X[{i}]: expected tokens (text or integers), got {type(token).__name__}")


def make_vocabulary(
    sequences: Iterable[Sequence[Token]], min_count: int = 1, known: Iterable[Token] = ()
) -> dict[Token, int]:
    """Return the places of tokens, from 1: 0 is what is not among them.

    Parameters
    ----------
    sequences : iterable of sequence of str or int
        What tokens are found in: the most frequent come first.
    min_count : int
        How often a token comes at least.
    known : iterable of str or int
        Tokens that come before these, whatever is found.
    """
    vocabulary: dict[Token, int] = {}
    for token in known:
        vocabulary.setdefault(token, len(vocabulary) + 1)
    counts = Counter(token for sequence in sequences for token in sequence)
    for token, count in counts.most_common():
        if count >= min_count:
            vocabulary.setdefault(token, len(vocabulary) + 1)
    return vocabulary


def encode(
    sequences: Sequence[Sequence[Token]], vocabulary: dict[Token, int], unknown: str = "token"
) -> Sequences:
    """Return the places of tokens.

    Parameters
    ----------
    unknown : "token" or "error"
        What a token is that the vocabulary has not: 0, or an error.

    Raises
    ------
    ValueError
        There are unknown tokens.
    """
    place = vocabulary.get
    places = [np.array([place(t, UNKNOWN) for t in s], np.int64) for s in sequences]
    joined = join(places)
    if unknown == "error" and not joined.values.all():
        missing = dict.fromkeys(t for s in sequences for t in s if t not in vocabulary)
        named = ", ".join(map(repr, list(missing)[:_MOST_NAMED]))
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise ValueError(f"X: expected tokens of the training data, got {named}{more}")
    return joined
