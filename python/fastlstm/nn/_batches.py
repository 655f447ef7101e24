"""Batches of sequences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import (
    MOST_SIZE,
    IndexArray,
    as_bool,
    as_int,
    as_lengths,
    check_shape,
    shape_text,
    to_numpy,
)

from ._block import random_of


def pad(
    sequences: Iterable[Any], *, value: float = 0, batch_first: bool = False
) -> tuple[npt.NDArray[Any], IndexArray]:
    """Put sequences into one array, with padding after the ends of those that are shorter.

    Parameters
    ----------
    sequences : iterable of array_like
        B sequences, (T_i, ...): of features (T_i, n), or of tokens (T_i,).
    value : float
        What the padding is. (No block or loss that is given lengths looks at it.)
    batch_first : bool
        Whether the result is (B, T, ...).

    Returns
    -------
    x : ndarray
        (T, B, ...), T the length of the longest: int64 of integers, else float32, or float64 where
        there are any sequences of it or of lists.
    lengths : (B,) ndarray of int64

    Raises
    ------
    ValueError
        The sequences differ in more than their lengths.
    TypeError
        They are no arrays of numbers.

    Examples
    --------
    >>> x, lengths = fastlstm.nn.pad([[3, 5, 7], [2]])
    >>> x.T, lengths
    (array([[3, 5, 7], [2, 0, 0]]), array([3, 1]))
    """
    batch_first = as_bool("batch_first", batch_first)
    if isinstance(sequences, (str, bytes)) or not isinstance(sequences, Iterable):
        raise TypeError(f"sequences: expected arrays, got {type(sequences).__name__}")
    arrays = [to_numpy(f"sequences[{b}]", sequence) for b, sequence in enumerate(sequences)]
    for b, array in enumerate(arrays):
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            kind = f"an array of {array.dtype}" if array.ndim else "a scalar"
            raise TypeError(f"sequences[{b}]: expected a sequence of numbers, got {kind}")
    # An empty list says nothing of what its steps would be.
    known = [array for array in arrays if array.shape != (0,)]
    features = known[0].shape[1:] if known else ()
    for b, array in enumerate(arrays):
        if array.shape != (0,) and array.shape[1:] != features:
            raise ValueError(
                f"sequences[{b}]: expected {shape_text(('T', *features))}, as the others, got "
                f"{shape_text(array.shape)}"
            )
    kinds = {array.dtype for array in known}
    dtype: type[Any] = np.float32
    if kinds and all(kind.kind in "iub" for kind in kinds):
        dtype = np.int64
    elif any(kind.kind == "f" and kind.itemsize > 4 for kind in kinds):
        dtype = np.float64
    lengths = np.array([len(array) for array in arrays], np.int64)
    T = int(lengths.max(initial=0))
    by_sequence = np.full((len(arrays), T, *features), value, dtype)
    for b, array in enumerate(arrays):
        by_sequence[b, : len(array)] = array.reshape(len(array), *features)
    if batch_first:
        return by_sequence, lengths
    return np.ascontiguousarray(by_sequence.swapaxes(0, 1)), lengths


def bucket_batches(
    lengths: Any, batch_size: int, shuffle: bool = True, seed: int | None = None
) -> list[IndexArray]:
    """Divide sequences into batches of about the same length, so that there is little padding.

    Parameters
    ----------
    lengths : array_like of int
        (n,): of all sequences.
    batch_size : int
        Sequences of a batch; the last of the longest may have fewer.
    shuffle : bool
        Whether the batches come in random order, and sequences of the same length fall into random
        batches. Without, the shortest come first, in the order that they have.
    seed : int, optional
        Of the order.

    Returns
    -------
    list of ndarray of int64
        The places of each batch's sequences; each is in one batch.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> fastlstm.nn.bucket_batches([5, 1, 6, 2, 2], batch_size=2, shuffle=False)
    [array([1, 3]), array([4, 0]), array([2])]
    """
    array = to_numpy("lengths", lengths)
    check_shape("lengths", array, ("n",))
    checked = as_lengths(array, len(array), MOST_SIZE)
    size = as_int("batch_size", batch_size, 1, MOST_SIZE)
    random = random_of(seed)
    order = (
        random.permutation(len(checked)) if as_bool("shuffle", shuffle) else np.arange(len(checked))
    )
    order = order[np.argsort(checked[order], kind="stable")].astype(np.int64, copy=False)
    batches = [order[first : first + size] for first in range(0, len(order), size)]
    if shuffle:
        random.shuffle(batches)  # a list is shuffled in place, too
    return batches
