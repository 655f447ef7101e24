"""Layers from the LSTM, GRU and RNN nodes of ONNX models."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._activations import PARAMETERS
from fastlstm._checks import FloatArray, as_bool

from ._description import Description, build, choose, set_activations
from ._gates import GATES, ONNX_GATES, ONNX_PEEPHOLES, PEEPHOLES, reordered
from ._onnx.file import Model, Tensors, load
from ._onnx.graphs import CELLS, Found, Graphs
from ._onnx.quantised import PARTS
from ._onnx.room import Room
from ._onnx.states import CallReader, as_float
from ._onnx.values import Depends, Values
from ._tensors import DAMAGE, Int8, symmetric

_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
_OF_A_CALL = frozenset({"X", "sequence_lens", "initial_h", "initial_c"})
_QUANTIZED_INPUTS = (*_INPUTS, "W_scale", "W_zero_point", "R_scale", "R_zero_point")
_ATTRIBUTES = (
    *("activation_alpha", "activation_beta", "activations", "clip", "direction", "hidden_size"),
    *("layout", "output_sequence"),  # the last one in opset 1: of outputs
)
_MORE_ATTRIBUTES = {"LSTM": ("input_forget",), "GRU": ("linear_before_reset",), "RNN": ()}

DEFAULTS: dict[str, tuple[str, ...]] = {
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
    "GRU": ("Sigmoid", "Tanh"),
    "RNN": ("Tanh",),
}


def from_onnx(
    source: Any,
    node: str | None = None,
    *,
    constants: bool = False,
    quantized: bool = False,
    activations: str | None = None,
) -> Any:
    """Make a layer from a recurrent node of an ONNX model, with the same results.

    Parameters
    ----------
    source : ModelProto, or path-like
        The model. Needs the package onnx (``fastlstm[onnx]``).
    node : str, optional
        Which LSTM, GRU, RNN or DynamicQuantizeLSTM: its name, or its first output's where it has
        none. Of a node inside another one, or in a function, all names on the way to it,
        ``"if/then_branch/lstm"``; or its own, where no other has it. May be left out where there
        is only one.
    constants : bool
        Also return the initial state and sequence lengths that the model has as constants; without
        it a model with such constants is refused.
    quantized : bool
        Keep the whole numbers and scales of a DynamicQuantizeLSTM, or of a node whose weights
        DequantizeLinear makes, in a quantized layer (docs/low_precision.md).
    activations : {"float32", "int8"}, optional
        What its matrices multiply then, as of :meth:`LSTM.quantize`; float32 by default.

    Returns
    -------
    LSTM, GRU or RNN
        With ``batch_first`` for ``layout=1``; states keep the layer's own shapes. Without
        ``quantized`` a DynamicQuantizeLSTM has its weights dequantised, and works with exact
        inputs.
    dict
        Only with ``constants``: ``state`` and ``lengths``, for ``layer(x, **constants)``. What the
        model repeats for as many sequences as it is given has a batch of one:
        ``numpy.broadcast_to(state, (D, B, H))`` is for B of them.

    Warns
    -----
    UserWarning
        The model computes a state or lengths from its inputs, as a decoder's from what an encoder
        gives: they are for the caller to pass. What is an input of the model, or of the graph
        around the node, or a part of one, is so without a warning.

    Raises
    ------
    ValueError
        The node cannot be represented; what it needs is computed from the model's inputs, or by
        an operator that is not known, or larger than the model's size explains; the file is
        damaged, or something else; or there is not exactly one such node: the message names them
        all. Or weights cannot be kept as they are (``quantized``): they are no whole numbers of 8
        bits with a scale for each row, or less their zero points none that int8 holds.
    TypeError
        An argument has another type than stated.
    OSError
        The file cannot be read.
    ModuleNotFoundError
        The package onnx is not installed.

    Examples
    --------
    >>> lstm = fastlstm.from_onnx("model.onnx", node="encoder")  # doctest: +SKIP
    """
    constants, quantized = as_bool("constants", constants), as_bool("quantized", quantized)
    reader = reader_of(load(source), node)
    reader.quantized = quantized
    place, (description, call), computed = reader.place, reader.read(), reader.computed
    del reader  # and the model, before the layer takes room
    if call and not constants:
        raise ValueError(
            f"{place}: {', '.join(call)}: the model has it as a constant, which a layer does not "
            "have: expected constants=True"
        )
    set_activations(description, activations)
    try:
        layer = build(description)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    for name in computed:
        argument = "lengths" if name == "sequence_lens" else "state"
        warnings.warn(
            f"{place}: {name}: the model computes it from its inputs, the layer does not: pass it "
            f"as {argument}=",
            stacklevel=2,
        )
    return (layer, call) if constants else layer


def describe(source: Any, node: str | None = None) -> tuple[Description, dict[str, Any]]:
    """Do all of :func:`from_onnx` but make the layer."""
    return reader_of(load(source), node).read()


def reader_of(model: Model, node: str | None) -> NodeReader:
    """Return what reads the recurrent node that is meant."""
    if node is not None and not isinstance(node, str):
        raise TypeError(f"node: expected text, got {type(node).__name__}")
    try:
        graphs = Graphs(model.proto)
        found = graphs.recurrent()
        if not found:
            raise ValueError(f"expected an LSTM, GRU or RNN, found {_what_is_there(graphs)}")
    except DAMAGE as error:
        raise ValueError(f"{model.where}: {error}") from error
    if node is not None and node not in found:  # its own name does, where no other has it
        paths = [path for path, other in found.items() if other.name == node]
        node = paths[0] if len(paths) == 1 else node
    _, chosen = choose(found, node, model.where, "node")
    tensors = Tensors(model)
    return NodeReader(model, chosen, Values(graphs, tensors, Room(lambda: tensors.size)))


def find_nodes(proto: Any) -> dict[str, Any]:
    """Return the recurrent nodes of a model by name."""
    return {name: found.node for name, found in Graphs(proto).recurrent().items()}


def _what_is_there(graphs: Graphs) -> str:
    """The operators of a model, the most frequent ones first."""
    kinds = Counter(graphs.kinds())
    if not kinds:
        return "none: it has no nodes"
    listed = ", ".join(f"{count} {kind[:40]}" for kind, count in kinds.most_common(12))
    return f"none among its nodes: {listed}{', ...' if len(kinds) > 12 else ''}"


@dataclass
class NodeReader:
    """Reads one node."""

    model: Model
    found: Found
    values: Values
    computed: list[str] = field(default_factory=list)
    """Once it is read: inputs that are the caller's, but that the model computes."""
    quantized: bool = False
    """Whether W and R stay whole numbers with scales."""

    @property
    def inputs(self) -> dict[str, str]:
        """The names of the node's inputs, without those left out."""
        node, scope = self.found.node, self.found.scope
        kind = node.op_type
        names: tuple[str, ...] = _QUANTIZED_INPUTS if kind == "DynamicQuantizeLSTM" else _INPUTS
        if len(node.input) > len(names if CELLS[kind] == "LSTM" else names[:6]):
            raise ValueError(f"{kind}: has {len(node.input)} inputs")
        # What the caller of a function leaves out is left out, too.
        given = [*zip(names, node.input, strict=False)]
        for name, value in given:
            if name != "X" and not scope.knows(value):
                raise ValueError(f"{name}: nothing in the model makes {value!r}")
        return {name: value for name, value in given if scope.home(value)[1]}

    @property
    def place(self) -> str:
        """What to call the node in errors."""
        return f"{self.model.where}: {self.found.path}"

    def depends(self, value: str) -> Depends:
        """On what a value in the node's graph depends."""
        return self.values.depends(self.found.scope, value)

    def read(self) -> tuple[Description, dict[str, Any]]:
        """Return the layer, and ``state`` and ``lengths`` where the model has them."""
        try:
            return self._read()
        except DAMAGE as error:
            raise ValueError(f"{self.place}: {error}") from error

    def _read(self) -> tuple[Description, dict[str, Any]]:
        kind = self.found.node.op_type
        cell = CELLS[kind]
        attributes = self._attributes(cell)
        inputs = self.inputs
        weights = {n: self._weight(n, v) for n, v in inputs.items() if n not in _OF_A_CALL}
        for name in ("W", "R"):
            if name not in weights:
                raise ValueError(f"{name}: the node has no such input")
        small: dict[str, _Parts] = {}
        if kind == "DynamicQuantizeLSTM":
            parts = {name: _parts_of(name, weights) for name in ("W", "R")}
            weights = {name: value for name, value in weights.items() if "_" not in name}
            weights |= {name: part.floats() for name, part in parts.items()}
            small = parts if self.quantized else {}
        elif self.quantized:
            small = {name: self._parts(name, inputs[name], weights[name]) for name in ("W", "R")}
        weights = {name: as_float(name, value) for name, value in weights.items()}
        if weights["W"].dtype == np.float32:
            attributes = {name: _as_written(name, value) for name, value in attributes.items()}

        D = {"forward": 1, "reverse": 1, "bidirectional": 2}.get(attributes["direction"])
        if D is None:
            raise ValueError(f"direction: {attributes['direction']!r} is none")
        I, H = _check_shapes(cell, D, attributes, weights)
        options: dict[str, Any] = {
            "input_size": I,
            "hidden_size": H,
            "bias": "B" in weights,
            "batch_first": bool(attributes.get("layout", 0)),
            "bidirectional": D == 2,
        }
        if attributes["direction"] == "reverse":
            options["reverse"] = True
        if "P" in weights:
            options["peepholes"] = True
        if attributes.get("input_forget", 0):
            options["input_forget"] = True
        if "clip" in attributes:
            options["clip"] = float(attributes["clip"])
        if cell == "GRU" and not attributes.get("linear_before_reset", 0):
            options["reset_after"] = False
        _add_functions(options, cell, _functions(cell, D, attributes))
        if small:
            del weights["W"], weights["R"]
        description = Description(cell, options, _params(cell, D, weights), _small(cell, D, small))
        states = ("initial_h", "initial_c") if cell == "LSTM" else ("initial_h",)
        given = {name: inputs[name] for name in (*states, "sequence_lens") if name in inputs}
        call = CallReader(self.values, self.found.scope, (D, H), bool(options["batch_first"]))
        self.computed = [*call.computed(inputs.get("X", ""), given)]
        return description, call.read(inputs.get("X", ""), states, given)

    def _parts(self, name: str, value: str, floats: npt.NDArray[Any]) -> _Parts:
        """What DequantizeLinear has made weights of, wherever in the model that is."""
        scope = self.found.scope
        try:
            made = {part: self.values.of_part(part).value(scope, value) for part in PARTS}
        except DAMAGE as error:
            raise ValueError(f"{name}: {error}") from error
        parts = _Parts(**made)
        if parts.numbers.dtype != np.int16 or not np.array_equal(
            parts.floats(), floats, equal_nan=True
        ):
            raise ValueError(
                f"{name}: expected what DequantizeLinear makes of whole numbers of 8 bits, in "
                "float32, and no more: quantized=True keeps nothing else"
            )
        return parts

    def _attributes(self, cell: str) -> dict[str, Any]:
        from onnx import helper

        attributes: dict[str, Any] = {"direction": "forward"}
        for name, attribute in self.found.scope.attributes(self.found.node).items():
            if name not in (*_ATTRIBUTES, *_MORE_ATTRIBUTES[cell]):
                raise ValueError(f"{name}: an attribute that no {cell} has")
            value = helper.get_attribute_value(attribute)
            attributes[name] = value.decode() if isinstance(value, bytes) else value
        return attributes

    def _weight(self, name: str, value: str) -> npt.NDArray[Any]:
        if self.depends(value) != Depends.NOTHING:
            raise ValueError(
                f"{name}: expected a constant, got {value!r}, which the model computes"
            )
        try:
            return self.values.value(self.found.scope, value)
        except DAMAGE as error:
            raise ValueError(f"{name}: {error}") from error


