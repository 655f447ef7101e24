"""Layers that run step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic

import numpy as np

from . import _core
from ._blas import require_blas_for_forward
from ._calls import Layout, StateT
from ._checks import (
    MOST_SIZE,
    FloatArray,
    as_float_array,
    as_int,
    check_apart,
    check_out,
    check_shape,
)

if TYPE_CHECKING:
    from ._layer import RecurrentLayer

_STREAMS: dict[str, Any] = {"float32": _core.StreamFloat32, "float64": _core.StreamFloat64}


class Stream(Generic[StateT]):
    """A layer that runs step by step and keeps its state: for serving, audio, trading, control.

    Made by a layer's ``stream``. It keeps the parameters that the layer had then; a later
    ``update`` does not change it. One thread at a time may use it.

    Examples
    --------
    >>> lstm = fastlstm.LSTM(8, 16, seed=0)
    >>> stream = lstm.stream()
    >>> x = np.ones((5, 1, 8), dtype=np.float32)
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> np.allclose(steps, lstm(x)[0], atol=1e-6)
    True
    """

    def __init__(self, layer: RecurrentLayer[StateT, Any], batch_size: int) -> None:
        if layer.bidirectional or layer.reverse:
            raise ValueError("stream: a layer that reads sequences from their end cannot stream")
        self._layer = layer
        self._batch_size = as_int("batch_size", batch_size, 1, MOST_SIZE)
        require_blas_for_forward()
        self._core = _STREAMS[layer.dtype.name](layer._snapshot[1], self._batch_size)
        self._try_step = self._core.stepper()
        self._dtype = layer.dtype
        self._step_shape = (self._batch_size, layer._output_size)

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
        """
        if out is None:
            out = np.empty(self._step_shape, self._dtype)
        if self._try_step(x, out):
            return out
        # Something needs a conversion, or is wrong.
        x = as_float_array("x", x, self._dtype)
        check_shape("x", x, (self._batch_size, self._layer.input_size))
        out = check_out("out", out, self._dtype, self._step_shape)
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
        layer = self._layer
        x = as_float_array("x", x, layer.dtype)
        layout = layer._layout(x)
        if self._batch_size != layout.B:
            raise ValueError(f"x: expected a batch of {self._batch_size}, got {layout.B}")
        output = np.empty(layout.shape(layer._output_size), layer.dtype)
        if layout.T > 0:
            self._core.run(
                x.reshape(layout.core_shape(layer.input_size)),
                output.reshape(layout.core_shape(layer._output_size)),
                layout.batch_first,
            )
        return output

    @property
    def state(self) -> StateT:
        """The state ``(h, c)`` or ``h``, (L, B, P) and (L, B, H), as copies. Can be assigned."""
        return self._layer._from_tuple(tuple(self._core.state()))

    @state.setter
    def state(self, state: Any) -> None:
        layout = Layout(1, self._batch_size, batch_first=False, batched=True)
        self._core.set_state(*self._layer._as_states("state", state, layout))

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
        states = self._core.state()
        try:
            for array in states:
                array[:, index] = 0
        except IndexError as error:
            raise ValueError(
                f"rows: expected indices of {self._batch_size} sequences: {error}"
            ) from None
        self._core.set_state(*states)
