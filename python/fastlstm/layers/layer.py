"""What all recurrent layers share: options, parameters, saving and copying, calls."""

from __future__ import annotations

import copy
import math
import os
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from fastlstm._activations import ActivationName
from fastlstm._checks import MOST_SIZE, FloatArray, as_bool, as_int, as_lengths
from fastlstm._pieces import copied
from fastlstm._runtime import MOST_THREADS, get_num_threads, num_threads

from .calls import Call, Padding, prepare
from .core import Tape as CoreTape
from .core import plan
from .files import write_layer
from .layouts import StateT
from .options import (
    HasOptions,
    Option,
    as_dtype_name,
    as_it_is,
    as_merge,
    as_probability,
    as_size,
    table_of,
)
from .plan import Plan, plan_of
from .public import public
from .quantization import (
    Quantization,
    Stored,
    WidenedParams,
    as_quantization,
    own_stored,
    stored_values,
    with_quantization,
)
from .spec import Spec
from .states import from_tuple
from .stream import Stream
from .tape import Tape
from .trace import read_trace
from .values import Values, check_names, initial_values, own_values

TraceT = TypeVar("TraceT")
LayerT = TypeVar("LayerT", bound="RecurrentLayer[Any, Any]")

_MOST_BYTES = 2**62
# The core lists the rows of each step of uneven sequences: so many take half a gigabyte.
_MOST_COUNTED_STEPS = 2**25


@public
class TrainingMemory(NamedTuple):
    """What a training call takes, as :meth:`RecurrentLayer.training_memory` predicts it."""

    bytes: int
    """Of the tape and the backward pass at most, beside the arrays passed and returned."""
    extra_time: float
    """Of forward and backward, for what is computed twice: 0 to 1/3."""