def _as_written(name: str, value: Any) -> Any:
    """Of an attribute's float32 numbers those of fewest digits, which a float32 layer rounds back.

    So 0.1 is 0.1 in the new layer's options, not 0.10000000149011612.
    """
    if name == "clip":
        return float(str(np.float32(value)))
    if name in ("activation_alpha", "activation_beta"):
        return [float(str(np.float32(number))) for number in value]
    return value


@dataclass
class _Parts:
    """Whole numbers (D, rows, columns), with the scale and zero point of each, broadcast."""

    numbers: npt.NDArray[Any]
    scales: npt.NDArray[Any]
    zeros: npt.NDArray[Any]

    def floats(self) -> FloatArray:
        """What they stand for."""
        return np.asarray((self.numbers - self.zeros).astype(np.float32) * self.scales)

    def of_direction(self, name: str, d: int, ours: Sequence[str], theirs: Sequence[str]) -> Int8:
        """The matrix of a direction, as layers have it."""
        numbers, scales, zeros = (
            reordered(part[d], theirs, ours) for part in (self.numbers, self.scales, self.zeros)
        )
        if any((part != part[:, :1]).any() for part in (scales, zeros)):
            raise ValueError(f"{name}: expected one scale and zero point for each row")
        try:
            return symmetric(numbers, scales[:, :1].reshape(-1), zeros[:, :1].reshape(-1))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error


