"""The LSTM layer: a thin, typed face of the C++ core."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import _core
from ._blas import require_blas, require_blas_for_forward
from ._checks import (
    FloatArray,
    IndexArray,
    as_float_array,
    as_int,
    as_lengths,
    as_real,
    check_apart,
    check_out,
    check_shape,
)
from ._layer import LAYERS, MOST_SIZE, RecurrentLayer

State = tuple[FloatArray, FloatArray]

_CORES: dict[str, Any] = {"float32": _core.LstmFloat32, "float64": _core.LstmFloat64}
_STREAMS: dict[str, Any] = {"float32": _core.LstmStreamFloat32, "float64": _core.LstmStreamFloat64}


class CellTrace(NamedTuple):
    """What one layer and direction computed at every time step; zero past a sequence's end.

    All arrays are (T, B, H) - h is (T, B, P) - or laid out as the layer's inputs are: batch first,
    or without the batch axis.
    """

    i: FloatArray
    """Input gate."""
    f: FloatArray
    """Forget gate."""
    g: FloatArray
    """Candidate."""
    o: FloatArray
    """Output gate."""
    c: FloatArray
    """Cell state."""
    h: FloatArray
    """Hidden state."""


@dataclass(eq=False)
class Gradients:
    """What :meth:`Tape.backward` returns: gradients of the loss.

    Attributes
    ----------
    x : ndarray
        Like the input of the call.
    state : tuple of ndarray
        Of ``(h_0, c_0)``.
    params : dict of str to ndarray
        By the names of the layer's parameters.
    """

    x: FloatArray
    state: State
    params: dict[str, FloatArray]
    _tape: int = field(repr=False)  # the number of the tape it came from


@dataclass
class _Layout:
    """How the caller laid out the sequences of one call; the core sees three axes always."""

    T: int
    B: int
    batch_first: bool
    batched: bool

    @property
    def time_axis(self) -> int:
        """The caller's axis of time steps."""
        return int(self.batched and self.batch_first)

    def shape(self, width: int) -> tuple[int, ...]:
        """The caller's shape of a sequence with this many features."""
        if not self.batched:
            return (self.T, width)
        return (self.B, self.T, width) if self.batch_first else (self.T, self.B, width)

    def core_shape(self, width: int) -> tuple[int, int, int]:
        """The same as the core takes it."""
        return (self.B, self.T, width) if self.batch_first else (self.T, self.B, width)

    def state_shape(self, cells: int, width: int) -> tuple[int, ...]:
        """The caller's shape of a state."""
        return (cells, self.B, width) if self.batched else (cells, width)

    def from_time_major(self, array: FloatArray) -> FloatArray:
        """A (T, B, width) array in the caller's layout."""
        if not self.batched:
            return array[:, 0]
        return np.ascontiguousarray(array.swapaxes(0, 1)) if self.batch_first else array


@dataclass
class _Call:
    """The checked arrays of one forward call, in the caller's shapes."""

    layout: _Layout
    x: FloatArray
    h_0: FloatArray | None
    c_0: FloatArray | None
    lengths: IndexArray | None
    output: FloatArray
    h_n: FloatArray
    c_n: FloatArray

    def core_arguments(self) -> dict[str, Any]:
        """The arguments of the core's forward functions: the same memory with a batch axis."""

        def sequence(array: FloatArray) -> FloatArray:
            return array.reshape(self.layout.core_shape(array.shape[-1]))

        def state(array: FloatArray | None) -> FloatArray | None:
            return None if array is None else _with_batch(array, self.layout)

        return {
            "x": sequence(self.x),
            "h_0": state(self.h_0),
            "c_0": state(self.c_0),
            "lengths": self.lengths,
            "output": sequence(self.output),
            "h_n": state(self.h_n),
            "c_n": state(self.c_n),
            "batch_first": self.layout.batch_first,
        }


def _with_batch(state: FloatArray, layout: _Layout) -> FloatArray:
    return state.reshape(state.shape[0], layout.B, state.shape[-1])