class RecurrentLayer(HasOptions, Generic[StateT, TraceT]):
    """A stack of recurrent layers: its configuration, its parameters and their values.

    The values are immutable: :meth:`update` replaces arrays, it never writes into them. So an array
    taken from :attr:`params` keeps its values, calls in other threads go on with the values they
    started with, and a tape holds those of its own call.

    A kind of layer brings its options, its ``__init__`` with their defaults, what
    :func:`fastlstm.layers.trace.read_trace` needs, and what its cell is to the core.
    """

    # The NamedTuple of what one layer and direction computes.
    _trace_type: ClassVar[Any]
    # Layers that were pickled before there was any have none.
    _quantization: Quantization | None = None

    input_size = Option[int](as_size, "I, the number of features of an input.", core=as_it_is)
    hidden_size = Option[int](as_size, "H, the number of hidden units.", core=as_it_is)
    num_layers = Option[int](as_size, "L, the number of stacked layers.", core=as_it_is)
    bias = Option[bool](as_bool, "Whether the layers have biases.", core=as_it_is)
    batch_first = Option[bool](as_bool, "Whether sequences are (B, T, I) instead of (T, B, I).")
    dropout = Option[float](
        as_probability,
        "The part of the values between layers that becomes zero in training.",
        training=True,
    )
    bidirectional = Option[bool](
        as_bool, "Whether a second direction reads each sequence from its end.", core=as_it_is
    )
    reverse = Option[bool](
        as_bool, "Whether the only direction reads each sequence from its end.", core=as_it_is
    )
    merge = Option[str | None](
        as_merge,
        "How the outputs of two directions are merged; None: not at all.",
        core=lambda name, merge: {name: merge or "concat"},
    )
    dtype = Option[np.dtype[Any]](
        as_dtype_name,
        "The type of parameters, inputs and results: float32 or float64.",
        read=lambda options: np.dtype(options["dtype"]),
    )
    # Every kind has these too, each at its place among its own options.
    clip: Option[float | None]
    activations: Option[tuple[ActivationName, ...]]
    recurrent_dropout: Option[float]
    weight_dropout: Option[float]

    # arguments: all of the class's own __init__, by name. (Classes would inherit a docstring.)
    def __init__(self, arguments: Mapping[str, Any]) -> None:
        options = _checked(type(self), arguments)
        seed = arguments["seed"]
        if seed is not None:
            as_int("seed", seed, 0, 2**64 - 1)
        random = np.random.default_rng(seed)
        spec = _make_spec(type(self), options)
        self._begin(options, random, spec, initial_values(spec, random))

    def _begin(
        self,
        options: Mapping[str, Any],
        random: np.random.Generator,
        spec: Spec,
        values: Mapping[str, FloatArray],
    ) -> None:
        self._options = options
        self._random = random
        self._spec = spec
        self._values = Values(spec, values)
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                "dropout acts between layers: with num_layers=1 it does nothing", stacklevel=4
            )

    @classmethod
    def _check_together(cls, options: Mapping[str, Any]) -> None:
        """Refuse options that do not go together."""
        if options["merge"] != "concat" and not options["bidirectional"]:
            raise ValueError(
                f"merge: expected 'concat' for a layer of one direction, got {options['merge']!r}"
            )
        if options["bidirectional"] and options["reverse"]:
            raise ValueError("reverse: expected False for a bidirectional layer, got True")

    @classmethod
    def _config(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """What the core is told of these options; a kind of layer adds the name of its cell."""
        return cls._table.core(options)

    # --- parameters ---------------------------------------------------------------------------

    @property
    def params(self) -> Mapping[str, FloatArray]:
        """The parameters: a read-only mapping from PyTorch's names to read-only arrays.

        No array of Python leads to their memory and can be made writable. (``torch.from_numpy``,
        which warns of it, and ``ctypes`` do not ask: what they write is undefined behaviour.)

        Of a quantized layer they are the values that it computes with, as float32: arrays made anew
        at each access. What it keeps is in :attr:`stored`.
        """
        stored = self._values.params()
        return stored if self._quantization is None else WidenedParams(self._spec, stored)

    @property
    def stored(self) -> Mapping[str, npt.NDArray[Any]]:
        """What the layer keeps: a read-only mapping from names to read-only arrays.

        Of a quantized layer the weights are uint16 (bfloat16: the upper half of a float32), or int8
        beside ``weight_ih_l0_scale``, float32, by which a row of ``weight_ih_l0`` is multiplied.
        Otherwise they are :attr:`params`.
        """
        return self._values.params()

    @property
    def quantization(self) -> Quantization | None:
        """How :meth:`quantize` has stored the weights; None: as float32 or float64."""
        return self._quantization

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(math.prod(shape) for shape in self._spec.shapes.values())

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
        self._check_trains("update")
        self._values.update(values)

    def state_dict(self) -> dict[str, FloatArray]:
        """Return copies of all parameters by PyTorch's names, which ``torch.nn`` can load."""
        return {name: copied(array) for name, array in self.params.items()}

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
        self._check_trains("load_state_dict")
        check_names(self._spec, state_dict, repr(self))
        self.update(state_dict)

    # --- copies -------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        del state["_spec"]
        state["_values"] = dict(self.stored)
        # A shallow copy draws random numbers of its own, too.
        state["_random"] = copy.deepcopy(self._random)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Arrays may be views of a buffer that is not ours (pickle's protocol 5).
        values = {
            name: array if array.flags.owndata else array.copy()
            for name, array in state["_values"].items()
        }
        self.__dict__.update(state)
        self._spec = _make_spec(type(self), self._options, self._quantization)
        self._values = Values(self._spec, values)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the layer as a safetensors file that :func:`fastlstm.load` reads.

        The tensors have PyTorch's names; the configuration is in the metadata. A file that was
        there is replaced, whole, once the disk has the new one, which keeps its mode and owner.
        Symbolic links lead to the file that is replaced. What a save does to folders, links and
        devices stands in docs/files.md.

        Parameters
        ----------
        path : path-like
            The file.

        Raises
        ------
        OSError
            It cannot be written, or the user may not write to the one that is there; that one is
            as it was.
        TypeError
            The path is neither text nor path-like.
        """
        write_layer(path, type(self).__name__, self._options, self.stored, self._quantization)

    def to_torch(self) -> Any:
        """Make a PyTorch module of the layer: one of :mod:`fastlstm.torch`, of the same class name.

        :func:`fastlstm.from_torch` is the way back.

        Returns
        -------
        fastlstm.torch.LSTM, GRU or RNN
            With the layer's options and dtype, and copies of its values; in training mode, as all
            new modules.

        Raises
        ------
        ModuleNotFoundError
            PyTorch is not installed.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(8, 16, num_layers=2, zoneout=0.1)
        >>> lstm.to_torch()  # doctest: +SKIP
        LSTM(8, 16, num_layers=2, zoneout=(0.1, 0.1))
        """
        self._check_trains("to_torch")
        # By its name: it is above this package.
        return import_module("fastlstm.torch._convert").module_of(self)

    # --- small weights ------------------------------------------------------------------------

    def quantize(self: LayerT, weights: str, activations: str = "float32") -> LayerT:
        """Return a layer of the same class with small weights, for inference.

        Calls, streams, traces, files and copies are as of any layer, and a row's results have the
        same bits whatever the batch, threads and chunks are; :meth:`forward` and :meth:`update`
        raise TypeError. docs/low_precision.md has the rules.

        Parameters
        ----------
        weights : {"bfloat16", "int8"}
            How W, R and projections are stored: in half of float32's memory, or in a quarter: each
            row of a matrix (a unit and gate) then has a scale, its largest magnitude / 127, and
            sums overflow 127 times as early. Biases and all other parameters stay float32.
        activations : {"float32", "bfloat16", "int8"}
            What inputs, and h where R reads it, are rounded to before they are multiplied. With
            float32, not at all. bfloat16 goes with weights of bfloat16; sums are float32. int8 goes
            with weights of int8, by a scale for each row and step; sums are exact, and there is no
            calibration. Gates, c, h and outputs stay float32.

        Returns
        -------
        LSTM, GRU or RNN
            With this layer's options.

        Raises
        ------
        ValueError
            There is no such way; or the layer is quantized already, or of float64; or a weight is
            NaN or infinite, and there is no int8 for it; or, for activations of int8, a product has
            more than 65,536 inputs.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(64, 256, seed=0)
        >>> small = lstm.quantize("int8")
        >>> sum(array.nbytes for array in small.stored.values()) / sum(
        ...     array.nbytes for array in lstm.stored.values()
        ... ) < 0.27
        True
        >>> x = np.ones((5, 3, 64), dtype=np.float32)
        >>> bool(np.abs(small(x)[0] - lstm(x)[0]).max() < 1e-2)
        True
        """
        if self._quantization is not None:
            raise ValueError(f"quantize: expected a layer that is not quantized, got {self!r}")
        quantization = as_quantization(self._spec, weights, activations)
        values = stored_values(self._spec, quantization, self.params)
        return _make_quantized(type(self), self._options, values, quantization)

    def __repr__(self) -> str:
        text = super().__repr__()
        if self._quantization is None:
            return text
        return f"{text}.quantize({', '.join(map(repr, self._quantization))})"

    def _check_trains(self, what: str) -> None:
        if self._quantization is not None:
            raise TypeError(f"{what}: expected a layer that is not quantized, got {self!r}")

    # --- calls --------------------------------------------------------------------------------

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        padding: Padding = "post",
        out: FloatArray | tuple[FloatArray, StateT] | None = None,
    ) -> tuple[FloatArray, StateT]:
        """Run the layer for inference: nothing is saved, and there is no dropout.

        Parameters
        ----------
        x : array_like
            (T, B, I), (B, T, I) with ``batch_first``, or (T, I) for one sequence; then outputs and
            states have no batch axis either. T may be 0: the output is empty then, and the state
            the initial one. NumPy arrays, tensors, pandas' frames and whatever else has
            ``__dlpack__`` or ``__array__``; bfloat16 converts, missing values do not.
        state : tuple of array_like, or array_like, optional
            ``(h_0, c_0)``, (L * D, B, P) and (L * D, B, H), or ``h_0`` alone where the cell has no
            c; zeros by default.
        lengths : array_like of int, optional
            (B,) with 0 <= length <= T in any order: the steps that each sequence really has. Output
            past a sequence's end is zero, the final state is the one at its end, the second
            direction starts at its end, and a length of 0 returns its initial state.
        padding : "post" or "pre"
            Where the other steps of `x` are: after a sequence's end, or before its start, as Keras
            pads by default. The output is laid out as `x`, with zeros there, and has the same bits.
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
        call = prepare(self._spec, x, state, lengths, padding, out)
        self._values.now().stack.forward(*call.core_arguments())
        return call.result(), from_tuple(call.final)

    def forward(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        padding: Padding = "post",
        seed: int | None = None,
        memory_limit: int | None = None,
        training: bool = True,
    ) -> tuple[FloatArray, StateT, Tape[StateT]]:
        """Run the layer for training: dropout is active, and a tape keeps what backward needs.

        Parameters
        ----------
        x, state, lengths, padding
            As in a call of the layer.
        seed : int, optional
            Of the dropout masks; by default the next of the layer's own random numbers.
        memory_limit : int, optional
            The bytes that the tape and its backward pass may take at most, beside the arrays that
            are passed and returned. What does not fit is computed twice: the results and gradients
            have the same bits, and training takes up to a third longer. :meth:`training_memory`
            says how much longer.
        training : bool
            False: for gradients of inference, of a trained layer's input for instance. Nothing is
            dropped, and zoneout keeps its mean part, as in a call of the layer, whose bits the
            results have; no seed is drawn.

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
        self._check_trains("forward")
        call = prepare(self._spec, x, state, lengths, padding)
        limit = _as_limit(memory_limit)
        drawn = draw_seed(self, seed) if as_bool("training", training) else None
        tape = self._record(call, drawn, limit)
        result: Tape[StateT] = Tape(self._spec, call.layout, tape)
        return call.result(), from_tuple(call.final), result

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
            As in :meth:`forward`, and for `lengths` beyond 2**25.

        Examples
        --------
        >>> lstm = fastlstm.LSTM(64, 256)
        >>> round(lstm.training_memory(T=10_000, B=8).bytes / 1e9, 1)  # in GB
        0.5
        >>> lstm.training_memory(T=10_000, B=8, memory_limit=300 * 10**6).extra_time < 1 / 3
        True
        """
        self._check_trains("training_memory")
        T, B = as_int("T", T, 0, MOST_SIZE), as_int("B", B, 0, MOST_SIZE)
        lengths = self._counted_lengths(lengths, B, T)
        if T == 0:  # as in Layout
            T, lengths = 1, np.zeros(B, np.int64)
        limit = _as_limit(memory_limit)
        # The core counts in 64 bits; this is several times what a call takes, without an end.
        if 256 * T * B * (self.input_size + self._spec.cells * self.hidden_size) >= _MOST_BYTES:
            raise ValueError(f"T, B: expected a call of less than 2**62 bytes, got {T}, {B}")
        return TrainingMemory(
            *self._values.now().stack.training_memory(
                T, B, lengths, self.batch_first, self._regularisation(0), limit
            )
        )

    def plan(
        self,
        T: int,
        B: int = 1,
        lengths: Any = None,
        threads: int | None = None,
        training: bool = False,
    ) -> Plan:
        """Say how a call would divide its work among threads, and why: what it would take.

        Parameters
        ----------
        T, B : int
            Time steps and sequences.
        lengths : array_like of int, optional
            As in a call of the layer.
        threads : int, optional
            What the call may use; by default what :func:`fastlstm.get_num_threads` says.
        training : bool
            Whether it is one of :meth:`forward`, followed by :meth:`Tape.backward`.

        Returns
        -------
        Plan
            For people its ``repr``. The times are those of a model (docs/threads.md).

        Raises
        ------
        ValueError, TypeError
            As in a call of the layer, and for `lengths` beyond 2**25.

        Examples
        --------
        >>> plan = fastlstm.LSTM(64, 256).plan(T=100, B=1, threads=1)
        >>> plan.threads, plan.units
        (1, 1)
        >>> fastlstm.LSTM(512, 512).plan(T=50, B=64).bound
        'products'
        """
        T, B = as_int("T", T, 0, MOST_SIZE), as_int("B", B, 0, MOST_SIZE)
        lengths = self._counted_lengths(lengths, B, T)
        if T == 0:  # as in Layout
            T, lengths = 1, np.zeros(B, np.int64)
        training = as_bool("training", training)
        if training:
            self._check_trains("plan")
        n = get_num_threads() if threads is None else threads
        with num_threads(as_int("threads", n, 1, MOST_THREADS)):
            return plan_of(
                plan(self._spec.config, self.dtype, T, B, lengths, training, self.dropout)
            )

    @staticmethod
    def _counted_lengths(lengths: Any, B: int, T: int) -> Any:
        if lengths is None:
            return None
        lengths = as_lengths(lengths, B, T)
        if lengths.max(initial=0) > _MOST_COUNTED_STEPS:
            raise ValueError(
                f"lengths: expected at most {_MOST_COUNTED_STEPS}, got {lengths.max()}"
            )
        return lengths

    def trace(
        self,
        x: Any,
        state: Any = None,
        *,
        lengths: Any = None,
        padding: Padding = "post",
        d_output: Any = None,
        d_state: Any = None,
    ) -> list[list[TraceT]]:
        """Run the layer for inference and return every gate, cell and hidden value.

        Parameters
        ----------
        x, state, lengths, padding
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
        if d_output is not None or d_state is not None:
            self._check_trains("trace with gradients")
        call = prepare(self._spec, x, state, lengths, padding)
        tape = self._record(call, None)
        return read_trace(self._spec, call.layout, tape, self._trace_type, d_output, d_state)

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
        return Stream(self._spec, self._values.now().stack, batch_size)

    def _record(self, call: Call, seed: int | None, memory_limit: int = 0) -> CoreTape:
        """Run a training call; without a seed, as in inference."""
        return self._values.now().stack.forward_train(
            *call.core_arguments(), self._regularisation(seed), memory_limit
        )

    def _regularisation(self, seed: int | None) -> dict[str, Any]:
        """What the core is told of a training call; without a seed, nothing is regularised."""
        training = self._spec.training
        if seed is None:
            training = dict.fromkeys(training, 0.0)
        return {**training, "seed": seed or 0, "zoneout": seed is not None}


def spec_of(layer: RecurrentLayer[Any, Any]) -> Spec:
    """Return what a layer is without its values."""
    return layer._spec


def make_layer(
    cls: type[LayerT], options: Mapping[str, Any], values: Mapping[str, FloatArray]
) -> LayerT:
    """Make a layer of given values: nothing is drawn, and nothing is made that they are not.

    Parameters
    ----------
    options : mapping
        Those at their defaults may be left out.
    values : mapping of str to ndarray
        All parameters. Arrays that own their memory become the layer's: nobody else may write to
        them. Others are copied.

    Raises
    ------
    ValueError, TypeError
        There is no such option, or names and shapes are not those of such a layer.
    """
    options = _known_options(cls, options)
    if options["num_layers"] > len(values):  # before their names are made
        raise ValueError(
            f"num_layers: expected parameters of {options['num_layers']} layers, got {len(values)} "
            "in all"
        )
    spec = _make_spec(cls, options)
    check_names(spec, values, f"{cls.__name__}({table_of(cls).shown(options)})")
    layer = cls.__new__(cls)
    layer._begin(options, np.random.default_rng(), spec, own_values(spec, values))
    return layer


def quantized_layer(
    cls: type[LayerT],
    options: Mapping[str, Any],
    stored: Stored,
    weights: str,
    activations: str = "float32",
) -> LayerT:
    """Make a quantized layer of arrays as :attr:`RecurrentLayer.stored` has them.

    Parameters
    ----------
    options : mapping
        Those at their defaults may be left out.
    stored : mapping of str to ndarray
        Arrays that own their memory become the layer's: nobody else may write to them. Others are
        copied. Values of int8 may be -128, and scales any that are finite and not below 0.
    weights, activations
        As of :meth:`RecurrentLayer.quantize`.

    Raises
    ------
    ValueError, TypeError
        There is no such option or way, or names, shapes and types are not those of such a layer.
    """
    options = _known_options(cls, options)
    if options["num_layers"] > len(stored):  # before their names are made
        raise ValueError(f"num_layers: {options['num_layers']}, but {len(stored)} arrays in all")
    quantization = as_quantization(_make_spec(cls, options), weights, activations)
    return _make_quantized(cls, options, stored, quantization)


def make_spec(cls: type[RecurrentLayer[Any, Any]], options: Mapping[str, Any]) -> Spec:
    """Return what a layer of these options would be, without its values.

    Parameters
    ----------
    options : mapping
        Those at their defaults may be left out.

    Raises
    ------
    ValueError, TypeError
        As of the class itself.
    """
    return _make_spec(cls, _checked(cls, {**table_of(cls).defaults, **options}))


def draw_seed(layer: RecurrentLayer[Any, Any], seed: int | None) -> int:
    """Return the seed of one training call: the caller's, or the next of the layer's own."""
    if seed is None:
        return int(layer._random.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))
    return as_int("seed", seed, 0, 2**64 - 1)


def check_layer(layer: Any) -> None:
    """Raise TypeError unless it is a layer."""
    if not isinstance(layer, RecurrentLayer):
        raise TypeError(f"layer: expected an LSTM, GRU or RNN, got {type(layer).__name__}")


def _checked(cls: type[RecurrentLayer[Any, Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
    options = table_of(cls).checked(arguments)
    cls._check_together(options)
    return options


def _known_options(
    cls: type[RecurrentLayer[Any, Any]], options: Mapping[str, Any]
) -> dict[str, Any]:
    """All options of a class; those that are left out have their defaults."""
    return _checked(cls, table_of(cls).completed(cls.__name__, options))


def _make_quantized(
    cls: type[LayerT], options: Mapping[str, Any], stored: Stored, quantization: Quantization
) -> LayerT:
    spec = _make_spec(cls, options, quantization)
    layer = cls.__new__(cls)
    layer._quantization = quantization
    own = own_stored(spec, quantization, stored)
    layer._begin(options, np.random.default_rng(), spec, own)
    return layer


def _make_spec(
    cls: type[RecurrentLayer[Any, Any]],
    options: Mapping[str, Any],
    quantization: Quantization | None = None,
) -> Spec:
    config: Mapping[str, Any] = cls._config(options)
    if quantization is not None:
        config = with_quantization(config, quantization)
    return Spec(options, config, table_of(cls).training(options))


def _as_limit(memory_limit: Any) -> int:
    """The bytes that a training call may take; 0: any number."""
    return 0 if memory_limit is None else as_int("memory_limit", memory_limit, 1, _MOST_BYTES)