def _parts_of(name: str, weights: Mapping[str, npt.NDArray[Any]]) -> _Parts:
    """Weights of a DynamicQuantizeLSTM, which are transposed."""
    value = weights[name]
    if value.dtype not in (np.int8, np.uint8) or value.ndim != 3:
        raise ValueError(f"{name}: expected (D, rows, 4H) of 8 bits, got {value.dtype}")
    scale, zero = weights.get(f"{name}_scale"), weights.get(f"{name}_zero_point")
    if scale is None or zero is None:
        raise ValueError(f"{name}: expected its scale and zero point")
    D, K, columns = value.shape
    if scale.shape not in ((D,), (D, columns)) or zero.shape != scale.shape:
        raise ValueError(f"{name}_scale: expected {(D,)} or {(D, columns)}, got {scale.shape}")
    shape = (D, columns, K)
    return _Parts(
        value.swapaxes(1, 2).astype(np.int16),
        np.broadcast_to(scale.reshape(D, -1, 1), shape),
        np.broadcast_to(zero.reshape(D, -1, 1).astype(np.int16), shape),
    )


def _check_shapes(
    cell: str, D: int, attributes: Mapping[str, Any], weights: Mapping[str, FloatArray]
) -> tuple[int, int]:
    """Return I and H."""
    G = len(GATES[cell])
    W, R = weights["W"], weights["R"]
    if W.ndim != 3 or R.ndim != 3:
        raise ValueError(f"W, R: expected three axes, got {W.shape} and {R.shape}")
    I, H = W.shape[2], int(attributes.get("hidden_size", R.shape[2]))
    expected = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H), "P": (D, 3 * H)}
    for name, value in weights.items():
        if value.shape != expected[name]:
            raise ValueError(f"{name}: expected {expected[name]}, got {value.shape}")
    return I, H


