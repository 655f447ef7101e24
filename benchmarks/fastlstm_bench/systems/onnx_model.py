"""A case as an ONNX model, for the systems that run ONNX.

Weights and lengths are constants of the model; x and, for a stream, the states are its inputs. The
output keeps ONNX's own layout (T, D, B, H) after the last layer, which spares these systems a
transposition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Array, Problem, parameter_names

# Version 17 of the operators and 8 of the file: read by every runtime of the last years, and the
# recurrent operators have not changed since in what is used here.
_OPSET, _IR_VERSION = 17, 8
_OPERATORS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}
# ONNX's gates (LSTM i o f c, GRU z r h) by their place in PyTorch's (i f g o, r z n).
_GATE_ORDER = {"lstm": (0, 3, 1, 2), "gru": (1, 0, 2), "rnn": (0,)}


def _reorder(case: Case, array: Array) -> Array:
    blocks = np.split(array, case.gates)
    return np.concatenate([blocks[gate] for gate in _GATE_ORDER[case.cell]])


def state_names(case: Case) -> list[tuple[str, str]]:
    """Names of every state of a stream, as (input, output), each (1, B, H)."""
    parts = ("h", "c") if case.cell == "lstm" else ("h",)
    return [
        (f"{part}_{layer}", f"{part}_{layer}_new") for layer in range(case.layers) for part in parts
    ]


def build(case: Case, problem: Problem) -> onnx.ModelProto:
    """Inputs: x (T, B, I), for a stream the states. Outputs: y (T, D, B, H), and h_<layer>_new (and
    c_<layer>_new), each (D, B, H)."""
    T = 1 if case.task == "step" else case.T
    D, H = case.directions, case.H
    element = TensorProto.DOUBLE if case.element == "float64" else TensorProto.FLOAT
    constants: list[Any] = []
    nodes: list[Any] = []

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    lengths = ""
    if problem.lengths is not None:
        lengths = constant("lengths", problem.lengths.astype(np.int32))
    streaming = case.task == "step"
    parts = ("h", "c") if case.cell == "lstm" else ("h",)
    attributes = {"linear_before_reset": 1} if case.cell == "gru" else {}

    below = "x"
    for layer in range(case.layers):
        names = [parameter_names(layer, d) for d in range(D)]
        W, R, b_W, b_R = (
            np.stack([_reorder(case, problem.params[names[d][i]]) for d in range(D)])
            for i in range(4)
        )
        above = "y" if layer == case.layers - 1 else f"y_{layer}"
        nodes.append(
            helper.make_node(
                _OPERATORS[case.cell],
                [
                    below,
                    constant(f"W_{layer}", W),
                    constant(f"R_{layer}", R),
                    constant(f"B_{layer}", np.concatenate([b_W, b_R], axis=1)),
                    lengths,
                    *([f"{part}_{layer}" for part in parts] if streaming else []),
                ],
                [above, *(f"{part}_{layer}_new" for part in parts)],
                hidden_size=H,
                direction="bidirectional" if D == 2 else "forward",
                **attributes,
            )
        )
        if layer < case.layers - 1:
            below = _to_input(case, layer, nodes, constant)

    def tensor(name: str, shape: tuple[int, ...]) -> Any:
        return helper.make_tensor_value_info(name, element, shape)

    states = state_names(case)
    graph = helper.make_graph(
        nodes,
        case.cell,
        [
            tensor("x", (T, case.B, H)),
            *([tensor(name, (D, case.B, H)) for name, _ in states] if streaming else []),
        ],
        [tensor("y", (T, D, case.B, H)), *(tensor(name, (D, case.B, H)) for _, name in states)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = _IR_VERSION
    onnx.checker.check_model(model)
    return model


def _to_input(
    case: Case, layer: int, nodes: list[Any], constant: Callable[[str, Array], str]
) -> str:
    """Make (T, D, B, H) of one layer the (T, B, D*H) of the next."""
    source, target = f"y_{layer}", f"x_{layer + 1}"
    if case.directions == 1:
        axis = constant(f"axis_{layer}", np.array([1], np.int64))
        nodes.append(helper.make_node("Squeeze", [source, axis], [target]))
    else:
        turned = f"turned_{layer}"
        shape = constant(f"shape_{layer}", np.array([0, 0, -1], np.int64))
        nodes.append(helper.make_node("Transpose", [source], [turned], perm=[0, 2, 1, 3]))
        nodes.append(helper.make_node("Reshape", [turned, shape], [target]))
    return target


def results(case: Case, outputs: dict[str, Array]) -> dict[str, Array]:
    """Name the outputs of the model as the benchmark does, in PyTorch's layout."""
    T, D, B, H = outputs["y"].shape
    if case.task == "step":
        return {"output": outputs["y"].reshape(B, H)}
    y = outputs["y"].transpose(0, 2, 1, 3).reshape(T, B, D * H)
    layers = range(case.layers)
    found = {"output": y, "h_n": np.concatenate([outputs[f"h_{i}_new"] for i in layers])}
    if case.cell == "lstm":
        found["c_n"] = np.concatenate([outputs[f"c_{i}_new"] for i in layers])
    return found
