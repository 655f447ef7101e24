"""Small ONNX models that the tests of the reader share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

T, B, I, H = 6, 3, 4, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
node = helper.make_node


def weights(kind: str = "LSTM", D: int = 1, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    G = GATES[kind] * H
    shapes = {"W": (D, G, I), "R": (D, G, H), "B": (D, 2 * G)}
    return {name: rng.uniform(-0.5, 0.5, s).astype(np.float32) for name, s in shapes.items()}


def info(name: str, kind: str = "FLOAT", shape: Sequence[Any] | None = None) -> Any:
    return helper.make_tensor_value_info(name, getattr(onnx.TensorProto, kind), shape)


def recurrent(*inputs: str, kind: str = "LSTM", name: str = "rnn", **attributes: Any) -> Any:
    given = inputs or ("X", "W", "R", "B")
    output = "Y" if name == "rnn" else f"Y_{name}"
    return node(kind, list(given), [output], name=name, hidden_size=H, **attributes)


def graph(nodes: Sequence[Any], output: str, tensors: Mapping[str, Any] | None = None) -> Any:
    """A graph for the inside of a node."""
    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in (tensors or {}).items()]
    return helper.make_graph(list(nodes), "inner", [], [info(output)], stored)


def model(
    nodes: Sequence[Any],
    tensors: Mapping[str, Any] | None = None,
    *,
    inputs: Sequence[Any] | None = None,
    output: str = "Y",
    opset: int = 17,
    functions: Sequence[Any] = (),
) -> Any:
    """A model with the input X (T, B, I), and others."""
    stored = [numpy_helper.from_array(np.asarray(v), n) for n, v in (tensors or {}).items()]
    given = [info("X", shape=["t", "b", I])] if inputs is None else list(inputs)
    whole = helper.make_graph(
        list(nodes), "model", given, [onnx.ValueInfoProto(name=output)], stored
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    opsets += [helper.make_opsetid(f.domain, 1) for f in functions]
    return helper.make_model(whole, opset_imports=opsets, functions=functions, ir_version=8)


def x_of(batch: int = B, steps: int = T) -> Any:
    rng = np.random.default_rng(1)
    return rng.standard_normal((steps, batch, I)).astype(np.float32)


def run(source: Any, **feeds: Any) -> Any:
    """The first output of a model in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        source.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)[0]