_DIRECTIONS = ("_l0", "_l0_reverse")
_MATRICES = {"W": "weight_ih", "R": "weight_hh"}


def _small(cell: str, D: int, parts: Mapping[str, _Parts]) -> dict[str, Int8]:
    return {
        _MATRICES[name] + _DIRECTIONS[d]: part.of_direction(name, d, GATES[cell], ONNX_GATES[cell])
        for d in range(D)
        for name, part in parts.items()
    }


def _params(cell: str, D: int, weights: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    params: dict[str, FloatArray] = {}
    for d, suffix in enumerate(_DIRECTIONS[:D]):
        arrays = {ours: weights[name][d] for name, ours in _MATRICES.items() if name in weights}
        if "B" in weights:
            arrays["bias_ih"], arrays["bias_hh"] = np.split(weights["B"][d], 2)
        for name, array in arrays.items():
            params[name + suffix] = reordered(array, ONNX_GATES[cell], GATES[cell])
        if "P" in weights:
            params[f"weight_peephole{suffix}"] = reordered(
                weights["P"][d], ONNX_PEEPHOLES, PEEPHOLES
            )
    return params


# --- activation functions -------------------------------------------------------------------------

Function = str | tuple[Any, ...]


def _functions(cell: str, D: int, attributes: Mapping[str, Any]) -> list[tuple[Function, ...]]:
    """The functions of each direction, each with its share of the lists of parameters."""
    count = len(DEFAULTS[cell])
    names = [n.decode() for n in attributes.get("activations", ())] or [*DEFAULTS[cell]] * D
    if len(names) != D * count:
        raise ValueError(f"activations: expected {D * count} functions, got {len(names)}")
    lists = [iter(attributes.get(name, ())) for name in ("activation_alpha", "activation_beta")]
    functions = [_function(name, lists) for name in names]
    for name, values in zip(("activation_alpha", "activation_beta"), lists, strict=True):
        if list(values):
            raise ValueError(f"{name}: has more values than the functions have parameters")
    return [tuple(functions[k : k + count]) for k in range(0, len(functions), count)]


def _function(name: str, lists: list[Iterator[float]]) -> Function:
    known = next((k for k in PARAMETERS if k.lower() == name.lower()), None)
    if known is None:
        raise ValueError(f"activations: expected one of {', '.join(PARAMETERS)}, got {name!r}")
    given = [next(v, default) for v, default in zip(lists, PARAMETERS[known], strict=False)]
    if any(value is None for value in given):
        raise ValueError(f"activations: {known} without its alpha and beta, which have no defaults")
    return (known, *map(float, given)) if given else known  # type: ignore[arg-type]


def _add_functions(
    options: dict[str, Any], cell: str, functions: list[tuple[Function, ...]]
) -> None:
    if any(other != functions[0] for other in functions):
        raise ValueError(f"activations: differ between directions: {functions}")
    if functions[0] == ("Relu",):
        options["nonlinearity"] = "relu"
    elif functions[0] != DEFAULTS[cell]:
        options["activations"] = functions[0]
