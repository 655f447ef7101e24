"""Truncated back-propagation through time: training on series too long for one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Generic

import numpy as np

from fastlstm._checks import MOST_SIZE, FloatArray, as_float_array, as_int

from .calls import call_lengths
from .layer import RecurrentLayer, check_layer, draw_seed, spec_of
from .layouts import StateT
from .public import public
from .states import as_states, from_tuple
from .tape import OF_NO_TAPE, Gradients, Tape, as_names


@public
class Chunk(Generic[StateT]):
    """Some steps of a long series: what :func:`truncated_bptt` yields.

    Attributes
    ----------
    steps : slice
        Of the series' time axis: those of this chunk.
    window : slice
        The steps that :meth:`backward` goes through; they end where the chunk does.
    output : ndarray
        The layer's output at the chunk's steps, laid out as the series.
    state : tuple of ndarray, or ndarray
        The state after the chunk: where the next one begins.
    """

    def __init__(
        self,
        tapes: list[Tape[StateT]],
        window: slice,
        steps: slice,
        output: FloatArray,
        state: StateT,
        time_axis: int,
    ) -> None:
        self._tapes = tapes  # of the window, the chunk's own last
        self._time_axis = time_axis
        self.window = window
        self.steps = steps
        self.output = output
        self.state = state

    def backward(
        self,
        d_output: Any = None,
        d_state: Any = None,
        *,
        accumulate: Gradients[StateT] | None = None,
        needs: str | Iterable[str] = ("x", "state", "params"),
    ) -> Gradients[StateT]:
        """Back-propagate from the chunk to the start of its window.

        Parameters
        ----------
        d_output : array_like, optional
            Gradient of the loss with respect to ``output``; zeros by default.
        d_state : tuple of array_like, or array_like, optional
            Gradients with respect to ``state``; zeros by default.
        accumulate : Gradients, optional
            An earlier result, whose gradients of the parameters are added to, as in
            :meth:`Tape.backward`.
        needs : str or iterable of str, optional
            What gradients are asked for, as in :meth:`Tape.backward`.

        Returns
        -------
        Gradients
            ``x`` is that of the window's inputs, ``state`` that of the state where it begins.

        Raises
        ------
        ValueError, TypeError
            As :meth:`Tape.backward`.
        """
        grads = accumulate
        d_x = []
        asked = as_names(needs)
        for tape in reversed(self._tapes):
            through = asked if tape is self._tapes[0] else [*asked, "state"]
            grads = tape.backward(d_output, d_state, accumulate=grads, needs=through)
            d_output, d_state = None, grads.state
            d_x.append(grads.x)
        assert grads is not None
        if len(d_x) == 1:
            return grads
        x: Any = None if grads.x is None else np.concatenate(d_x[::-1], axis=self._time_axis)
        return Gradients(x, grads.state, grads.params, OF_NO_TAPE)


def truncated_bptt(
    layer: RecurrentLayer[StateT, Any],
    x: Any,
    k1: int,
    k2: int | None = None,
    *,
    state: Any = None,
    lengths: Any = None,
    seed: int | None = None,
) -> Iterator[Chunk[StateT]]:
    """Train on a long series in chunks of `k1` steps, with gradients that reach back `k2` steps.

    The state goes from chunk to chunk, so outputs and states have the bits of one call over the
    whole series. Gradients stop `k2` steps before the end of a chunk: this is Williams and Peng's
    BPTT(h; h') with h = `k2` and h' = `k1`. Memory depends on `k2` alone, however long the series.
    No step is computed twice forward; the backward pass takes ``k2 / k1`` times its time.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        One that reads sequences from their start. It may be updated between chunks: a chunk is
        computed with the parameters that the layer has when it is asked for, and back-propagation
        through an older chunk uses those of that chunk.
    x : array_like
        The series, as for a call of the layer. An array of the layer's dtype is not copied.
    k1 : int
        Steps of a chunk; the last may be shorter.
    k2 : int, optional
        Steps that gradients reach back from the end of a chunk: a multiple of `k1`, by default
        `k1`. From T on, nothing is truncated.
    state, lengths
        As in a call of the layer.
    seed : int, optional
        Of the dropout masks; chunk n has seed + n. By default the next of the layer's own.

    Yields
    ------
    Chunk
        ``steps``, ``output``, ``state``, and ``backward`` to the gradients.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated, or the layer is ``bidirectional``
        or ``reverse``: its state cannot go from chunk to chunk.

    References
    ----------
    Williams and Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent
    network trajectories".

    Examples
    --------
    >>> lstm = fastlstm.LSTM(2, 4, seed=0)
    >>> series = np.ones((1000, 1, 2), dtype=np.float32)
    >>> optimizer = fastlstm.optim.Adam()
    >>> for chunk in fastlstm.truncated_bptt(lstm, series, k1=100, k2=200):
    ...     d_output = chunk.output - 0.5  # of the loss sum((output - 0.5)**2) / 2
    ...     grads = chunk.backward(d_output)
    ...     lstm.update(optimizer.step(lstm.params, grads.params))
    >>> chunk.steps, chunk.window
    (slice(900, 1000, None), slice(800, 1000, None))
    """
    check_layer(layer)
    spec = spec_of(layer)
    if spec.reads_from_the_end:
        raise ValueError("layer: expected one that reads sequences from their start")
    x = as_float_array("x", x, spec.dtype)
    layout = spec.layout(x)
    k1 = as_int("k1", k1, 1, MOST_SIZE)
    k2 = k1 if k2 is None else as_int("k2", k2, k1, MOST_SIZE)
    if k2 % k1:
        raise ValueError(f"k2: expected a multiple of k1 ({k1}), got {k2}")
    lengths = call_lengths(lengths, layout)
    if state is not None:
        state = from_tuple(as_states(spec, "state", state, layout))
    first_seed = draw_seed(layer, seed)

    def chunks() -> Iterator[Chunk[StateT]]:
        now = state
        tapes: deque[Tape[StateT]] = deque(maxlen=k2 // k1)
        for n, first in enumerate(range(0, layout.T, k1)):
            end = min(first + k1, layout.T)
            steps = slice(first, end)
            part = x[(slice(None),) * layout.time_axis + (steps,)]
            output, now, tape = layer.forward(
                part,
                now,
                lengths=None if lengths is None else np.clip(lengths - first, 0, end - first),
                seed=(first_seed + n) % 2**64,
            )
            tapes.append(tape)
            window = slice(first - (len(tapes) - 1) * k1, end)
            yield Chunk(list(tapes), window, steps, output, now, layout.time_axis)

    return chunks()
