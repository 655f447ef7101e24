"""Attention over the states of an encoder."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray, as_bool, as_float_array, check_shape
from fastlstm.layers.options import Option

from ._block import Block
from ._sequences import Sequences, as_sequences


@dataclass(eq=False)
class AttentionGradients:
    """What :meth:`AttentionTape.backward` returns.

    Attributes
    ----------
    query, states : ndarray
        Gradients of both, in their shapes; zeros past a sequence's end.
    """

    query: FloatArray
    states: FloatArray


class _Call:
    """The arrays of a call, batch first inside, as each sequence has products of its own."""

    def __init__(self, block: Attention, query: Any, states: Any, lengths: Any) -> None:
        self.sequences = as_sequences("states", states, "H", lengths, block.batch_first)
        values = self.sequences.values
        B, H = self.sequences.B, values.shape[2]
        array = as_float_array("query", query, values.dtype)
        steps = ("B", "T_q", H) if block.batch_first else ("T_q", "B", H)
        check_shape("query", array, (B, H), tuple(B if axis == "B" else axis for axis in steps))
        self.one = array.ndim == 2
        self.batch_first = block.batch_first
        self.scale = values.dtype.type(1 / math.sqrt(H) if block.scaled and H else 1)
        self.query = self.inside_out(array)  # (B, T_q, H)
        # Padding is left out of all sums, whatever stands there.
        self.kept = _batch_first(self.sequences, self.sequences.inside())[:, None]  # (B, 1, T)
        self.states = _batch_first(self.sequences, values)
        if not self.kept.all():
            self.states = np.where(self.kept.swapaxes(1, 2), self.states, values.dtype.type(0))

    def inside_out(self, array: FloatArray) -> FloatArray:
        """Queries as they are in here, or back."""
        if self.one:
            return array[:, None] if array.ndim == 2 else array[:, 0]
        return array if self.batch_first else array.swapaxes(0, 1)


class AttentionTape:
    """What :meth:`Attention.forward` saved: the weights, and the input itself, not a copy.

    Attributes
    ----------
    weights : ndarray
        (T_q, B, T), (B, T_q, T) with ``batch_first``, or (B, T) of one query: how much of each
        state is in each result. Zero past a sequence's end.
    """

    def __init__(self, call: _Call, weights: FloatArray) -> None:
        self._call = call
        self._p = weights
        self.weights = np.ascontiguousarray(call.inside_out(weights))

    def backward(self, d_y: Any) -> AttentionGradients:
        """Return the gradients of queries and states.

        Parameters
        ----------
        d_y : array_like
            The gradient with respect to the result, in its shape.

        Raises
        ------
        ValueError, TypeError
            `d_y` has another shape or type than stated.
        """
        call, p = self._call, self._p
        array = as_float_array("d_y", d_y, p.dtype)
        check_shape("d_y", array, call.inside_out(call.query).shape)
        d = call.inside_out(array)
        d_p = np.matmul(d, call.states.swapaxes(1, 2))
        d_scores = p * (d_p - np.sum(p * d_p, axis=-1, keepdims=True)) * call.scale
        d_query = np.matmul(d_scores, call.states)
        # One product for both ways to a state, written where it is wanted.
        d_states = np.empty(call.sequences.values.shape, p.dtype)
        np.matmul(
            np.concatenate([p, d_scores], axis=1).swapaxes(1, 2),
            np.concatenate([d, call.query], axis=1),
            out=_batch_first(call.sequences, d_states),
        )
        return AttentionGradients(np.ascontiguousarray(call.inside_out(d_query)), d_states)


class Attention(Block):
    """Dot-product attention: means of states, weighted by how well they match a query.

    .. code-block:: text

        weights = softmax over t of (scale query . states[t])
        y = sum_t weights[t] states[t]

    With the states of an encoder and an output of the decoder as query it is "dot" of Luong, Pham
    and Manning 2015, "Effective approaches to attention-based neural machine translation". The
    products are NumPy's, small ones for each sequence.

    Parameters
    ----------
    scaled : bool
        Whether the scale is 1 / sqrt(H) instead of 1.
    batch_first : bool
        Whether sequences are (B, T, H) instead of (T, B, H), queries too.

    Raises
    ------
    TypeError
        An argument is no bool.

    Examples
    --------
    >>> attention = fastlstm.nn.Attention()
    >>> states = np.eye(3).reshape(3, 1, 3)  # T = 3, B = 1, H = 3
    >>> y, tape = attention.forward(np.array([[9.0, 0.0, 0.0]]), states, lengths=[2])
    >>> y.shape, tape.weights.round(3)
    ((1, 3), array([[1., 0., 0.]]))
    >>> grads = tape.backward(np.ones((1, 3)))
    >>> grads.query.shape, grads.states.shape
    ((1, 3), (3, 1, 3))
    """

    scaled = Option[bool](as_bool, "Whether the scale is 1 / sqrt(H) instead of 1.")
    batch_first = Option[bool](as_bool, "Whether sequences are (B, T, H) instead of (T, B, H).")

    def __init__(self, *, scaled: bool = False, batch_first: bool = False) -> None:
        super().__init__(locals(), {})

    def __call__(self, query: Any, states: Any, lengths: Any = None) -> FloatArray:
        """Return the means of states.

        Parameters
        ----------
        query : array_like
            (T_q, B, H), (B, T_q, H) with ``batch_first``, or (B, H): one for each sequence.
        states : array_like
            (T, B, H), or (B, T, H) with ``batch_first``.
        lengths : array_like of int, optional
            (B,): the states that each sequence has.

        Returns
        -------
        ndarray
            Like `query`; zeros for a sequence without states.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        return self.forward(query, states, lengths)[0]

    def forward(
        self, query: Any, states: Any, lengths: Any = None
    ) -> tuple[FloatArray, AttentionTape]:
        """Return the means of states, and a tape with the weights for the backward pass.

        Parameters
        ----------
        query, states, lengths
            As in a call. The tape keeps the arrays, without a copy.

        Returns
        -------
        y : ndarray
            Like `query`.
        tape : AttentionTape

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        call = _Call(self, query, states, lengths)
        scores = np.matmul(call.query, call.states.swapaxes(1, 2))
        scores *= call.scale
        weights = _softmax_where(scores, call.kept)
        y = np.matmul(weights, call.states)
        return np.ascontiguousarray(call.inside_out(y)), AttentionTape(call, weights)


def _batch_first(sequences: Sequences, array: Any) -> Any:
    """An array of steps with the batch first; or back."""
    return array if sequences.batch_first else array.swapaxes(0, 1)


def _softmax_where(scores: FloatArray, kept: Any) -> FloatArray:
    """Softmax along the last axis of what is kept; zeros elsewhere, and where nothing is."""
    scores = np.where(kept, scores, scores.dtype.type(-np.inf))
    largest = np.max(scores, axis=-1, keepdims=True, initial=-np.inf)
    scores -= np.where(kept.any(axis=-1, keepdims=True), largest, 0)
    np.exp(scores, out=scores)
    total = scores.sum(axis=-1, keepdims=True)
    scores /= np.where(total == 0, 1, total)
    return scores
