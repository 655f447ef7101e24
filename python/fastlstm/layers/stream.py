"""Layers that run step by step."""

from __future__ import annotations

from typing import Any, Generic

import numpy as np

from fastlstm._checks import (
    MOST_SIZE,
    FloatArray,
    as_float_array,
    as_int,
    check_apart,
    check_out,
    check_shape,
    to_numpy,
)

from . import core
from .layouts import Layout, StateT
from .public import public
from .spec import Spec
from .states import as_states, from_tuple


@public
class Stream(Generic[StateT]):
    """A layer that runs step by step and keeps its state: for serving, audio, trading, control.

    Made by a layer's ``stream``. It keeps the parameters that the layer had then; a later
    ``update`` does not change it. One thread at a time may use it: several may take turns, but what
    comes in the middle of another call raises RuntimeError, and so does what the handler of a
    signal asks of the stream that it interrupts.

    Examples
    --------
    >>> lstm = fastlstm.LSTM(8, 16, seed=0)
    >>> stream = lstm.stream()
    >>> x = np.ones((5, 1, 8), dtype=np.float32)
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> np.allclose(steps, lstm(x)[0], atol=1e-6)
    True
    """

    def __init__(self, spec: Spec, stack: core.Stack, batch_size: int) -> None:
        if spec.reads_from_the_end:
            raise ValueError("stream: a layer that reads sequences from their end cannot stream")
        self._spec = spec
        self._batch_size = as_int("batch_size", batch_size, 1, MOST_SIZE)
        self._core = core.make_stream(spec.dtype, stack, self._batch_size)
        self._try_step, self._try_run = self._core.quick_calls()

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle or copy a stream: make another and assign its state")

    @property
    def batch_size(self) -> int:
        """B, the number of sequences that go on side by side."""
        return self._batch_size

    def step(self, x: Any, out: FloatArray | None = None) -> FloatArray:
        """Run one time step.

        Parameters
        ----------
        x : array_like
            (B, I).
        out : ndarray, optional
            (B, P), contiguous, of the layer's dtype: where the result goes. Nothing is allocated
            then.

        Returns
        -------
        ndarray
            (B, P): the last layer's h.

        Raises
        ------
        ValueError, TypeError
            An array has another shape or type than stated, or `x` and `out` share memory.
        RuntimeError
            Another call uses the stream: so with `run`, `reset` and `state`, too.

        Notes
        -----
        After a step that is interrupted (by Ctrl-C) the state means nothing: assign one, or
        `reset`. `run` leaves the state as it was.
        """
        result = self._try_step(x, out)
        return self._step_with_checks(x, out) if result is None else result

    def _step_with_checks(self, x: Any, out: FloatArray | None) -> FloatArray:
        """Run a step where something needs a conversion, or is wrong."""
        spec = self._spec
        shape = (self._batch_size, spec.output_size)
        x = as_float_array("x", x, spec.dtype)
        check_shape("x", x, (self._batch_size, spec.input_size))
        out = np.empty(shape, spec.dtype) if out is None else out
        out = check_out("out", out, spec.dtype, shape)
        check_apart({"out": out}, {"x": x})
        self._core.step(x, out)
        return out

    def run(self, x: Any) -> FloatArray:
        """Run a chunk of any number of time steps, zero included.

        Parameters
        ----------
        x : array_like
            As for a call of the layer; without a batch axis only if ``batch_size`` is 1.

        Returns
        -------
        ndarray
            The last layer's h at every step, laid out as x: (T, B, P).

        Raises
        ------
        ValueError, TypeError
            `x` has another shape or type than stated.
        """
        spec = self._spec
        result = self._try_run(x, spec.batch_first)
        if result is not None:
            return result
        x = as_float_array("x", x, spec.dtype)
        layout = spec.layout(x)
        if self._batch_size != layout.B:
            raise ValueError(f"x: expected a batch of {self._batch_size}, got {layout.B}")
        output = np.empty(layout.shape(spec.output_size), spec.dtype)
        if layout.T > 0:
            self._core.run(
                layout.core_sequence(x), layout.core_sequence(output), layout.batch_first
            )
        return output

    @property
    def state(self) -> StateT:
        """The state ``(h, c)`` or ``h``, (L, B, P) and (L, B, H), as copies. Can be assigned."""
        state: StateT = from_tuple(tuple(self._core.state()))
        return state

    @state.setter
    def state(self, state: Any) -> None:
        layout = Layout(1, self._batch_size, batch_first=False, batched=True)
        self._core.set_state(as_states(self._spec, "state", state, layout))

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero: of all sequences, or of some.

        Parameters
        ----------
        rows : int, slice, or array_like of int or bool, optional
            Which of the B sequences, as NumPy indexes them.

        Raises
        ------
        ValueError
            They are not indices of the B sequences.
        """
        index = slice(None) if rows is None else rows
        if isinstance(index, (list, tuple)):
            index = np.asarray(index, dtype=np.intp if len(index) == 0 else None)
        which = np.zeros(self._batch_size, np.bool_)
        try:
            which[index] = True
        except IndexError as error:
            raise ValueError(
                f"rows: expected indices of {self._batch_size} sequences: {error}"
            ) from None
        self._core.reset(which)

    def reorder(self, rows: Any) -> None:
        """Let each row go on from the state that another one had, or the same.

        For beam search, where some hypotheses go on twice and others end, and for streams that come
        and go. Nothing is copied through Python.

        Parameters
        ----------
        rows : array_like of int
            (B,): row b goes on from what row ``rows[b]`` was, 0 to B - 1. Any may repeat.

        Raises
        ------
        ValueError, TypeError
            They are not B indices of the B sequences. The state is as it was.

        Examples
        --------
        >>> stream = fastlstm.GRU(2, 3, seed=0).stream(batch_size=2)
        >>> h = stream.step(np.eye(2, dtype=np.float32))
        >>> stream.reorder([1, 1])
        >>> bool((stream.state[0] == h[1]).all())
        True
        """
        B = self._batch_size
        array = to_numpy("rows", rows)
        if array.dtype.kind not in "iu":
            raise TypeError(f"rows: expected integers, got an array of {array.dtype}")
        check_shape("rows", array, (B,))
        if array.min() < 0 or array.max() >= B:
            raise ValueError(
                f"rows: expected values from 0 to {B - 1}, got {array.min()} to {array.max()}"
            )
        # A copy, so that nobody changes it while the core reads it.
        self._core.reorder(np.array(array, dtype=np.int64, order="C", copy=True))
