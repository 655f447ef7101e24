"""Layers as ONNX models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._activations import ActivationName
from fastlstm._checks import FloatArray, as_bool, as_path
from fastlstm._extras import needs_extra
from fastlstm._saving import write_whole
from fastlstm._version import __version__
from fastlstm.layers import LAYERS, RecurrentLayer, check_layer, spec_of, table_of

from ._gates import GATES, ONNX_GATES, ONNX_PEEPHOLES, PEEPHOLES, reordered
from .onnx_import import DEFAULTS

# Read by every runtime since 2023. The recurrent operators of later versions differ in types only.
_OPSET, _IR_VERSION = 18, 8
_MERGES = {"sum": "ReduceSum", "mul": "ReduceProd", "ave": "ReduceMean"}
# A protocol buffer has less than 2 GiB; the rest of a model takes far less than a megabyte of it.
_MOST_BYTES = 2**31 - 2**20

_IN_THE_MODEL = frozenset(
    {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional", "reverse"}
    | {"merge", "dtype", "clip", "activations"}
    | {"peepholes", "input_forget", "reset_after", "nonlinearity"}
)
_IN_TRAINING_ONLY = frozenset({"dropout", "recurrent_dropout", "weight_dropout"})


def to_onnx(
    layer: RecurrentLayer[Any, Any],
    path: str | os.PathLike[str],
    *,
    lengths: bool = True,
    states: bool = True,
) -> None:
    """Write a layer as an ONNX model with the same results in inference.

    The model is called as the layer is, with any numbers of time steps and sequences. Its inputs
    are ``x``, ``lengths`` (int32), ``h_0`` and, of an LSTM, ``c_0``; its outputs ``output``,
    ``h_n`` and ``c_n``. All have the layer's shapes.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        The layer. ``dropout``, ``recurrent_dropout`` and ``weight_dropout``, which act in training
        only, leave no trace in the model. The weights of a quantized layer stay as small as they
        are, with DequantizeLinear or, of bfloat16, Cast in front of the nodes.
    path : path-like
        The file, written as a layer's: complete or as it was before (docs/files.md).
    lengths, states : bool
        Whether the model has the input ``lengths``, and the inputs ``h_0`` and ``c_0``. Inputs
        that it has must be given in each call; without them all sequences have all steps, and
        start at zero.

    Raises
    ------
    ValueError
        ONNX cannot represent the layer: it has a projection (``proj_size``) or ``zoneout``; it is
        in float64 with parameters of functions that float32 does not hold; it is quantized with
        other ``activations`` than float32; or it has 2 GiB.
    TypeError
        An argument has another type than stated.
    ModuleNotFoundError
        The package onnx is not installed.
    OSError
        The file cannot be written.

    Notes
    -----
    Needs the package onnx (``fastlstm[onnx]``). The model has opset 18. ONNX Runtime does not run
    recurrent nodes in float64. :func:`fastlstm.from_onnx` reads back a node, which is one layer of
    a stack: what ``batch_first``, ``merge`` and the final states need are nodes around it.

    Examples
    --------
    >>> lstm = fastlstm.LSTM(8, 16, bidirectional=True, batch_first=True)
    >>> fastlstm.to_onnx(lstm, "lstm.onnx")  # doctest: +SKIP
    """
    lengths, states = as_bool("lengths", lengths), as_bool("states", states)
    path = as_path("path", path)
    write_whole(path, make_model(layer, lengths=lengths, states=states).SerializeToString())


@needs_extra("to_onnx", "onnx")
def make_model(
    layer: RecurrentLayer[Any, Any], *, lengths: bool = True, states: bool = True
) -> Any:
    """Do all of :func:`to_onnx` but write the file: return the ModelProto."""
    check_layer(layer)
    _check_representable(layer)
    return _Writer(layer).model(lengths, states)


def _check_representable(layer: RecurrentLayer[Any, Any]) -> None:
    """Refuse what a model would not have; options that are not known here are among it."""
    defaults = table_of(type(layer)).defaults
    for name, value in spec_of(layer).options.items():
        known = name in _IN_THE_MODEL or name in _IN_TRAINING_ONLY
        if not known and value != defaults.get(name):
            raise ValueError(f"{name}={value!r}: ONNX's {_cell(layer)} cannot represent it")
    quantization = layer.quantization
    if quantization is not None and quantization.activations != "float32":
        raise ValueError(
            f"activations={quantization.activations!r}: ONNX's {_cell(layer)} rounds nothing that "
            "it multiplies: expected a layer that is quantized with activations='float32'"
        )
    size = sum(array.nbytes for array in layer.stored.values())
    if size > _MOST_BYTES:
        raise ValueError(
            f"layer: expected parameters of at most {_MOST_BYTES} bytes, as an ONNX file has less "
            f"than 2 GiB, got {size}"
        )


def _cell(layer: RecurrentLayer[Any, Any]) -> str:
    return next(name for name, cls in LAYERS.items() if isinstance(layer, cls))


class _Writer:
    """Makes the model of one layer, node by node."""

    def __init__(self, layer: RecurrentLayer[Any, Any]) -> None:
        from onnx import TensorProto, helper

        self.layer = layer
        self.cell = _cell(layer)
        self.stored = layer.stored
        self.spec = spec_of(layer)
        self.D = self.spec.directions
        self.attributes = _attributes(layer)
        self.state_names = [name for name, _ in self.spec.state_parts]
        self.element = TensorProto.DOUBLE if layer.dtype == np.float64 else TensorProto.FLOAT
        self.bfloat16 = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
        self.nodes: list[Any] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def model(self, lengths: bool, states: bool) -> Any:
        from onnx import TensorProto, helper, numpy_helper

        def tensor(name: str, shape: tuple[int | str, ...], element: int = self.element) -> Any:
            return helper.make_tensor_value_info(name, element, shape)

        layer = self.layer
        sequence = ("batch", "time") if layer.batch_first else ("time", "batch")
        state = (self.spec.cells, "batch", layer.hidden_size)
        inputs = [tensor("x", (*sequence, layer.input_size))]
        if lengths:
            inputs.append(tensor("lengths", ("batch",), TensorProto.INT32))
        if states:
            inputs += [tensor(f"{name}_0", state) for name in self.state_names]
        D = self.D if layer.merge == "concat" else 1
        output = (*sequence, D * layer.hidden_size)
        outputs = [tensor("output", (2, *output) if layer.merge is None else output)]
        outputs += [tensor(f"{name}_n", state) for name in self.state_names]

        self._write_nodes(lengths, states)
        graph = helper.make_graph(
            self.nodes,
            self.cell,
            inputs,
            outputs,
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
            doc_string=repr(layer),
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="fastlstm",
            producer_version=__version__,
        )

    def _write_nodes(self, lengths: bool, states: bool) -> None:
        layer, L = self.layer, self.layer.num_layers
        below = "x"
        if layer.batch_first:
            below = self._add("Transpose", [below], "x_by_time", perm=(1, 0, 2))
        initial = [self._split(f"{name}_0") if states else [""] * L for name in self.state_names]
        final: list[list[str]] = [[] for _ in self.state_names]
        for k in range(L):
            weights = {
                "W": self._matrix("weight_ih", "W", k),
                "R": self._matrix("weight_hh", "R", k),
                **{name: self._constant(f"{name}_{k}", v) for name, v in self._vectors(k)},
            }
            inputs = [below, weights["W"], weights["R"], weights.get("B", "")]
            inputs += ["lengths" if lengths else "", *(parts[k] for parts in initial)]
            inputs += [weights.get("P", "")]
            while not inputs[-1]:
                inputs.pop()
            names = [f"Y_{k}", *(f"{name}_n_{k}" for name in self.state_names)]
            self._add(self.cell, inputs, *names, name=f"layer_{k}", **self.attributes)
            for parts, name in zip(final, names[1:], strict=True):
                parts.append(name)
            if k < L - 1:
                below = self._merged(names[0], "concat", f"x_{k + 1}")
        self._write_output(f"Y_{L - 1}")
        self._write_final_states(final, lengths and states)

    def _write_output(self, Y: str) -> None:
        """Make (T, D, B, H) what the layer returns."""
        layer = self.layer
        if layer.merge is None:
            perm = (1, 2, 0, 3) if layer.batch_first else (1, 0, 2, 3)
            self._add("Transpose", [Y], "output", perm=perm)
        elif layer.batch_first:
            by_time = self._merged(Y, layer.merge, "output_by_time")
            self._add("Transpose", [by_time], "output", perm=(1, 0, 2))
        else:
            self._merged(Y, layer.merge, "output")

    def _write_final_states(self, final: list[list[str]], may_be_empty: bool) -> None:
        if may_be_empty:
            # ONNX does not say what the final state of a sequence without steps is. Here it is the
            # initial state; in ONNX Runtime it is zero.
            zero = self._constant("zero", np.array(0, np.int32))
            by_sequence = self._add("Equal", ["lengths", zero], "empty_by_sequence")
            empty = self._add("Unsqueeze", [by_sequence, self._axis(1)], "empty")
        for name, parts in zip(self.state_names, final, strict=True):
            if may_be_empty:
                after = self._add("Concat", parts, f"{name}_after_steps", axis=0)
                self._add("Where", [empty, f"{name}_0", after], f"{name}_n")
            else:
                self._add("Concat", parts, f"{name}_n", axis=0)

    def _merged(self, Y: str, merge: str, result: str) -> str:
        """Make (T, D, B, H) the (T, B, width) of a layer above, or of a time-major output."""
        if self.D == 1:
            return self._add("Squeeze", [Y, self._axis(1)], result)
        if merge != "concat":
            return self._add(_MERGES[merge], [Y, self._axis(1)], result, keepdims=0)
        turned = self._add("Transpose", [Y], f"{Y}_by_sequence", perm=(0, 2, 1, 3))
        width = 2 * self.layer.hidden_size
        shape = self._constant("side_by_side", np.array([0, 0, width], np.int64))  # 0: as it was
        return self._add("Reshape", [turned, shape], result)

    def _split(self, state: str) -> list[str]:
        """The parts (D, B, H) that a state (L*D, B, H) has for each layer."""
        L = self.layer.num_layers
        if L == 1:
            return [state]
        parts = [f"{state}_{k}" for k in range(L)]
        self._add("Split", [state], *parts, axis=0, num_outputs=L)
        return parts

    def _stacked(
        self,
        name: str,
        k: int,
        ours: tuple[str, ...] | None = None,
        theirs: tuple[str, ...] | None = None,
        end: str = "",
    ) -> npt.NDArray[Any]:
        """What is stored of layer k under a name, of all its directions: (D, rows, ...)."""
        ours, theirs = ours or GATES[self.cell], theirs or ONNX_GATES[self.cell]
        suffixes = (f"_l{k}", f"_l{k}_reverse")[: self.D]
        return np.stack([reordered(self.stored[name + s + end], ours, theirs) for s in suffixes])

    def _matrix(self, name: str, onnx_name: str, k: int) -> str:
        """Add W or R of layer k as it is stored, and what makes floats of it."""
        values, result = self._stacked(name, k), f"{onnx_name}_{k}"
        quantization = self.layer.quantization
        if quantization is None:
            return self._constant(result, values)
        if quantization.weights == "bfloat16":
            stored = self._constant(f"{result}_bfloat16", values.view(self.bfloat16))
            return self._add("Cast", [stored], result, to=self.element)
        # Scales go along one axis. That of directions and of rows are one until afterwards.
        rows = self._constant(f"{result}_int8", values.reshape(-1, values.shape[-1]))
        scales = self._constant(f"{result}_scale", self._stacked(name, k, end="_scale").reshape(-1))
        floats = self._add("DequantizeLinear", [rows, scales], f"{result}_rows", axis=0)
        shape = self._constant(f"{result}_shape", np.array(values.shape, np.int64))
        return self._add("Reshape", [floats, shape], result)

    def _vectors(self, k: int) -> list[tuple[str, FloatArray]]:
        """The inputs B and P of layer k."""
        vectors: list[tuple[str, FloatArray]] = []
        if self.layer.bias:
            both = [self._stacked("bias_ih", k), self._stacked("bias_hh", k)]
            vectors.append(("B", np.concatenate(both, axis=1)))
        if getattr(self.layer, "peepholes", False):
            peepholes = self._stacked("weight_peephole", k, PEEPHOLES, ONNX_PEEPHOLES)
            vectors.append(("P", peepholes))
        return vectors

    def _add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        from onnx import helper

        attributes.setdefault("name", outputs[0])
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        self.constants[name] = value
        return name

    def _axis(self, axis: int) -> str:
        return self._constant(f"axis_{axis}", np.array([axis], np.int64))


def _attributes(layer: RecurrentLayer[Any, Any]) -> Mapping[str, Any]:
    """The attributes of the layer's nodes; those at ONNX's defaults are left out."""
    cell, D = _cell(layer), spec_of(layer).directions
    attributes: dict[str, Any] = {"hidden_size": layer.hidden_size}
    if D == 2:
        attributes["direction"] = "bidirectional"
    elif layer.reverse:
        attributes["direction"] = "reverse"
    if layer.clip is not None:
        attributes["clip"] = _as_attribute(layer, "clip", layer.clip)
    if layer.activations != DEFAULTS[cell]:
        attributes |= _functions(layer, layer.activations * D)
    if getattr(layer, "input_forget", False):
        attributes["input_forget"] = 1
    if getattr(layer, "reset_after", False):
        attributes["linear_before_reset"] = 1
    return attributes


def _functions(
    layer: RecurrentLayer[Any, Any], functions: tuple[ActivationName, ...]
) -> dict[str, Any]:
    """Names, and lists of alpha and beta from which each function that has one takes the next."""
    names: list[str] = []
    lists: dict[str, list[float]] = {"activation_alpha": [], "activation_beta": []}
    for function in functions:
        name, *parameters = (function,) if isinstance(function, str) else function
        names.append(str(name))
        for values, parameter in zip(lists.values(), parameters, strict=False):
            values.append(_as_attribute(layer, f"activations: {name}", float(parameter)))
    return {"activations": names, **{name: values for name, values in lists.items() if values}}


def _as_attribute(layer: RecurrentLayer[Any, Any], name: str, value: float) -> float:
    """A number as attributes have it: in float32."""
    if layer.dtype == np.float64 and float(np.float32(value)) != value:
        raise ValueError(
            f"{name}: {value!r} in a float64 layer: ONNX's attributes are float32, which holds "
            f"{float(np.float32(value))!r} instead"
        )
    return value
