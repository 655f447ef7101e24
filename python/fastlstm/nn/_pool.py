"""One vector for each sequence."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np

from fastlstm import _core
from fastlstm._checks import FloatArray, IndexArray, as_bool, as_float_array, check_shape
from fastlstm.layers.options import Option

from ._block import Block, Gradients
from ._sequences import Sequences, as_sequences

How: TypeAlias = Literal["max", "mean", "last", "ends"]
_HOW = ("max", "mean", "last", "ends")


def _as_how(name: str, value: Any) -> str:
    if value not in _HOW:
        raise ValueError(f"{name}: expected max, mean, last or ends, got {value!r}")
    return str(value)


class PoolTape:
    """What :meth:`Pool.forward` saved: lengths, and the steps of the largest values."""

    def __init__(self, sequences: Sequences, how: How, at: IndexArray | None) -> None:
        self._shape = sequences.values.shape
        self._dtype = sequences.values.dtype
        self._lengths = sequences.all_lengths()
        self._batch_first = sequences.batch_first
        self._inside = sequences.inside() if how == "mean" else None
        self._how = how
        self._at = at

    def backward(self, d_y: Any) -> Gradients:
        """Return the gradient of the input, as ``x``: zeros past a sequence's end.

        Parameters
        ----------
        d_y : array_like
            (B, n), the gradient with respect to the result.

        Raises
        ------
        ValueError, TypeError
            `d_y` has another shape or type than stated.
        """
        array = as_float_array("d_y", d_y, self._dtype)
        B, n = len(self._lengths), self._shape[2]
        check_shape("d_y", array, (B, n))
        if self._inside is not None:
            parts = array / np.maximum(self._lengths, 1).astype(self._dtype)[:, None]
            d_x = np.where(
                self._inside[..., None], parts[:, None] if self._batch_first else parts, 0
            ).astype(self._dtype, copy=False)
            return Gradients(d_x, {})
        d_x = np.zeros(self._shape, self._dtype)
        by_step = d_x.swapaxes(0, 1) if self._batch_first else d_x
        some = np.flatnonzero(self._lengths)  # those that have steps
        if self._at is not None:
            by_step[self._at[some], some[:, None], np.arange(n)] = array[some]
        else:
            forwards, backwards = _halves(self._how, n)
            by_step[self._lengths[some] - 1, some, forwards] = array[some, forwards]
            if some.size:
                by_step[0, some, backwards] = array[some, backwards]
        return Gradients(d_x, {})


class Pool(Block):
    """One vector for each sequence, of all steps that it has.

    Parameters
    ----------
    how : "max", "mean", "last" or "ends"
        The largest value of each feature (of NaN: NaN), the mean, the last step, or both ends of a
        bidirectional layer's output, each where its direction has read the whole sequence: the
        first half of the features at the last step, the second half at the first.
    batch_first : bool
        Whether sequences are (B, T, n) instead of (T, B, n).

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated.

    Examples
    --------
    >>> pool = fastlstm.nn.Pool("mean")
    >>> x = np.arange(6.0).reshape(3, 2, 1)  # T = 3, B = 2
    >>> y, tape = pool.forward(x, lengths=[3, 1])
    >>> y[:, 0]
    array([2., 1.])
    >>> tape.backward([[3.0], [3.0]]).x[..., 0]
    array([[1., 3.], [1., 0.], [1., 0.]])
    """

    how = Option[How](_as_how, "What becomes of a sequence's steps.")
    batch_first = Option[bool](as_bool, "Whether sequences are (B, T, n) instead of (T, B, n).")

    def __init__(self, how: How = "max", *, batch_first: bool = False) -> None:
        super().__init__(locals(), {})

    def __call__(self, x: Any, lengths: Any = None) -> FloatArray:
        """Return one vector for each sequence.

        Parameters
        ----------
        x : array_like
            (T, B, n), or (B, T, n) with ``batch_first``.
        lengths : array_like of int, optional
            (B,): the steps that each sequence has.

        Returns
        -------
        ndarray
            (B, n); zeros for a sequence without steps.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        return self._pooled(self._sequences(x, lengths))[0]

    def forward(self, x: Any, lengths: Any = None) -> tuple[FloatArray, PoolTape]:
        """Return one vector for each sequence, and a tape for the backward pass.

        Parameters
        ----------
        x, lengths
            As in a call.

        Returns
        -------
        y : ndarray
            (B, n).
        tape : PoolTape

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        sequences = self._sequences(x, lengths)
        y, at = self._pooled(sequences)
        return y, PoolTape(sequences, self.how, at)

    def _sequences(self, x: Any, lengths: Any) -> Sequences:
        sequences = as_sequences("x", x, "n", lengths, self.batch_first)
        n = sequences.values.shape[2]
        if self.how == "ends" and n % 2:
            raise ValueError(f"x: expected the features of two directions, got {n} in all")
        return sequences

    def _pooled(self, sequences: Sequences) -> tuple[FloatArray, IndexArray | None]:
        x = sequences.values
        shape = (sequences.B, x.shape[2])
        if self.how in ("last", "ends"):
            return self._taken(sequences, shape), None
        lengths = sequences.all_lengths()
        if self.how == "max":
            y, at = np.empty(shape, x.dtype), np.empty(shape, np.int64)
            _core.max_over_time(x, lengths, self.batch_first, y, at)
            return y, at
        y = np.empty(shape, x.dtype)
        _core.sum_over_time(x, lengths, self.batch_first, y)
        y /= np.maximum(lengths, 1).astype(x.dtype)[:, None]
        return y, None

    def _taken(self, sequences: Sequences, shape: tuple[int, int]) -> FloatArray:
        """The values of certain steps."""
        x, lengths = sequences.values, sequences.lengths
        y = np.zeros(shape, x.dtype)
        by_step = x.swapaxes(0, 1) if self.batch_first else x
        forwards, backwards = _halves(self.how, shape[1])
        if sequences.T == 0:
            return y
        if lengths is None:  # a request's way: no arrays of indices
            y[:, forwards] = by_step[-1, :, forwards]
            y[:, backwards] = by_step[0, :, backwards]
            return y
        some = np.flatnonzero(lengths)
        y[some, forwards] = by_step[lengths[some] - 1, some, forwards]
        y[some, backwards] = by_step[0, some, backwards]
        return y


def pool(x: Any, lengths: Any = None, how: How = "max", *, batch_first: bool = False) -> FloatArray:
    """Return one vector for each sequence, as :class:`Pool`, for inference.

    Parameters
    ----------
    x, lengths
        As in a call of :class:`Pool`.
    how, batch_first
        Its options.

    Examples
    --------
    >>> fastlstm.nn.pool(np.arange(6.0).reshape(3, 2, 1), lengths=[3, 1], how="last")[:, 0]
    array([4., 1.])
    """
    return Pool(how, batch_first=batch_first)(x, lengths)


def _halves(how: How, n: int) -> tuple[slice, slice]:
    """The features that are taken at the last step, and those at the first."""
    return (slice(0, n // 2), slice(n // 2, n)) if how == "ends" else (slice(0, n), slice(0, 0))
