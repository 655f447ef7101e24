"""What all recurrent layers share: parameters, their values, saving and copying, calls."""

from __future__ import annotations

import copy
import math
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import _core
from ._activations import ActivationName, core_functions
from ._blas import require_blas_for_forward
from ._calls import Call, Layout, States, StateT, as_tuple, directions_apart
from ._checks import (
    MOST_SIZE,
    FloatArray,
    as_bool,
    as_dtype,
    as_float_array,
    as_int,
    as_lengths,
    as_merge,
    as_real,
    check_apart,
    check_mapping,
    check_out,
    check_shape,
)
from ._stream import Stream
from ._tape import Tape

TraceT = TypeVar("TraceT")

_CORES: dict[str, Any] = {"float32": _core.StackFloat32, "float64": _core.StackFloat64}

# The layers that files can hold, by name; each module of a layer adds its own.
LAYERS: dict[str, type[Any]] = {}


_MOST_BYTES = 2**62


class TrainingMemory(NamedTuple):
    """What a training call takes, as :meth:`RecurrentLayer.training_memory` predicts it."""

    bytes: int
    """Of the tape and the backward pass at most, beside the arrays passed and returned."""
    extra_time: float
    """Of forward and backward, for what is computed twice: 0 to 1/3."""


class RecurrentLayer(Generic[StateT, TraceT]):
    """A stack of recurrent layers: its configuration, its parameters and their values.

    The values are immutable: :meth:`update` replaces arrays, it never writes into them. So an array
    taken from :attr:`params` keeps its values, calls in other threads go on with the values they
    started with, and a tape holds those of its own call.
    """

    # Rows of the stacked weights for each hidden unit: the number of gates.
    _gates: ClassVar[int]
    # The NamedTuple of what one layer and direction computes: the gates in the core's order, c, h.
    _trace_type: ClassVar[Any]
    # Options that the repr shows where they differ from these defaults, in its order.
    _defaults: ClassVar[dict[str, Any]] = {
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "reverse": False,
        "merge": "concat",
        "dtype": "float32",
    }

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        reverse: bool,
        dtype: npt.DTypeLike,
        seed: int | None,
        *,
        merge: str | None = "concat",
        **cell_options: Any,
    ) -> None:
        """cell_options: those of one kind of layer alone, already checked."""
        self._options: dict[str, Any] = {
            "input_size": as_int("input_size", input_size, 1, MOST_SIZE),
            "hidden_size": as_int("hidden_size", hidden_size, 1, MOST_SIZE),
            "num_layers": as_int("num_layers", num_layers, 1, MOST_SIZE),
            "bias": as_bool("bias", bias),
            "batch_first": as_bool("batch_first", batch_first),
            "dropout": as_real("dropout", dropout, 0.0, 1.0),
            "bidirectional": as_bool("bidirectional", bidirectional),
            "reverse": as_bool("reverse", reverse),
            "merge": as_merge(merge, bidirectional),
            "dtype": as_dtype(dtype).name,
            **cell_options,
        }
        if self.bidirectional and self.reverse:
            raise ValueError("reverse: expected False for a bidirectional layer, got True")
        if seed is not None:
            as_int("seed", seed, 0, 2**64 - 1)
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._set_values(self._initial_values())
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers: with num_layers=1 it does nothing", stacklevel=3
            )

    # --- configuration ------------------------------------------------------------------------

    @property
    def input_size(self) -> int:
        """I, the number of features of an input."""
        return int(self._options["input_size"])

    @property
    def hidden_size(self) -> int:
        """H, the number of hidden units."""
        return int(self._options["hidden_size"])

    @property
    def num_layers(self) -> int:
        """L, the number of stacked layers."""
        return int(self._options["num_layers"])

    @property
    def bias(self) -> bool:
        """Whether the layers have biases."""
        return bool(self._options["bias"])

    @property
    def batch_first(self) -> bool:
        """Whether sequences are (B, T, I) instead of (T, B, I)."""
        return bool(self._options["batch_first"])

    @property
    def dropout(self) -> float:
        """The part of the values between layers that becomes zero in training."""
        return float(self._options["dropout"])

    @property
    def recurrent_dropout(self) -> float:
        """The part of h that becomes zero, in training, where R reads it."""
        return float(self._options.get("recurrent_dropout", 0.0))

    @property
    def weight_dropout(self) -> float:
        """The part of the values of R that becomes zero in training."""
        return float(self._options.get("weight_dropout", 0.0))

    @property
    def bidirectional(self) -> bool:
        """Whether a second direction reads each sequence from its end."""
        return bool(self._options["bidirectional"])

    @property
    def reverse(self) -> bool:
        """Whether the only direction reads each sequence from its end."""
        return bool(self._options["reverse"])

    @property
    def clip(self) -> float | None:
        """The bound of the sums before the gates' functions; None: they have none."""
        clip: float | None = self._options["clip"]
        return clip

    @property
    def activations(self) -> tuple[ActivationName, ...]:
        """The cell's functions, in the order of the option."""
        return tuple(self._options["activations"])

    @property
    def merge(self) -> str | None:
        """How the outputs of two directions are merged; None: not at all."""
        merge: str | None = self._options["merge"]
        return merge

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of parameters, inputs and results: float32 or float64."""
        dtype: np.dtype[Any] = np.dtype(self._options["dtype"])
        return dtype

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _cells(self) -> int:
        """Pairs of layer and direction; cell k is layer k // D, direction k % D."""
        return self.num_layers * self._directions

    @property
    def _output_size(self) -> int:
        """P, the width of h."""
        return self.hidden_size

    def __repr__(self) -> str:
        options = [
            f"{name}={self._options[name]!r}"
            for name, default in self._defaults.items()
            if self._options[name] != default
        ]
        sizes = [str(self.input_size), str(self.hidden_size)]
        return f"{type(self).__name__}({', '.join(sizes + options)})"

    # --- parameters ---------------------------------------------------------------------------

    def _parameter_shapes(self, input_size: int) -> dict[str, tuple[int, ...]]:
        """The parameters of one layer and direction in PyTorch's order: name -> shape."""
        rows = self._gates * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, input_size),
            "weight_hh": (rows, self._output_size),
        }
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        return shapes

    def _cell_shapes(self, k: int) -> dict[str, tuple[int, ...]]:
        """The parameters of cell k under their full names."""
        layer, direction = divmod(k, self._directions)
        below = self.input_size if layer == 0 else self._directions * self._output_size
        suffix = f"_l{layer}" + ("_reverse" if direction == 1 else "")
        return {name + suffix: shape for name, shape in self._parameter_shapes(below).items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """All parameters in PyTorch's order: name -> shape."""
        return {
            name: shape for k in range(self._cells) for name, shape in self._cell_shapes(k).items()
        }

    def _initial_values(self) -> dict[str, FloatArray]:
        """PyTorch's initialisation: uniform in +-1/sqrt(H)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        return {
            name: self._random.uniform(-bound, bound, shape).astype(self.dtype)
            for name, shape in self._shapes().items()
        }

    def _cell_arrays(self, values: Mapping[str, FloatArray], k: int) -> list[FloatArray | None]:
        """The parameters of cell k as the core takes them: absent ones are None."""
        by_kind = {name.rpartition("_l")[0]: values.get(name) for name in self._cell_shapes(k)}
        kinds = (
            "weight_ih",
            "weight_hh",
            "bias_ih",
            "bias_hh",
            "weight_hr",
            "weight_peephole",
            "weight_ln_ih",
            "weight_ln_hh",
            "weight_ln_c",
            "bias_ln_c",
        )
        return [by_kind.get(kind) for kind in kinds]

    def _core_options(self) -> dict[str, Any]:
        """What the core wants to know of this kind of cell: the plain one's, for it to change."""
        return {
            "proj_size": 0,
            **core_functions(("Sigmoid", "Tanh", "Tanh"), None),
            "input_forget": False,
            "peepholes": False,
            "layer_norm": False,
            "zoneout_h": 0.0,
            "zoneout_c": 0.0,
        }

    def _make_core(self, values: Mapping[str, FloatArray]) -> Any:
        """The core's layers with these values."""
        return _CORES[self.dtype.name](
            input_size=self.input_size,
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            bidirectional=self.bidirectional,
            reverse=self.reverse,
            merge=self.merge or "concat",
            cells=[self._cell_arrays(values, k) for k in range(self._cells)],
            **self._core_options(),
        )

    def _set_values(self, values: dict[str, FloatArray], core: Any = None) -> None:
        """Make these arrays the parameters. Nobody else may hold a writable view of them."""
        for name, array in values.items():
            if array.flags.writeable:
                array.flags.writeable = False
                values[name] = array.view()  # unlike the owner, it cannot be made writable again
        # One assignment, so that a call in another thread sees both old or both new.
        self._snapshot = (values, self._make_core(values) if core is None else core)

    @property
    def params(self) -> Mapping[str, FloatArray]:
        """The parameters: a read-only mapping from PyTorch's names to read-only arrays."""
        return MappingProxyType(self._snapshot[0])

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(math.prod(shape) for shape in self._shapes().values())

    def update(self, values: Mapping[str, Any]) -> None:
        """Give some parameters new values.

        Parameters
        ----------
        values : mapping of str to array_like
            Names and shapes as in :attr:`params`. The values are copied.

        Raises
        ------
        ValueError
            A name or a shape is not the layer's.
        TypeError
            A value is not an array of numbers. After an error the layer is as it was.
        """
        check_mapping("values", values)
        shapes = self._shapes()
        new: dict[str, FloatArray] = {}
        for name, value in values.items():
            if name not in shapes:
                raise ValueError(
                    f"values: expected names of parameters ({', '.join(shapes)}), got {name!r}"
                )
            array = as_float_array(name, value, self.dtype)
            check_shape(name, array, shapes[name])
            new[name] = array.copy()
        with self._lock:
            old, core = self._snapshot
            merged = {**old, **new}
            for k in range(self._cells):
                if any(name in new for name in self._cell_shapes(k)):
                    core = core.with_params(k, self._cell_arrays(merged, k))
            self._set_values(merged, core)

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of all parameters by PyTorch's names, which ``torch.nn`` can load."""
        return {name: array.copy() for name, array in self.params.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take all parameters from a mapping with PyTorch's names, of arrays or tensors.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Names and shapes as in :attr:`params`, all of them. The values are copied.

        Raises
        ------
        ValueError
            Names are missing or unexpected, or a shape differs.
        TypeError
            A value is not an array of numbers. After an error the layer is as it was.
        """
        check_mapping("state_dict", state_dict)
        names = self._shapes()
        missing = [name for name in names if name not in state_dict]
        unexpected = [str(name) for name in state_dict if name not in names]
        if missing or unexpected:
            raise ValueError(
                f"state_dict: expected the parameters of {self!r}; "
                f"missing: {', '.join(missing) or 'none'}; "
                f"unexpected: {', '.join(unexpected) or 'none'}"
            )
        self.update(state_dict)

    # --- copies -------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_snapshot"], state["_lock"]
        state["_values"] = dict(self.params)
        # A shallow copy draws random numbers of its own, too.
        state["_random"] = copy.deepcopy(self._random)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays may be views of a buffer that is not ours (pickle's protocol 5).
        values = {
            name: array if array.flags.owndata else array.copy()
            for name, array in state.pop("_values").items()
        }
        self.__dict__.update(state)
        self._lock = threading.Lock()
        self._set_values(values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the layer as a safetensors file that :func:`fastlstm.load` reads.

        The tensors have PyTorch's names; the configuration is in the metadata. A file that was
        there is replaced only when the new one is complete.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        OSError
            It cannot be written.
        TypeError
            The path is neither text nor path-like.
        """
        from ._files import save_layer

        save_layer(self, path)

    # --- calls --------------------------------------------------------------------------------

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        out: FloatArray | tuple[FloatArray, StateT] | None = None,
    ) -> tuple[FloatArray, StateT]:
        """Run the layer for inference: nothing is saved, and there is no dropout.

        Parameters
        ----------
        x : array_like
            (T, B, I), (B, T, I) with ``batch_first``, or (T, I) for one sequence; then outputs and
            states have no batch axis either. T >= 1. NumPy arrays and whatever has ``__dlpack__``
            or ``__array__``.
        state : tuple of array_like, or array_like, optional
            ``(h_0, c_0)``, (L * D, B, P) and (L * D, B, H), or ``h_0`` alone where the cell has no
            c; zeros by default.
        lengths : array_like of int, optional
            (B,) with 0 <= length <= T in any order: the steps that each sequence really has. Output
            past a sequence's end is zero, the final state is the one at its end, the second
            direction starts at its end, and a length of 0 returns its initial state.
        out : ndarray, or tuple ``(output, state)``, optional
            Where results go instead of into new arrays: contiguous, of the layer's dtype.

        Returns
        -------
        output : ndarray
            (T, B, D * P), or as the input is laid out: h of the last layer, both directions side by
            side, or as ``merge`` says.
        state : tuple of ndarray, or ndarray
            ``(h_n, c_n)`` or ``h_n``, shaped as ``state``: the values after the last step.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated.
        """
        call = self._prepare(x, state, lengths, out)
        self._snapshot[1].forward(**call.core_arguments())
        return self._output(call), self._from_tuple(call.final)

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        seed: int | None = None,
        memory_limit: int | None = None,
    ) -> tuple[FloatArray, StateT, Tape[StateT]]:
        """Run the layer for training: dropout is active, and a tape keeps what backward needs.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.
        seed : int, optional
            Of the dropout masks; by default the next of the layer's own random numbers.
        memory_limit : int, optional
            The bytes that the tape and its backward pass may take at most, beside the arrays that
            are passed and returned. What does not fit is computed twice: the results and gradients
            have the same bits, and training takes up to a third longer. :meth:`training_memory`
            says how much longer.

        Returns
        -------
        output, state
            As in a call of the layer.
        tape : Tape
            For :meth:`Tape.backward`. Without a limit it holds the input and, of an LSTM, 6H values
            for each step, sequence, layer and direction.

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated, or the limit is below the
            least possible, which the message tells.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(8, 16, seed=0)
        >>> output, state, tape = lstm.forward(np.ones((5, 3, 8), dtype=np.float32))
        >>> grads = tape.backward(d_output=np.ones_like(output))
        >>> grads.x.shape, grads.params["weight_ih_l0"].shape
        ((5, 3, 8), (64, 8))
        """
        call = self._prepare(x, state, lengths, None)
        limit = 0 if memory_limit is None else as_int("memory_limit", memory_limit, 1, _MOST_BYTES)
        tape = self._record(call, self._draw_seed(seed), limit)
        return self._output(call), self._from_tuple(call.final), tape

    def training_memory(
        self, T: int, B: int = 1, *, lengths: Any = None, memory_limit: int | None = None
    ) -> TrainingMemory:
        """Predict what :meth:`forward` and :meth:`Tape.backward` will take for such a call.

        Parameters
        ----------
        T, B : int
            Time steps and sequences.
        lengths, memory_limit
            As in :meth:`forward`.

        Returns
        -------
        TrainingMemory
            ``bytes`` and ``extra_time``.

        Raises
        ------
        ValueError, TypeError
            As in :meth:`forward`.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(64, 256)
        >>> round(lstm.training_memory(T=10_000, B=8).bytes / 1e9, 1)  # in GB
        0.5
        >>> lstm.training_memory(T=10_000, B=8, memory_limit=300 * 10**6).extra_time < 1 / 3
        True
        """
        T, B = as_int("T", T, 1, MOST_SIZE), as_int("B", B, 0, MOST_SIZE)
        if lengths is not None:
            lengths = as_lengths(lengths, B, T)
        limit = 0 if memory_limit is None else as_int("memory_limit", memory_limit, 1, _MOST_BYTES)
        # The core counts in 64 bits; this is several times what a call takes, without an end.
        if 256 * T * B * (self.input_size + self._cells * self.hidden_size) >= _MOST_BYTES:
            raise ValueError(f"T, B: expected a call of less than 2**62 bytes, got {T}, {B}")
        core = self._snapshot[1]
        return TrainingMemory(
            *core.training_memory(
                T, B, lengths, self.batch_first, self.dropout, self.weight_dropout, limit
            )
        )

    def trace(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        d_output: Any = None,
        d_state: Any = None,
    ) -> list[list[TraceT]]:
        """Run the layer for inference and return every gate, cell and hidden value.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.
        d_output, d_state : optional
            Gradients of a loss, as for :meth:`Tape.backward`. With either, the trace also has the
            gradients of the state after each step, as they come from the steps that follow:
            ``d_h[t]`` and ``d_c[t]`` are what ``state`` would be in the gradients of a call that
            began at step t + 1.

        Returns
        -------
        list of list
            What one layer and direction computed (an LSTM: :class:`LSTMTrace`), by layer, then by
            direction (0: from the start).

        Raises
        ------
        ValueError, TypeError
            As in a call of the layer, and for the gradients as :meth:`Tape.backward`.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(8, 16, seed=0)
        >>> trace = lstm.trace(np.ones((5, 3, 8), dtype=np.float32))
        >>> trace[0][0].f.shape  # the forget gate of the first layer
        (5, 3, 16)

        How much of the last output's gradient reaches each step before it:

        >>> d_output = np.zeros((5, 3, 16), dtype=np.float32)
        >>> d_output[-1] = 1
        >>> trace = lstm.trace(np.ones((5, 3, 8), dtype=np.float32), d_output=d_output)
        >>> np.linalg.norm(trace[0][0].d_h, axis=-1).shape  # by time step and sequence
        (5, 3)
        """
        call = self._prepare(x, state, lengths, None)
        tape = self._record(call, None)
        core, H = tape._core, self.hidden_size
        gradients: dict[str, FloatArray] = {}
        if d_output is not None or d_state is not None:
            shape = (self._cells, call.layout.T, call.layout.B)
            steps = tuple(np.empty((*shape, width), self.dtype) for width in self._state_sizes())
            tape._backward(d_output, d_state, tape._needs("state"), {}, steps)
            gradients = dict(zip(("d_h", "d_c"), steps, strict=False))

        def values(k: int) -> Iterator[FloatArray | None]:
            gates = core.gates(k)
            for n, name in enumerate(self._trace_type._fields):
                if name in ("d_h", "d_c"):
                    yield gradients[name][k] if name in gradients else None
                elif name == "h":
                    yield core.hidden(k)
                elif name == "c":
                    yield core.cells(k)
                else:
                    yield gates[..., n * H : (n + 1) * H]

        def cell(k: int) -> TraceT:
            arrays = (v if v is None else call.layout.from_time_major(v) for v in values(k))
            return cast(TraceT, self._trace_type(*arrays))

        D = self._directions
        return [[cell(layer * D + d) for d in range(D)] for layer in range(self.num_layers)]

    def stream(self, batch_size: int = 1) -> Stream[StateT]:
        """Return a :class:`Stream`: the layer run step by step, keeping its state.

        Parameters
        ----------
        batch_size : int
            B, the number of sequences that go on side by side.

        Returns
        -------
        Stream
            Its state is zeros. It keeps the parameters of this moment.

        Raises
        ------
        ValueError, TypeError
            ``batch_size`` is no positive integer, or the layer reads sequences from their end
            (``bidirectional`` or ``reverse``).
        """
        return Stream(self, batch_size)

    def _record(self, call: Call, seed: int | None, memory_limit: int = 0) -> Tape[StateT]:
        """The tape of a training call; without a seed that of inference."""
        trains = seed is not None
        core_tape = self._snapshot[1].forward_train(
            **call.core_arguments(),
            dropout=self.dropout if trains else 0.0,
            seed=seed or 0,
            recurrent_dropout=self.recurrent_dropout if trains else 0.0,
            weight_dropout=self.weight_dropout if trains else 0.0,
            zoneout=trains,
            memory_limit=memory_limit,
        )
        return Tape(self, call.layout, core_tape)

    def _prepare(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        out: FloatArray | tuple[FloatArray, StateT] | None,
    ) -> Call:
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
        initial = None if state is None else self._as_states("state", state, layout)
        output, final = self._make_room(layout, out)
        if out is not None:
            results = {"out[0]": output}
            if isinstance(out, tuple):
                results |= zip(self._names("out[1]"), final, strict=True)
            given = zip(self._names("state"), initial, strict=True) if initial else ()
            check_apart(results, {"x": x, **dict(given)})
        if self.merge is not None:
            return Call(layout, x, initial, lengths, output, final)
        side_by_side = np.empty(layout.shape(2 * self._output_size), self.dtype)
        return Call(layout, x, initial, lengths, side_by_side, final, separate=output)

    def _output(self, call: Call) -> FloatArray:
        """The output of a call as the caller has it."""
        if call.separate is None:
            return call.output
        np.copyto(call.separate, directions_apart(call.output))
        return call.separate

    def _output_shape(self, layout: Layout) -> tuple[int, ...]:
        """The caller's shape of an output."""
        if self.merge is None:
            return (2, *layout.shape(self._output_size))
        D = self._directions if self.merge == "concat" else 1
        return layout.shape(D * self._output_size)

    def _layout(self, x: FloatArray) -> Layout:
        I, batch_first = self.input_size, self.batch_first
        if x.ndim not in (2, 3) or x.shape[-1] != I:
            check_shape("x", x, ("B", "T", I) if batch_first else ("T", "B", I), ("T", I))
        if x.ndim == 2:
            return Layout(x.shape[0], 1, batch_first, batched=False)
        first, second = x.shape[:2]
        T, B = (second, first) if batch_first else (first, second)
        return Layout(T, B, batch_first, batched=True)

    # --- states: one array or several to the caller, a tuple in here ----------------------------

    def _state_sizes(self) -> tuple[int, ...]:
        """The widths of the arrays of a state."""
        return (self._output_size,)

    def _state_shapes(self, layout: Layout) -> tuple[tuple[int, ...], ...]:
        cells = self._cells
        return tuple([layout.state_shape(cells, size) for size in self._state_sizes()])

    def _from_tuple(self, states: States) -> StateT:
        """A state as the caller has it."""
        return cast(StateT, states if len(states) > 1 else states[0])

    def _names(self, argument: str) -> list[str]:
        """What errors call the arrays of a state."""
        count = len(self._state_sizes())
        return [argument] if count == 1 else [f"{argument}[{k}]" for k in range(count)]

    def _state_items(
        self, argument: str, state: Any, layout: Layout
    ) -> list[tuple[str, Any, tuple[int, ...]]]:
        """Name, value and expected shape of each array of a state."""
        shapes = self._state_shapes(layout)
        if len(shapes) == 1:
            state = (state,)
        elif not isinstance(state, (tuple, list)) or len(state) != len(shapes):
            kind = type(state).__name__
            raise TypeError(f"{argument}: expected a tuple of two arrays, got {kind}")
        return list(zip(self._names(argument), state, shapes, strict=True))

    def _as_states(self, argument: str, state: Any, layout: Layout) -> States:
        arrays = []
        for name, value, shape in self._state_items(argument, state, layout):
            array = as_float_array(name, value, self.dtype)
            check_shape(name, array, shape)
            arrays.append(array)
        return tuple(arrays)

    def _make_room(
        self, layout: Layout, out: FloatArray | tuple[FloatArray, StateT] | None
    ) -> tuple[FloatArray, States]:
        """The arrays that results go to: the output and the final state."""
        shape = self._output_shape(layout)
        if isinstance(out, tuple):
            count = len(self._state_sizes())
            if (
                len(out) != 2
                or (count > 1 and not isinstance(out[1], tuple))
                or (len(as_tuple(out[1])) != count)
            ):
                pattern = "(h_n, c_n)" if count > 1 else "h_n"
                raise TypeError(f"out: expected an array or a tuple (output, {pattern})")
            return check_out("out[0]", out[0], self.dtype, shape), tuple(
                check_out(name, array, self.dtype, state_shape)
                for name, array, state_shape in self._state_items("out[1]", out[1], layout)
            )
        dtype = self.dtype
        output = np.empty(shape, dtype) if out is None else check_out("out", out, dtype, shape)
        return output, tuple([np.empty(s, dtype) for s in self._state_shapes(layout)])

    def _draw_seed(self, seed: int | None) -> int:
        """The seed of one training call: the caller's, or the next of the layer's own."""
        if seed is None:
            return int(self._random.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
        return as_int("seed", seed, 0, 2**64 - 1)


def check_layer(layer: Any) -> None:
    """Raise TypeError unless it is a layer."""
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN, got {type(layer).__name__}")
