"""ONNX models: every layer of a file, with its states and lengths."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import fastlstm
import numpy as np
import onnx
from fastlstm.interchange.onnx_import import find_nodes
from onnx import helper, numpy_helper
from onnx_models import (
    H,
    I,
    graph,
    info,
    model,
    node,
    recurrent,
    weights,
)


def originals(folder: Path) -> None:
    for name, source in _models().items():
        onnx.save(source, folder / f"{name}.onnx")


def read(path: str) -> object:
    try:
        names = list(find_nodes(onnx.load(path)))
    except Exception:  # the reader says what is wrong; it is asked for any node
        names = []
    return [fastlstm.from_onnx(path, name, constants=True) for name in names[:20] or [None]]


def mutated(random: Random, data: bytes) -> bytes:
    """A model of which some fields are changed."""
    source = onnx.ModelProto.FromString(data)
    for _ in range(random.choice((1, 1, 2, 5))):
        _change(random, random.choice(list(_messages(source))))
    return bytes(source.SerializeToString())


def _models() -> dict[str, Any]:
    W, rng = weights(), np.random.default_rng(0)
    h_0 = rng.standard_normal((1, 1, H)).astype(np.float32)
    numbers = {"one": np.array([1]), "H": np.array([H]), "h_0": h_0, "axes": np.array([0])}
    scale, q = np.float32(0.01), rng.integers(-99, 99, W["W"].shape).astype(np.int8)
    state = [
        node("Shape", ["X"], ["x_shape"]),
        node("Gather", ["x_shape", "one"], ["b"]),
        node("Concat", ["one", "b", "H"], ["shape"], axis=0),
        node("Expand", ["h_0", "shape"], ["h"]),
        node("Gather", ["x_shape", "axes"], ["t"]),
        node("Tile", ["t", "b"], ["n"]),
        recurrent("X", "W", "R", "B", "n", "h", "h"),
    ]
    made = [
        node("DequantizeLinear", ["q", "scale"], ["W0"]),
        node("ReduceL2", ["W0"], ["norm"], axes=[2]),
        node("Div", ["W0", "norm"], ["W1"]),
        node("Slice", ["W1", "axes", "H", "one"], ["W2"]),
        node("Concat", ["W2", "W2", "W2", "W2"], ["W3"], axis=1),
        node("Pad", ["W1", "pads"], ["W4"]),
        node("Where", ["yes", "W1", "W4"], ["W"]),
        node("Split", ["R0"], ["R1", "R2"], axis=1),
        node("Concat", ["R1", "R2"], ["R"], axis=1),
        node("Constant", [], ["c"], value_float=0.5),
        node("Expand", ["c", "b_shape"], ["B"]),
        recurrent(),
    ]
    tensors = {"q": q, "scale": scale, "R0": W["R"], "b_shape": np.array([1, 8 * H])}
    tensors |= {"pads": np.zeros(6, np.int64), "yes": np.array(True), **numbers}
    branch = graph([recurrent(name="inner")], "Y_inner")
    inside = node("If", ["c"], ["Y"], name="if", then_branch=branch, else_branch=branch)
    inputs = [info("X", shape=["t", "b", I]), info("c", "BOOL", [])]
    function = helper.make_function(
        "my",
        "F",
        ["x", "w", "r"],
        ["Y"],
        [node("Transpose", ["w"], ["W"], perm=[0, 2, 1]), recurrent("x", "W", "r", name="in")],
        [helper.make_opsetid("", 17)],
    )
    call = node("F", ["X", "W_t", "R"], ["Y"], name="call", domain="my")
    transposed = {"W_t": W["W"].swapaxes(1, 2), "R": W["R"]}
    return {
        "state": model(state, {**W, **numbers}),
        "made": model(made, tensors),
        "branch": model([inside], W, inputs=inputs),
        "function": model([call], transposed, functions=[function]),
    }


def _messages(message: Any) -> Any:
    """A message and all inside it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in value if hasattr(value, "append") else [value]:
            yield from _messages(inner)


_KINDS = ("Expand", "Tile", "Gather", "Concat", "Loop", "If", "Range", "OneHot", "LSTM", "Reshape")
_NUMBERS = (0, 1, -1, 2, 3, 5, 20, 1000, 2**31 - 1, 2**40, 2**62, -(2**62))


def _change(random: Random, message: Any) -> None:
    """Change a field of a message: to another value that it may have, or to one from elsewhere."""
    if isinstance(message, onnx.TensorProto) and random.random() < 0.3:
        message.CopyFrom(numpy_helper.from_array(np.array(random.choices(_NUMBERS, k=3))))
        return
    fields = [field for field, _ in message.ListFields()]
    if not fields:
        return
    field = random.choice(fields)
    value = getattr(message, field.name)
    many = hasattr(value, "append")
    if random.random() < 0.1:
        message.ClearField(field.name)
    elif many and random.random() < 0.4 and len(value):
        if random.random() < 0.5:
            del value[random.randrange(len(value))]
        else:
            value.extend([value[random.randrange(len(value))]] * random.choice((1, 1, 9, 1000)))
    elif field.message_type is None:
        new = _other(random, field, value[0] if many and len(value) else value)
        if many and len(value):
            value[random.randrange(len(value))] = new
        elif not many:
            setattr(message, field.name, new)


def _other(random: Random, field: Any, value: Any) -> Any:
    if isinstance(value, str):
        return random.choice((*_KINDS, "W", "R", "B", "X", "h", "shape", "", "b", value * 2))
    if isinstance(value, bytes):
        return value[: random.randrange(len(value) + 1)] + random.randbytes(random.randrange(9))
    if isinstance(value, float):
        return random.choice((0.0, -1.0, 1e30, float("nan"), float("inf")))
    if field.enum_type is not None:
        return random.choice(field.enum_type.values).number
    largest = 2**31 - 1 if field.cpp_type == field.CPPTYPE_INT32 else 2**62
    number = random.choice(_NUMBERS)
    return max(min(number, largest), 0 if "UINT" in str(field.type) else -largest)