class LSTM(RecurrentLayer):
    r"""A stack of long short-term memory layers with PyTorch's parameters and semantics.

    For each step, with x the input, h' and c' the hidden and cell state of the step before:

    .. code-block:: text

        i = sigmoid(W_ii x + b_ii + W_hi h' + b_hi)     input gate
        f = sigmoid(W_if x + b_if + W_hf h' + b_hf)     forget gate
        g = tanh   (W_ig x + b_ig + W_hg h' + b_hg)     candidate
        o = sigmoid(W_io x + b_io + W_ho h' + b_ho)     output gate
        c = f c' + i g                                  cell state
        h = o tanh(c), or W_hr (o tanh(c)) with a projection

    Parameters
    ----------
    input_size, hidden_size : int
        I and H, the numbers of features of an input and of hidden units.
    num_layers : int
        L; each layer above the first reads the outputs of the one below.
    bias : bool
        Whether there are biases.
    batch_first : bool
        Sequences are (B, T, I) and (B, T, D * P). States keep their shapes.
    dropout : float
        The part of the values between layers that becomes zero in training, 0 to 1; the others are
        scaled by 1 / (1 - dropout).
    bidirectional : bool
        A second direction reads each sequence from its end; D is 2 then, and 1 otherwise.
    proj_size : int
        The width P that h is projected to, below hidden_size; 0: none, and P is H.
    reverse : bool
        The only direction reads each sequence from its end; outputs stay at their inputs' places.
    dtype : {"float32", "float64"}
        The type of parameters and results. Inputs of other types are converted.
    seed : int, optional
        Makes the initial values, and the dropout of the layer's training calls, reproducible.
    forget_bias : float, optional
        The initial sum of the forget gate's two biases, instead of random values. 1.0 helps to
        learn long dependencies (Jozefowicz, Zaremba, Sutskever 2015).

    Notes
    -----
    The initial values are PyTorch's: uniform in +-1/sqrt(H). A layer can be pickled, copied and
    saved. Calls from several threads at once are safe.

    References
    ----------
    Hochreiter and Schmidhuber 1997, "Long short-term memory"; Gers, Schmidhuber and Cummins 2000,
    "Learning to forget"; for the projection Sak, Senior and Beaufays 2014, "Long short-term memory
    based recurrent neural network architectures for large scale acoustic modeling".

    Examples
    --------
    >>> lstm = fastlstm.LSTM(8, 16, num_layers=2, seed=0)
    >>> x = np.zeros((5, 3, 8), dtype=np.float32)  # T = 5 steps of B = 3 sequences
    >>> output, (h_n, c_n) = lstm(x)
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 3, 16), (2, 3, 16), (2, 3, 16))
    """

    _gates = 4

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        forget_bias: float | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            reverse,
            dtype,
            seed,
        )
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers: with num_layers=1 it does nothing", stacklevel=2
            )
        if forget_bias is not None:
            self._set_forget_bias(as_real("forget_bias", forget_bias, -np.inf, np.inf))

    def _set_forget_bias(self, value: float) -> None:
        if not self.bias:
            raise ValueError("forget_bias: expected None for a layer without biases")
        forget = slice(self.hidden_size, 2 * self.hidden_size)
        biases = {name: b.copy() for name, b in self.params.items() if name.startswith("bias")}
        for name, b in biases.items():
            b[forget] = value if name.startswith("bias_ih") else 0.0
        self.update(biases)

    def _make_core(self, values: Mapping[str, FloatArray]) -> Any:
        return _CORES[self.dtype.name](
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            proj_size=self.proj_size,
            bidirectional=self.bidirectional,
            reverse=self.reverse,
            cells=[self._cell_arrays(values, k) for k in range(self._cells)],
        )

    # --- calls --------------------------------------------------------------------------------

    def __call__(
        self,
        x: Any,
        state: tuple[Any, Any] | None = None,
        *,
        lengths: Any = None,
        out: FloatArray | tuple[FloatArray, State] | None = None,
    ) -> tuple[FloatArray, State]:
        """Run the layer for inference: nothing is saved, and there is no dropout.

        Parameters
        ----------
        x : array_like
            (T, B, I), (B, T, I) with ``batch_first``, or (T, I) for one sequence; then outputs and
            states have no batch axis either. T >= 1. NumPy arrays and whatever has ``__dlpack__``
            or ``__array__``.
        state : tuple of array_like, optional
            ``(h_0, c_0)``, (L * D, B, P) and (L * D, B, H); zeros by default.
        lengths : array_like of int, optional
            (B,) with 0 <= length <= T in any order: the steps that each sequence really has. Output
            past a sequence's end is zero, the final state is the one at its end, the second
            direction starts at its end, and a length of 0 returns its initial state.
        out : ndarray, or tuple ``(output, (h_n, c_n))``, optional
            Where results go instead of into new arrays: contiguous, of the layer's dtype.

        Returns
        -------
        output : ndarray
            (T, B, D * P), or as the input is laid out: h of the last layer, both directions.
        state : tuple of ndarray
            ``(h_n, c_n)``, shaped as ``state``: the values after the last step.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        call = self._prepare(x, state, lengths, out)
        self._snapshot[1].forward(**call.core_arguments())
        return call.output, (call.h_n, call.c_n)

    def forward(
        self,
        x: Any,
        state: tuple[Any, Any] | None = None,
        *,
        lengths: Any = None,
        seed: int | None = None,
    ) -> tuple[FloatArray, State, Tape]:
        """Run the layer for training: dropout is active, and a tape keeps what backward needs.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.
        seed : int, optional
            Of the dropout masks; by default the next of the layer's own random numbers.

        Returns
        -------
        output, state
            As in a call of the layer.
        tape : Tape
            For :meth:`Tape.backward`. It holds the input and about 6H values for each step,
            sequence, layer and direction.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(8, 16, seed=0)
        >>> output, state, tape = lstm.forward(np.ones((5, 3, 8), dtype=np.float32))
        >>> grads = tape.backward(d_output=np.ones_like(output))
        >>> grads.x.shape, grads.params["weight_ih_l0"].shape
        ((5, 3, 8), (64, 8))
        """
        call = self._prepare(x, state, lengths, None)
        tape = self._record(call, self.dropout, self._draw_seed(seed))
        return call.output, (call.h_n, call.c_n), tape

    def trace(
        self, x: Any, state: tuple[Any, Any] | None = None, *, lengths: Any = None
    ) -> list[list[CellTrace]]:
        """Run the layer for inference and return every gate, cell and hidden value.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.

        Returns
        -------
        list of list of CellTrace
            By layer, then by direction (0: from the start).

        Examples
        --------
        >>> lstm = fastlstm.LSTM(8, 16, seed=0)
        >>> trace = lstm.trace(np.ones((5, 3, 8), dtype=np.float32))
        >>> trace[0][0].f.shape  # the forget gate of the first layer
        (5, 3, 16)
        """
        call = self._prepare(x, state, lengths, None)
        core = self._record(call, 0.0, 0)._core
        H = self.hidden_size

        def cell(k: int) -> CellTrace:
            gates = core.gates(k)
            values = [gates[..., n * H : (n + 1) * H] for n in range(4)]
            values += [core.cells(k), core.hidden(k)]
            return CellTrace(*(call.layout.from_time_major(value) for value in values))

        D = self._directions
        return [[cell(layer * D + d) for d in range(D)] for layer in range(self.num_layers)]

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a :class:`Stream`: the layer run step by step, keeping its state.

        Parameters
        ----------
        batch_size : int
            B, the number of sequences that go on side by side.

        Raises
        ------
        ValueError
            The layer reads sequences from their end (``bidirectional`` or ``reverse``).
        """
        return Stream(self, batch_size)

    def _record(self, call: _Call, dropout: float, seed: int) -> Tape:
        core_tape = self._snapshot[1].forward_train(
            **call.core_arguments(), dropout=dropout, seed=seed
        )
        return Tape(self, call.layout, core_tape)

    def _prepare(
        self,
        x: Any,
        state: tuple[Any, Any] | None,
        lengths: Any,
        out: FloatArray | tuple[FloatArray, State] | None,
    ) -> _Call:
        """Check and convert the arguments of a call, and make room for its results."""
        require_blas_for_forward()
        x = as_float_array("x", x, self.dtype)
        layout = self._layout(x)
        if layout.T == 0:
            raise ValueError("x: expected at least one time step, got none")
        if lengths is not None:
            if not layout.batched:
                raise ValueError("lengths: expected None for one sequence without a batch axis")
            lengths = as_lengths(lengths, layout.B, layout.T)
        h_0, c_0 = (None, None) if state is None else self._as_state("state", state, layout)
        output, h_n, c_n = self._make_room(layout, out)
        if out is not None:
            check_apart(
                {"out[0]": output, "out[1][0]": h_n, "out[1][1]": c_n},
                {"x": x, "h_0": h_0, "c_0": c_0},
            )
        return _Call(layout, x, h_0, c_0, lengths, output, h_n, c_n)

    def _layout(self, x: FloatArray) -> _Layout:
        I = self.input_size
        batch = ("B", "T", I) if self.batch_first else ("T", "B", I)
        check_shape("x", x, batch, ("T", I))
        if x.ndim == 2:
            return _Layout(x.shape[0], 1, self.batch_first, batched=False)
        first, second = x.shape[:2]
        T, B = (second, first) if self.batch_first else (first, second)
        return _Layout(T, B, self.batch_first, batched=True)

    def _state_shapes(self, layout: _Layout) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (
            layout.state_shape(self._cells, self._output_size),
            layout.state_shape(self._cells, self.hidden_size),
        )

    def _as_state(self, name: str, state: Any, layout: _Layout) -> State:
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            raise TypeError(f"{name}: expected a tuple of two arrays, got {type(state).__name__}")
        h_shape, c_shape = self._state_shapes(layout)
        h = as_float_array(f"{name}[0]", state[0], self.dtype)
        c = as_float_array(f"{name}[1]", state[1], self.dtype)
        check_shape(f"{name}[0]", h, h_shape)
        check_shape(f"{name}[1]", c, c_shape)
        return h, c

    def _make_room(
        self, layout: _Layout, out: FloatArray | tuple[FloatArray, State] | None
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """The arrays that results go to: output, h_n, c_n."""
        h_shape, c_shape = self._state_shapes(layout)
        shape = layout.shape(self._directions * self._output_size)
        if isinstance(out, tuple):
            if len(out) != 2 or not isinstance(out[1], tuple) or len(out[1]) != 2:
                raise TypeError("out: expected an array or a tuple (output, (h_n, c_n))")
            return (
                check_out("out[0]", out[0], self.dtype, shape),
                check_out("out[1][0]", out[1][0], self.dtype, h_shape),
                check_out("out[1][1]", out[1][1], self.dtype, c_shape),
            )
        output = (
            np.empty(shape, self.dtype) if out is None else check_out("out", out, self.dtype, shape)
        )
        return output, np.empty(h_shape, self.dtype), np.empty(c_shape, self.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the layer as a safetensors file that :func:`fastlstm.load` reads.

        The tensors have PyTorch's names; the configuration is in the metadata. A file that was
        there is replaced only when the new one is complete.
        """
        from ._files import save_layer

        save_layer(self, path)


LAYERS["LSTM"] = LSTM


class Tape:
    """What :meth:`LSTM.forward` saved for its backward pass.

    It keeps the parameters of its call: a later ``update`` of the layer does not change it.
    """

    _numbers = itertools.count()

    def __init__(self, layer: LSTM, layout: _Layout, core: Any) -> None:
        self._layer = layer
        self._layout = layout
        self._core = core
        self._number = next(self._numbers)

    def backward(
        self,
        d_output: Any = None,
        d_state: tuple[Any, Any] | None = None,
        *,
        accumulate: Gradients | None = None,
    ) -> Gradients:
        """Back-propagate through time. May be called again, with other gradients.

        Parameters
        ----------
        d_output : array_like, optional
            Gradient of the loss with respect to ``output``, in its shape; zeros by default. What it
            says past a sequence's end is not read.
        d_state : tuple of array_like, optional
            Gradients with respect to ``(h_n, c_n)``; zeros by default, and either may be None.
        accumulate : Gradients, optional
            An earlier result. The gradients of the parameters are added into its arrays, which the
            result shares. Those of the input and the state are added if it came from this tape (the
            result has new arrays); for another call's, which had another input, they are this
            call's alone.

        Returns
        -------
        Gradients
        """
        require_blas()
        layer, layout = self._layer, self._layout
        if d_output is not None:
            d_output = as_float_array("d_output", d_output, layer.dtype)
            width = layer._directions * layer._output_size
            check_shape("d_output", d_output, layout.shape(width))
            d_output = d_output.reshape(layout.core_shape(width))
        h_shape, c_shape = layer._state_shapes(layout)
        d_h_n, d_c_n = self._state_gradients(d_state, h_shape, c_shape)
        params = self._parameter_gradients(accumulate)

        d_x = np.empty(layout.shape(layer.input_size), layer.dtype)
        d_h_0 = np.empty(h_shape, layer.dtype)
        d_c_0 = np.empty(c_shape, layer.dtype)
        self._core.backward(
            d_output=d_output,
            d_h_n=d_h_n,
            d_c_n=d_c_n,
            d_x=d_x.reshape(layout.core_shape(layer.input_size)),
            d_h_0=_with_batch(d_h_0, layout),
            d_c_0=_with_batch(d_c_0, layout),
            d_params=[layer._cell_arrays(params, k) for k in range(layer._cells)],
        )
        if accumulate is not None and accumulate._tape == self._number:
            d_x += accumulate.x
            d_h_0 += accumulate.state[0]
            d_c_0 += accumulate.state[1]
        return Gradients(d_x, (d_h_0, d_c_0), params, self._number)

    def _state_gradients(
        self,
        d_state: Any,
        h_shape: tuple[int, ...],
        c_shape: tuple[int, ...],
    ) -> tuple[FloatArray | None, FloatArray | None]:
        if d_state is None:
            return None, None
        if not isinstance(d_state, (tuple, list)) or len(d_state) != 2:
            raise TypeError(
                f"d_state: expected a tuple of two arrays, got {type(d_state).__name__}"
            )
        gradients: list[FloatArray | None] = []
        for k, (value, shape) in enumerate(zip(d_state, (h_shape, c_shape), strict=True)):
            if value is None:
                gradients.append(None)
                continue
            array = as_float_array(f"d_state[{k}]", value, self._layer.dtype)
            check_shape(f"d_state[{k}]", array, shape)
            gradients.append(_with_batch(array, self._layout))
        return gradients[0], gradients[1]

    def _parameter_gradients(self, accumulate: Gradients | None) -> dict[str, FloatArray]:
        """The arrays that gradients of parameters are added to."""
        shapes = self._layer._shapes()
        if accumulate is None:
            return {name: np.zeros(shape, self._layer.dtype) for name, shape in shapes.items()}
        if not isinstance(accumulate, Gradients):
            raise TypeError(f"accumulate: expected Gradients, got {type(accumulate).__name__}")
        if list(accumulate.params) != list(shapes):
            raise ValueError("accumulate: expected gradients of this layer's parameters")
        for name, array in accumulate.params.items():
            check_out(f"accumulate.params[{name!r}]", array, self._layer.dtype, shapes[name])
        return accumulate.params


class Stream:
    """An LSTM that runs step by step and keeps its state: for serving, audio, trading, control.

    Made by :meth:`LSTM.stream`. It keeps the parameters that the layer had then; a later ``update``
    does not change it. One thread at a time may use it.

    Examples
    --------
    >>> lstm = fastlstm.LSTM(8, 16, seed=0)
    >>> stream = lstm.stream()
    >>> x = np.ones((5, 1, 8), dtype=np.float32)
    >>> steps = np.stack([stream.step(x_t) for x_t in x])
    >>> np.allclose(steps, lstm(x)[0], atol=1e-6)
    True
    """

    def __init__(self, layer: LSTM, batch_size: int) -> None:
        if layer.bidirectional or layer.reverse:
            raise ValueError("stream: a layer that reads sequences from their end cannot stream")
        self._layer = layer
        self._batch_size = as_int("batch_size", batch_size, 1, MOST_SIZE)
        require_blas_for_forward()
        self._core = _STREAMS[layer.dtype.name](layer._snapshot[1], self._batch_size)
        self._try_step = self._core.try_step
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
            The last layer's h at every step, laid out as x.
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
    def state(self) -> State:
        """The state ``(h, c)``, (L, B, P) and (L, B, H), as copies. Can be assigned."""
        h, c = self._core.state()
        return h, c

    @state.setter
    def state(self, state: tuple[Any, Any]) -> None:
        layout = _Layout(1, self._batch_size, batch_first=False, batched=True)
        h, c = self._layer._as_state("state", state, layout)
        self._core.set_state(h, c)

    def reset(self, rows: Any = None) -> None:
        """Set the state to zero: of all sequences, or of some.

        Parameters
        ----------
        rows : int, slice, or array_like of int or bool, optional
            Which of the B sequences, as NumPy indexes them.
        """
        index = slice(None) if rows is None else rows
        if isinstance(index, (list, tuple)):
            index = np.asarray(index, dtype=np.intp if len(index) == 0 else None)
        h, c = self._core.state()
        try:
            h[:, index] = 0
            c[:, index] = 0
        except IndexError as error:
            raise ValueError(
                f"rows: expected indices of {self._batch_size} sequences: {error}"
            ) from None
        self._core.set_state(h, c)
