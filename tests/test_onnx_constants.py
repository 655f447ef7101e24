"""What an ONNX model computes without its inputs: weights, and states and lengths of a batch."""

from __future__ import annotations

import contextlib
import copy
import io
import re
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from fastlstm.interchange._onnx.file import Model, Tensors  # noqa: E402
from fastlstm.interchange._onnx.graphs import Graphs  # noqa: E402
from fastlstm.interchange._onnx.room import Room  # noqa: E402
from fastlstm.interchange._onnx.values import Values  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import B, H, I, T, info, model, node, recurrent, run, weights, x_of  # noqa: E402
from tolerances import ONNX_RUNTIME, assert_close  # noqa: E402

RNG = np.random.default_rng(0)
A = RNG.standard_normal((3, 4)).astype(np.float32)
V = RNG.standard_normal(4).astype(np.float32)
POSITIVE = np.abs(A) + np.float32(0.1)
WHOLE = RNG.integers(-9, 9, (3, 4))
W = weights()


def value_of(source: Any, name: str = "out") -> Any:
    tensors, graphs = Tensors(Model("model", source, None)), Graphs(source)
    return Values(graphs, tensors, Room(lambda: tensors.size)).value(graphs.main, name)


def assert_same_layer(source: Any, expected: Any = None, **feeds: Any) -> None:
    """A layer gives what ONNX Runtime gives of the model, or of one that is the same."""
    x = x_of()
    theirs = run(source if expected is None else expected, X=x, **feeds)
    assert_close(fastlstm.from_onnx(source)(x)[0], theirs[:, 0], ONNX_RUNTIME, "Y")


# --- operators ------------------------------------------------------------------------------------

OPERATORS: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
    "Div of integers": ("Div", [WHOLE, np.abs(WHOLE) + 2], {}),
    "Pow": ("Pow", [POSITIVE, np.float32(2)], {}),
    "Sum": ("Sum", [A, V, A], {}),
    "Mean": ("Mean", [A, V, A], {}),
    "Min": ("Min", [A, V], {}),
    "Max": ("Max", [A, V], {}),
    "Mod": ("Mod", [WHOLE, np.abs(WHOLE) + 2], {}),
    "Mod of floats": ("Mod", [A, POSITIVE], {"fmod": 1}),
    "Where": ("Where", [A > 0, A, V], {}),
    "Clip": ("Clip", [A, np.float32(-0.3), np.float32(0.4)], {}),
    "Clip before 11": ("Clip", [A], {"min": -0.3, "max": 0.4}),
    "MatMul": ("MatMul", [A, A.T.copy()], {}),
    "Gemm": ("Gemm", [A, A, V[:3]], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "Gather": ("Gather", [A, np.array([[0, -1], [2, 1]])], {"axis": 1}),
    "GatherElements": ("GatherElements", [A, WHOLE[:, :2] % 4 - 4], {"axis": 1}),
    "GatherElements of a part": ("GatherElements", [A, WHOLE[:2] % 4], {"axis": 1}),
    "ScatterElements of a part": ("ScatterElements", [A, WHOLE[:2, :3] % 3, A[1:, 1:]], {}),
    "ConstantOfShape, a scalar": ("ConstantOfShape", [np.zeros(0, np.int64)], {}),
    "GatherND": ("GatherND", [A, np.array([[0, 1], [2, 3]])], {}),
    "ScatterND": ("ScatterND", [A, np.array([[0], [2]]), np.ones((2, 4), np.float32)], {}),
    "ScatterElements": ("ScatterElements", [A, WHOLE[:1] % 3, A[1:2]], {}),
    "NonZero": ("NonZero", [np.maximum(WHOLE, 0)], {}),
    "Compress": ("Compress", [A, np.array([False, True, True])], {"axis": 0}),
    "Compress of all": ("Compress", [A, np.array([False, True, True])], {}),
    "EyeLike": ("EyeLike", [A], {"k": 1}),
    "Expand": ("Expand", [V, np.array([3, 1])], {}),
    "Tile": ("Tile", [A, np.array([2, 3])], {}),
    "Pad": ("Pad", [A, np.array([1, 0, 0, 2]), np.float32(7)], {}),
    "Pad with less than nothing": ("Pad", [A, np.array([-1, 0, 0, 2])], {}),
    "Pad before 11": ("Pad", [A], {"pads": [1, 0, 0, 2], "value": 7.0}),
    "Pad, edge": ("Pad", [A, np.array([1, 0, 0, 2])], {"mode": "edge"}),
    "Pad, reflect": ("Pad", [A, np.array([1, 0, 0, 2])], {"mode": "reflect"}),
    "ConstantOfShape": ("ConstantOfShape", [np.array([2, 3])], {}),
    "Range": ("Range", [np.int64(3), np.int64(10), np.int64(2)], {}),
    "Range backwards": ("Range", [np.float32(3), np.float32(1), np.float32(-0.5)], {}),
    "OneHot": ("OneHot", [np.array([0, 2, -1]), np.int64(4), V[:2]], {"axis": 0}),
    "OneHot of two axes": ("OneHot", [WHOLE % 5, np.int64(5), V[:2]], {}),
    "Slice": ("Slice", [A, *np.array([[0, -1], [9, -9], [0, 1], [2, -1]])], {}),
    "Slice to the end": ("Slice", [A, np.array([1]), np.array([2**63 - 1])], {}),
    "Slice before 10": ("Slice", [A], {"starts": [-2, 0], "ends": [9, 1], "axes": [0, 1]}),
    "Concat": ("Concat", [A, A], {"axis": 0}),
    "Flatten": ("Flatten", [A[None]], {"axis": -1}),
    "Reshape": ("Reshape", [A, np.array([0, 2, -1])], {}),
    "Transpose": ("Transpose", [A], {}),
    "Transpose to an order": ("Transpose", [A[None]], {"perm": [2, 0, 1]}),
    "Cast": ("Cast", [A], {"to": TensorProto.FLOAT16}),
    "ArgMax": ("ArgMax", [A], {"axis": 1}),
    "ArgMin": ("ArgMin", [A], {"axis": 0, "keepdims": 0}),
    "LpNormalization": ("LpNormalization", [A], {"axis": 1, "p": 2}),
    "Size": ("Size", [A], {}),
    "Shape": ("Shape", [A], {}),
    "Shape of some axes": ("Shape", [A[None]], {"start": 1, "end": -1}),
    "Dropout": ("Dropout", [A], {}),
    "Softmax": ("Softmax", [A], {"axis": 0}),
    "LayerNormalization": ("LayerNormalization", [A, V], {}),
    "CumSum": ("CumSum", [A, np.int64(0)], {"reverse": 1}),
    "Trilu": ("Trilu", [A, np.int64(1)], {}),
    "LeakyRelu": ("LeakyRelu", [A], {"alpha": 0.2}),
    **{k: (k, [A, V], {}) for k in ("Add", "Sub", "Mul", "Div", "Equal", "Less", "GreaterOrEqual")},
    **{k: (k, [A > 0, A < 1], {}) for k in ("And", "Or", "Xor")},
    **{k: (k, [POSITIVE], {}) for k in ("Sqrt", "Log", "Reciprocal")},
    **{
        k: (k, [A], {})
        for k in [
            *("Identity", "Neg", "Abs", "Sign", "Exp", "Sin", "Cos", "Floor", "Ceil", "Round"),
            *("Tanh", "Sigmoid", "Relu", "Softplus", "IsNaN", "Erf"),
        ]
    },
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name: str) -> None:
    """As ONNX Runtime, in every version that it has."""
    kind, inputs, attributes = OPERATORS[name]
    tensors = {f"in{k}": np.asarray(array) for k, array in enumerate(inputs)}
    compared = 0
    for opset in (7, 9, 10, 11, 12, 13, 15, 17, 18, 20, 21, 23):
        nodes = [node(kind, list(tensors), ["out"], **attributes)]
        source = model(nodes, tensors, inputs=[], output="out", opset=opset)
        try:
            expected = run(source)
        except Exception:  # it has no such version, or not with these arguments
            continue
        try:
            actual = value_of(source)
        except ValueError:
            assert kind == "Softmax"  # before 13 it took several axes for one
            assert opset < 13
            continue
        compared += 1
        assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert compared > 0


REDUCTIONS = ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp")


@pytest.mark.parametrize("opset", [11, 13, 18])
@pytest.mark.parametrize(
    ("kind", "axes", "since"),
    [
        *((f"Reduce{kind}", [-1, 0], 13 if kind == "Sum" else 18) for kind in REDUCTIONS),
        ("Squeeze", [0], 13),
        ("Unsqueeze", [0, -1], 13),
    ],
)
def test_axes_are_attributes_or_inputs(kind: str, axes: list[int], since: int, opset: int) -> None:
    tensors = {"in": POSITIVE[None], "axes": np.array(axes)}
    if opset < since:
        del tensors["axes"]
    more = {"axes": axes} if opset < since else {}
    if kind.startswith("Reduce"):
        more["keepdims"] = 0
    nodes = [node(kind, list(tensors), ["out"], **more)]
    source = model(nodes, tensors, inputs=[], output="out", opset=opset)
    np.testing.assert_allclose(value_of(source), run(source), rtol=1e-5)


@pytest.mark.parametrize("opset", [12, 13, 18])
def test_split(opset: int) -> None:
    cases: list[tuple[list[Any], dict[str, Any]]] = [([], {})]
    if opset < 13:
        cases.append(([], {"split": [1, 3]}))
    else:
        cases.append((["sizes"], {}))
    if opset >= 18:
        cases[0] = ([], {"num_outputs": 2})
    for more, attributes in cases:
        nodes = [node("Split", ["in", *more], ["first", "out"], axis=1, **attributes)]
        tensors = {"in": A, "sizes": np.array([1, 3])}
        source = model(nodes, tensors, inputs=[], output="out", opset=opset)
        assert np.array_equal(value_of(source), run(source))


# --- quantised weights ----------------------------------------------------------------------------


def quantised(
    opset: int, scale: Any, zero: Any, dtype: str = "int8", domain: str = "", **attributes: Any
) -> Any:
    q = np.random.default_rng(0).integers(0, 100, W["W"].shape).astype(dtype)
    inputs = ["q", "scale", *(["zero"] if zero is not None else [])]
    tensors = {**W, "q": q, "scale": np.asarray(scale, np.float32)}
    del tensors["W"]
    if zero is not None:
        tensors["zero"] = np.asarray(zero, dtype)
    nodes = [node("DequantizeLinear", inputs, ["W"], domain=domain, **attributes), recurrent()]
    return model(nodes, tensors, opset=opset)


@pytest.mark.parametrize("opset", [10, 12, 13, 18, 19, 20, 21, 23])
def test_dequantised_with_one_scale(opset: int) -> None:
    assert_same_layer(quantised(opset, 0.005, None))
    assert_same_layer(quantised(opset, 0.005, 3, "uint8"))


SCALES = np.linspace(0.002, 0.006, 4 * H)


@pytest.mark.parametrize("opset", [13, 17, 19, 21])
@pytest.mark.parametrize("zero", [None, np.arange(4 * H)])
def test_dequantised_by_channel(opset: int, zero: Any) -> None:
    assert_same_layer(quantised(opset, SCALES, zero, axis=1))
    assert_same_layer(quantised(opset, SCALES, zero))  # 1 is the axis where none is given
    assert_same_layer(quantised(opset, SCALES[:I], None if zero is None else zero[:I], axis=-1))


@pytest.mark.parametrize("block", [2, 3, 4])
def test_dequantised_by_blocks(block: int) -> None:
    scales = np.linspace(0.002, 0.006, 4 * H * -(-I // block)).reshape(1, 4 * H, -1)
    assert_same_layer(quantised(21, scales, None, axis=2, block_size=block))


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32"])
def test_dequantised_from_larger_types(dtype: str) -> None:
    zero = None if dtype == "int32" else 7
    assert_same_layer(quantised(21, 0.005, zero, dtype))
    if dtype == "int16":  # before 21, under ONNX Runtime's own name
        assert_same_layer(quantised(17, 0.005, zero, dtype, "com.microsoft"))


@pytest.mark.parametrize("dtype", ["FLOAT16", "BFLOAT16"])
def test_dequantised_to_half_precision(dtype: str) -> None:
    kind = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, dtype))
    source = quantised(19, 0.0, None)
    del source.graph.initializer[:]
    q = np.arange(4 * H * I, dtype=np.int8).reshape(1, 4 * H, I)
    halves = {name: W[name].astype(kind) for name in ("R", "B")}
    for name, value in {**halves, "q": q, "scale": np.array(0.005, kind)}.items():
        source.graph.initializer.append(numpy_helper.from_array(value, name))
    expected = (q.astype(np.float32) * np.float32(np.array(0.005, kind))).astype(kind)
    params = fastlstm.from_onnx(source).params
    gates = np.split(expected[0].astype(np.float32), 4)
    assert np.array_equal(params["weight_ih_l0"], np.concatenate([gates[k] for k in (0, 2, 3, 1)]))


@pytest.mark.parametrize("dtype", ["INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2"])
def test_dequantised_from_smaller_types(dtype: str) -> None:
    pytest.importorskip("ml_dtypes")
    values = np.arange(4 * H * I).reshape(1, 4 * H, I) % 7
    source = quantised(21, 0.05, None)
    tensor = next(t for t in source.graph.initializer if t.name == "q")
    kind = getattr(TensorProto, dtype)
    tensor.CopyFrom(helper.make_tensor("q", kind, values.shape, values.ravel().tolist()))
    floats = {**W, "W": values.astype(np.float32) * np.float32(0.05)}
    assert_same_layer(source, model([recurrent()], floats))


@pytest.mark.parametrize("axis", [None, 1])
def test_weights_that_are_quantised_and_back(axis: int | None) -> None:
    """What training with quantisation in mind leaves: both, one after the other."""
    scale = np.float32(0.01) if axis is None else SCALES.astype(np.float32)
    zero = np.zeros(np.shape(scale), np.int8)
    more = {} if axis is None else {"axis": axis}
    nodes = [
        node("QuantizeLinear", ["w", "s", "z"], ["q"], **more),
        node("DequantizeLinear", ["q", "s", "z"], ["W"], **more),
        recurrent(),
    ]
    tensors = {"w": W["W"], "R": W["R"], "B": W["B"], "s": scale, "z": zero}
    assert_same_layer(model(nodes, tensors))


def test_integers_that_are_quantised() -> None:
    """Their scale is no integer. ONNX Runtime has no such operator."""
    tensors = {"in": np.arange(-6, 6, dtype=np.int32), "s": np.float32(0.4), "z": np.int8(3)}
    source = model([node("QuantizeLinear", [*tensors], ["out"])], tensors, inputs=[], output="out")
    expected = [np.rint(n / 0.4) + 3 for n in range(-6, 6)]
    assert value_of(source).tolist() == expected


@pytest.mark.parametrize(
    ("scale", "zero", "more", "message"),
    [
        (np.ones(3), None, {}, "expected 20 scales, got (3,)"),
        (np.ones(4 * H), np.zeros(2), {}, "expected zero points (20,), got (2,)"),
        (np.ones((1, 4 * H, I)), None, {"axis": 2, "block_size": 10**8}, "expected scales"),
        (np.ones((1, 4 * H, I)), None, {"axis": 2, "block_size": -1}, "expected scales"),
    ],
)
def test_scales_that_do_not_fit(scale: Any, zero: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        fastlstm.from_onnx(quantised(21, scale, zero, **more))


# --- where constants come from --------------------------------------------------------------------


def bias_of(attribute: dict[str, Any], *then: Any) -> Any:
    nodes = [node("Constant", [], ["c"], **attribute), *then, recurrent()]
    tensors = {"W": W["W"], "R": W["R"], "shape": np.array([1, 8 * H]), "axes": np.array([0])}
    return model(nodes, tensors)


def test_constants_of_all_kinds() -> None:
    expand = node("Expand", ["c", "shape"], ["B"])
    unsqueeze = node("Unsqueeze", ["c", "axes"], ["B"])
    cast = node("Cast", ["c"], ["f"], to=TensorProto.FLOAT)
    expand_cast = node("Expand", ["f", "shape"], ["B"])
    numbers = np.linspace(0, 1, 8 * H).astype(np.float32)
    assert_same_layer(bias_of({"value_float": 0.25}, expand))
    assert_same_layer(bias_of({"value_floats": numbers.tolist()}, unsqueeze))
    assert_same_layer(bias_of({"value_int": 1}, cast, expand_cast))
    assert_same_layer(bias_of({"value_ints": [1] * 8 * H}, cast, expand_cast))
    assert_same_layer(bias_of({"value": numpy_helper.from_array(numbers)}, unsqueeze))
    for attribute in ({"value_string": "a"}, {"value_strings": ["a"]}):
        with pytest.raises(ValueError, match="Constant: expected numbers, got value_string"):
            fastlstm.from_onnx(bias_of(attribute, expand))


@pytest.mark.parametrize("flat", [False, True])
def test_sparse_tensors(flat: bool) -> None:
    dense = W["B"].copy()
    dense[0, 3:] = 0
    places = np.array([0, 1, 2]) if flat else np.array([[0, 0], [0, 1], [0, 2]])
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(dense[0, :3], "B"), numpy_helper.from_array(places), dense.shape
    )
    expected = model([recurrent()], {**W, "B": dense})
    tensors = {"W": W["W"], "R": W["R"]}
    stored = model([recurrent()], tensors)
    stored.graph.sparse_initializer.append(sparse)
    made = model([node("Constant", [], ["B"], sparse_value=sparse), recurrent()], tensors)
    assert_same_layer(stored, expected)
    assert_same_layer(made, expected)


def test_weight_norm() -> None:
    g = np.linspace(0.5, 2, 4 * H).astype(np.float32).reshape(1, 4 * H, 1)
    nodes = [
        node("ReduceL2", ["v"], ["norm"], axes=[2], keepdims=1),
        node("Div", ["v", "norm"], ["unit"]),
        node("Mul", ["unit", "g"], ["W"]),
        recurrent(),
    ]
    assert_same_layer(model(nodes, {"v": W["W"], "g": g, "R": W["R"], "B": W["B"]}))


def test_defaults_of_inputs_are_constants() -> None:
    """Before version 4 of the format every initialiser was an input, too."""
    source = model([recurrent()], W)
    source.graph.input.extend(info(name, shape=value.shape) for name, value in W.items())
    source.ir_version = 3
    assert_same_layer(source, model([recurrent()], W))


def test_what_is_not_computed_is_refused_by_name() -> None:
    for kind, attributes in (("RandomNormalLike", {}), ("Hardmax", {}), ("Mine", {"domain": "my"})):
        source = model([node(kind, ["w"], ["W"], **attributes), recurrent()], {**W, "w": W["W"]})
        del source.graph.initializer[0]
        with pytest.raises(ValueError, match=f"W: W: a constant that is made by {kind}, which is"):
            fastlstm.from_onnx(source)
    # Such a state is refused, too: left out, it would be zero.
    state = node("RandomNormal", [], ["h"], shape=[1, B, H])
    source = model([state, recurrent("X", "W", "R", "B", "", "h")], W)
    with pytest.raises(ValueError, match="initial_h: h: a constant that is made by RandomNormal"):
        fastlstm.from_onnx(source)


# --- states and lengths ---------------------------------------------------------------------------

H_0 = RNG.uniform(-1, 1, (1, 1, H)).astype(np.float32)
SIZES = {
    "one": np.array([1]),
    "two": np.array([2]),
    "three": np.array([3]),
    "H": np.array([H]),
    "ones": np.array([1, 1]),
    "h_0": H_0,
    "five": np.array([5]),
}
SHAPE = [
    node("Shape", ["X"], ["x_shape"]),
    node("Gather", ["x_shape", "one"], ["b"]),
    node("Concat", ["one", "b", "H"], ["shape"], axis=0),
]
# What makes a state h of h_0 (1, 1, H) for every sequence.
REPEATED: dict[str, list[Any]] = {
    "Expand": [*SHAPE, node("Expand", ["h_0", "shape"], ["h"])],
    "Tile": [
        *SHAPE[:2],
        node("Concat", ["one", "b", "one"], ["repeats"], axis=0),
        node("Tile", ["h_0", "repeats"], ["h"]),
    ],
    "Mul": [
        *SHAPE,
        node("ConstantOfShape", ["shape"], ["zeros"]),
        node("Add", ["zeros", "h_0"], ["h"]),
    ],
    "Slice of Shape": [
        node("Shape", ["X"], ["x_shape"]),
        node("Slice", ["x_shape", "one", "two"], ["b"]),
        *SHAPE[2:],
        node("Expand", ["h_0", "shape"], ["h"]),
    ],
    "Shape of a part": [
        node("Shape", ["X"], ["b"], start=1, end=2),
        *SHAPE[2:],
        node("Expand", ["h_0", "shape"], ["h"]),
    ],
    "Shape of something unknown": [
        node("Unique", ["X"], ["u"], axis=1),
        node("Shape", ["u"], ["x_shape"]),
        *SHAPE[1:],
        node("Expand", ["h_0", "shape"], ["h"]),
    ],
    "Concat": [
        *SHAPE,
        node("Expand", ["h_0", "shape"], ["h1"]),
        node("Concat", ["h1", "h1"], ["h2"], axis=0),
        node("Split", ["h2"], ["h", "h3"], axis=0),
    ],
    "Gather": [
        node("Shape", ["X"], ["x_shape"]),
        node("Gather", ["x_shape", "one"], ["b"]),
        node("ConstantOfShape", ["b"], ["rows"], value=numpy_helper.from_array(np.array([0]))),
        node("Gather", ["h_0", "rows"], ["h"], axis=1),
    ],
    "If": [
        *SHAPE,
        node("Equal", ["b", "one"], ["alone"]),
        node(
            "If",
            ["alone"],
            ["h"],
            then_branch=helper.make_graph(
                [node("Identity", ["h_0"], ["t"])], "then", [], [info("t")]
            ),
            else_branch=helper.make_graph(
                [node("Expand", ["h_0", "shape"], ["e"])], "else", [], [info("e")]
            ),
        ),
    ],
}


def with_state(nodes: list[Any], kind: str = "GRU", **more: Any) -> Any:
    states = ["h", "h"] if kind == "LSTM" else ["h"]
    last = recurrent("X", "W", "R", "B", "", *states, kind=kind)
    return model([*nodes, last], {**weights(kind), **SIZES, **more})


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("name", REPEATED)
def test_a_state_that_is_repeated_for_every_sequence(name: str, kind: str) -> None:
    source = with_state(REPEATED[name], kind)
    with pytest.raises(ValueError, match="state: the model has it as a constant"):
        fastlstm.from_onnx(source)
    layer, call = fastlstm.from_onnx(source, constants=True)
    assert set(call) == {"state"}
    for batch in (1, 3):
        x = x_of(batch)
        states = call["state"] if kind == "LSTM" else (call["state"],)
        assert all(np.array_equal(state, H_0) for state in states)
        state = tuple(np.broadcast_to(s, (1, batch, H)) for s in states)
        output, _ = layer(x, state if kind == "LSTM" else state[0])
        if name != "Shape of something unknown":
            assert_close(output, run(source, X=x)[:, 0], ONNX_RUNTIME, "Y")


@pytest.mark.parametrize("name", REPEATED)
def test_a_state_of_zeros_is_none(name: str) -> None:
    source = with_state(REPEATED[name], h_0=0 * H_0)
    layer, call = fastlstm.from_onnx(source, constants=True)
    assert call == {}
    if name != "Shape of something unknown":
        assert_close(layer(x_of())[0], run(source, X=x_of())[:, 0], ONNX_RUNTIME, "Y")


def test_a_state_that_differs_between_sequences_is_refused() -> None:
    differs = {
        "rows": [
            *SHAPE[:2],
            node("Squeeze", ["b"], ["n"]),
            node("Range", ["zero", "n", "step"], ["r"]),
            node("Cast", ["r"], ["f"], to=TensorProto.FLOAT),
            node("Unsqueeze", ["f", "axes"], ["column"]),
            node("Add", ["column", "h_0"], ["h"]),
        ],
        "B": [
            *SHAPE,
            node("Expand", ["h_0", "shape"], ["h1"]),
            node("Cast", ["b"], ["f"], to=TensorProto.FLOAT),
            node("Mul", ["h1", "f"], ["h"]),
        ],
        "T": [
            *SHAPE,
            node("Expand", ["h_0", "shape"], ["h1"]),
            node("Gather", ["x_shape", "zeroth"], ["t"]),
            node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
            node("Div", ["h1", "f"], ["h"]),
        ],
        "whether alone": [
            *SHAPE,
            node("Expand", ["h_0", "shape"], ["h1"]),
            node("Greater", ["b", "one"], ["some"]),
            node("Cast", ["some"], ["f"], to=TensorProto.FLOAT),
            node("Mul", ["h1", "f"], ["h"]),
        ],
    }
    numbers = {"zero": np.int64(0), "step": np.int64(1), "zeroth": np.array([0])}
    for nodes in differs.values():
        source = with_state(nodes, **numbers, axes=np.array([0, 2]))
        run(source, X=x_of())
        for constants in (False, True):
            with pytest.raises(ValueError, match="initial_h: expected the same for every"):
                fastlstm.from_onnx(source, constants=constants)


def test_one_state_is_constant_and_the_other_left_out_or_computed() -> None:
    nodes = REPEATED["Expand"]
    source = model([*nodes, recurrent("X", "W", "R", "B", "", "", "h")], {**W, **SIZES})
    _, call = fastlstm.from_onnx(source, constants=True)
    assert np.array_equal(call["state"][0], 0 * H_0)
    assert np.array_equal(call["state"][1], H_0)
    inputs = [info("X", shape=["t", "b", I]), info("given", shape=[1, "b", H])]
    last = recurrent("X", "W", "R", "B", "", "given", "h")
    source = model([*nodes, last], {**W, **SIZES}, inputs=inputs)
    with pytest.raises(ValueError, match="initial_c: a constant, where the model computes init"):
        fastlstm.from_onnx(source, constants=True)
    last = recurrent("X", "W", "R", "B", "", "given", "given")
    assert (
        fastlstm.from_onnx(model([*nodes, last], {**W, **SIZES}, inputs=inputs), constants=True)[1]
        == {}
    )


COMPUTED = {
    "of what is zero": [
        node("ReduceMean", ["X"], ["x"], axes=[0, 2], keepdims=1),
        node("Mul", ["x", "nothing"], ["x0"]),
        node("Add", ["x0", "h_0"], ["h"]),
    ],
    "of a difference": [
        node("Sub", ["X", "X"], ["x"]),
        node("ReduceMean", ["x"], ["x0"], axes=[0, 2], keepdims=1),
        node("Add", ["x0", "h_0"], ["h"]),
    ],
    "of an encoder": [recurrent(name="encoder", kind="RNN")],
    "of a part of X": [
        node("Slice", ["X", "zero", "one", "zero"], ["x"]),
        node("Gather", ["x", "H_times"], ["h"], axis=2),
    ],
    "of an input": [node("Neg", ["given"], ["h"])],
}


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("constants", [False, True])
def test_a_state_that_the_model_computes_is_said(name: str, constants: bool) -> None:
    nodes = copy.deepcopy(COMPUTED[name])
    if name == "of an encoder":
        nodes[0].output[:] = ["", "h"]
    tensors = {**weights("RNN"), **SIZES, "zero": np.array([0]), "nothing": np.float32(0)}
    tensors["H_times"] = np.zeros(H, np.int64)
    inputs = [info("X", shape=["t", "b", I]), info("given", shape=[1, "b", H])]
    last = recurrent("X", "W", "R", "B", "", "h", kind="RNN")
    source = model([*nodes, last], tensors, inputs=inputs)
    message = "model: rnn: initial_h: the model computes it from its inputs, .*: pass it as state="
    with pytest.warns(UserWarning, match=message) as found:
        fastlstm.from_onnx(source, "rnn", constants=constants)
    assert [warning.filename for warning in found] == [__file__]


def test_lengths_that_the_model_computes_are_said() -> None:
    nodes = [
        node("ReduceMax", ["X"], ["x"], axes=[0, 2], keepdims=0),
        node("Cast", ["x"], ["n"], to=TensorProto.INT32),
    ]
    with pytest.warns(UserWarning, match="sequence_lens: the model computes it.*as lengths="):
        fastlstm.from_onnx(model([*nodes, recurrent("X", "W", "R", "B", "n")], W))


def test_parts_of_inputs_are_for_the_caller() -> None:
    """As PyTorch writes the states of several layers; warnings are errors here."""
    nodes = [
        node("Relu", ["X"], ["x"]),
        node("Slice", ["given", "zero", "one", "zero"], ["part"]),
        node("Cast", ["part"], ["h"], to=TensorProto.FLOAT),
        recurrent("x", "W", "R", "B", "", "h", "h"),
    ]
    inputs = [info("X", shape=["t", "b", I]), info("given", shape=[2, "b", H])]
    source = model(nodes, {**W, **SIZES, "zero": np.array([0])}, inputs=inputs)
    assert fastlstm.from_onnx(source, constants=True)[1] == {}


LENGTHS = {
    "Expand": [
        node("Gather", ["x_shape", "zeroth"], ["t"]),
        node("Expand", ["t", "b"], ["wide"]),
    ],
    "Tile": [
        node("Gather", ["x_shape", "zeroth"], ["t"]),
        node("Tile", ["t", "b"], ["wide"]),
    ],
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("steps", ["all", "five", "less"])
def test_lengths_made_of_sizes(name: str, steps: str) -> None:
    nodes = copy.deepcopy([*SHAPE[:2], *LENGTHS[name]])
    many = "wide"
    if steps == "five":
        nodes[-1].input[0] = "five"
    if steps == "less":
        many = "less"
        nodes.append(node("Min", ["wide", "five"], ["less"]))
    nodes.append(node("Cast", [many], ["lengths"], to=TensorProto.INT32))
    last = recurrent("X", "W", "R", "B", "lengths")
    source = model([*nodes, last], {**W, **SIZES, "zeroth": np.array([0])})
    if steps == "less":
        with pytest.raises(ValueError, match="sequence_lens: less: made of the model's sizes by M"):
            fastlstm.from_onnx(source, constants=True)
        return
    if steps == "five":
        with pytest.raises(ValueError, match="lengths: the model has it as a constant"):
            fastlstm.from_onnx(source)
    layer, call = fastlstm.from_onnx(source, constants=True)
    assert (call == {}) if steps == "all" else (call["lengths"].tolist() == [5])
    lengths = None if steps == "all" else np.broadcast_to(call["lengths"], (B,))
    expected = run(source, X=x_of())[:, 0]
    assert_close(layer(x_of(), lengths=lengths)[0], expected, ONNX_RUNTIME, "Y")


# What n sizes become: the same for all of them up to some, and something else above.
UP_TO = {
    "Min": [node("Min", ["n", "many"], ["m"])],
    "Max": [node("Max", ["n", "one", "many"], ["m"])],
    "Clip": [node("Clip", ["n", "one", "many"], ["m"])],
    "Greater": [node("Greater", ["n", "many"], ["c"]), node("Where", ["c", "one", "n"], ["m"])],
    "Equal": [node("Equal", ["n", "many"], ["c"]), node("Where", ["c", "one", "n"], ["m"])],
    "Equal zero": [
        node("Sub", ["n", "many"], ["d"]),
        node("Equal", ["d", "zeroth"], ["c"]),
        node("Where", ["c", "one", "n"], ["m"]),
    ],
    "Mod": [node("Mod", ["n", "many"], ["m"])],
    "Div": [node("Div", ["n", "many"], ["q"]), node("Add", ["q", "n"], ["m"])],
    "Relu": [
        node("Sub", ["n", "many"], ["d"]),
        node("Relu", ["d"], ["r"]),
        node("Sub", ["n", "r"], ["m"]),
    ],
    "Slice": [
        node("ConstantOfShape", ["n"], ["z"]),
        node("Slice", ["z", "zeroth", "many"], ["part"]),
        node("Shape", ["part"], ["m"]),
    ],
    "Slice of a constant": [
        node("Slice", ["long", "zeroth", "n"], ["part"]),
        node("Shape", ["part"], ["m"]),
    ],
    "count": [
        node("Squeeze", ["n"], ["scalar"]),
        node("Range", ["zero", "scalar", "step"], ["r"]),
        node("Less", ["r", "many"], ["c"]),
        node("Cast", ["c"], ["i"], to=TensorProto.INT64),
        node("ReduceSum", ["i"], ["m"], keepdims=1),
    ],
    "Cast": [
        node("Cast", ["n"], ["small"], to=TensorProto.INT16),
        node("Cast", ["small"], ["m"], to=TensorProto.INT64),
    ],
    "Cast to bool": [
        node("Cast", ["n"], ["float"], to=TensorProto.FLOAT),
        node("Cast", ["many"], ["float_many"], to=TensorProto.FLOAT),
        node("Sub", ["float", "float_many"], ["d"]),
        node("Cast", ["d"], ["c"], to=TensorProto.BOOL),
        node("Where", ["c", "n", "one"], ["m"]),
    ],
    "If": [
        node("Greater", ["n", "many"], ["c"]),
        node(
            "If",
            ["c"],
            ["m"],
            then_branch=helper.make_graph([node("Neg", ["n"], ["t"])], "t", [], [info("t")]),
            else_branch=helper.make_graph([node("Identity", ["n"], ["e"])], "e", [], [info("e")]),
        ),
    ],
}


@pytest.mark.parametrize("name", UP_TO)
@pytest.mark.parametrize("what", ["lengths", "state"])
def test_what_is_another_for_large_sizes_is_refused(name: str, what: str) -> None:
    nodes = [*SHAPE, node("Gather", ["x_shape", "zeroth"], ["n"]), *UP_TO[name]]
    if what == "lengths":
        nodes.append(node("Expand", ["m", "b"], ["wide"]))
        nodes.append(node("Cast", ["wide"], ["lengths"], to=TensorProto.INT32))
        nodes.append(recurrent("X", "W", "R", "B", "lengths"))
    else:
        nodes.append(node("Equal", ["m", "n"], ["same"]))
        nodes.append(node("Cast", ["same"], ["f"], to=TensorProto.FLOAT))
        nodes.append(node("Mul", ["f", "h_0"], ["row"]))
        nodes.append(node("Expand", ["row", "shape"], ["h"]))
        nodes.append(recurrent("X", "W", "R", "B", "", "h", "h"))
    numbers = {"zeroth": np.array([0]), "many": np.array([300]), "long": np.zeros(300)}
    numbers |= {"zero": np.int64(0), "step": np.int64(1)}
    source = model(nodes, {**W, **SIZES, **numbers}, opset=14)
    with pytest.raises(ValueError, match=r"expected the same for every|made of the model's sizes"):
        fastlstm.from_onnx(source, constants=True)


def test_functions_of_a_repeated_state() -> None:
    """What bounds numbers bounds no sizes."""
    nodes = [*REPEATED["Expand"][:-1], node("Expand", ["h_0", "shape"], ["wide"])]
    nodes += [node("Clip", ["wide", "low", "high"], ["c"]), node("Relu", ["c"], ["h"])]
    source = with_state(nodes, low=np.float32(-3), high=np.float32(0.4))
    _, call = fastlstm.from_onnx(source, constants=True)
    assert np.array_equal(call["state"], np.clip(H_0, 0, np.float32(0.4)))


# What stands between X (B, I, T) and the node's input, time last in both.
BEFORE: dict[str, list[Any]] = {
    "Conv": [node("Conv", ["X", "kernel"], ["x"], pads=[1, 1])],
    "Conv, SAME": [node("Conv", ["X", "kernel"], ["x"], auto_pad="SAME_UPPER")],
    "Conv with strides": [node("Conv", ["X", "kernel"], ["x"], strides=[2])],
    "Conv without pads": [node("Conv", ["X", "kernel"], ["x"])],
    "MaxPool": [node("MaxPool", ["X"], ["x"], kernel_shape=[2], strides=[2])],
    "AveragePool": [node("AveragePool", ["X"], ["x"], kernel_shape=[3], pads=[1, 1])],
    "Slice": [node("Slice", ["X", "zeroth", "three", "two"], ["x"])],
    "flip": [node("Slice", ["X", "last", "first", "two", "last"], ["x"])],
    "Concat": [node("Concat", ["X", "X"], ["x"], axis=2)],
    "Pad": [node("Pad", ["X", "pads"], ["x"])],
    "Split": [node("Split", ["X"], ["none", "x"], axis=2)],
    "elementwise": [node("Exp", ["X"], ["a"]), node("Max", ["a", "X"], ["x"])],
    "mean": [node("ReduceMean", ["X"], ["a"], axes=[2]), node("Sub", ["X", "a"], ["x"])],
}


@pytest.mark.parametrize("of", ["x", "X"])
@pytest.mark.parametrize("name", BEFORE)
def test_lengths_that_are_all_steps_after_other_operators(name: str, of: str) -> None:
    last = [
        node("Transpose", ["x"], ["xt"], perm=[2, 0, 1]),
        node("Transpose", [of], ["st"], perm=[2, 0, 1]),
        node("Shape", ["st"], ["x_shape"]),
        node("Gather", ["x_shape", "zeroth"], ["t"]),
        node("Gather", ["x_shape", "one"], ["b"]),
        node("Expand", ["t", "b"], ["wide"]),
        node("Cast", ["wide"], ["lengths"], to=TensorProto.INT32),
        recurrent("xt", "W", "R", "B", "lengths"),
    ]
    kernel = RNG.standard_normal((I, I, 3)).astype(np.float32)
    ends = {"zeroth": np.array([0]), "last": np.array([-1]), "first": np.array([-(2**63) + 1])}
    tensors = {**W, **SIZES, **ends, "kernel": kernel, "pads": np.array([0, 0, 1, 0, 0, 0])}
    inputs = [info("X", shape=["b", I, "t"])]
    source = model([*BEFORE[name], *last], tensors, inputs=inputs)
    same = name in ("Conv", "Conv, SAME", "AveragePool", "flip", "elementwise", "mean")
    if of == "X" and not same:  # other lengths than all steps
        with pytest.raises(ValueError, match="sequence_lens: expected the same for every"):
            fastlstm.from_onnx(source)
        return
    layer = fastlstm.from_onnx(source)
    x = np.ascontiguousarray(x_of().transpose(1, 2, 0))
    shown = model([*BEFORE[name], last[0]], tensors, inputs=inputs, output="xt")
    output, _ = layer(run(shown, X=x))
    assert_close(output, run(source, X=x)[:, 0], ONNX_RUNTIME, "Y")


def test_a_state_of_the_shape_of_a_part() -> None:
    nodes = [
        node("Slice", ["X", "zeros", "ones", "ends"], ["part"]),  # X[:1, :, :1]
        node("Shape", ["part"], ["s"]),
        node("ConstantOfShape", ["s"], ["z"]),
        node("Add", ["z", "h_0"], ["h"]),
    ]
    source = with_state(nodes, zeros=np.array([0, 0]), ends=np.array([0, 2]))
    assert np.array_equal(fastlstm.from_onnx(source, constants=True)[1]["state"], H_0)


def test_axes_that_are_not_known_are_said() -> None:
    nodes = [node("Unique", ["X"], ["u"], axis=1), node("Shape", ["u"], ["s"])]
    source = with_state([*nodes, node("Expand", ["h_0", "s"], ["h"])])
    with pytest.raises(ValueError, match=r"initial_h: .*; the number of axes of u is not known$"):
        fastlstm.from_onnx(source)


def test_states_of_wrong_shapes_are_refused() -> None:
    for shape in ((1, H), (2, B, H), (1, B, H + 1)):
        source = with_state([], h=np.ones(shape, np.float32))
        with pytest.raises(ValueError, match=r"initial_h: expected \(1, B, 5\), got"):
            fastlstm.from_onnx(source, constants=True)
    last = recurrent("X", "W", "R", "B", "lengths")
    for lengths in (np.ones((B, 1), np.int32), np.ones(B, np.float32)):
        with pytest.raises(ValueError, match=r"sequence_lens: expected \(B,\) integers, got"):
            fastlstm.from_onnx(model([last], {**W, "lengths": lengths}))


@pytest.mark.filterwarnings("ignore")  # PyTorch's, on its own exporters
@pytest.mark.parametrize(
    ("how", "exporter"),
    [
        *((how, "TorchScript") for how in ("expand", "repeat", "zeros", "none")),
        ("expand", "dynamo"),
    ],
)
def test_states_that_pytorch_exports(how: str, exporter: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = torch.nn.GRU(I, H, 2, bidirectional=True, batch_first=True)
            self.h_0 = torch.nn.Parameter(torch.rand(4, 1, H))

        def forward(self, x: Any) -> Any:
            many = x.shape[0]
            if how == "none":
                return self.rnn(x)[0]
            if how == "zeros":
                return self.rnn(x, torch.zeros(4, many, H))[0]
            if how == "repeat":
                return self.rnn(x, self.h_0.repeat(1, many, 1))[0]
            return self.rnn(x, self.h_0.expand(-1, many, -1).contiguous())[0]

    torch.manual_seed(0)
    net, x, path = Net().eval(), torch.randn(B, T, I), tmp_path / "m.onnx"
    axes = {0: "b", 1: "t"}
    with contextlib.redirect_stdout(io.StringIO()):
        if exporter == "dynamo":
            named = {k: torch.export.Dim(name) for k, name in axes.items()}
            torch.onnx.export(net, (x,), path, dynamo=True, dynamic_shapes=(named,), verbose=False)
        else:
            torch.onnx.export(
                net, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": axes}
            )
    output = x.numpy().swapaxes(0, 1)
    for k, name in enumerate(fastlstm.interchange.onnx_import.find_nodes(onnx.load(path))):
        layer, call = fastlstm.from_onnx(path, name, constants=True)
        expected = net.h_0[2 * k : 2 * k + 2].detach().numpy()
        if how in ("zeros", "none"):
            assert call == {}
        else:
            assert np.array_equal(call["state"], expected)
            call["state"] = np.broadcast_to(expected, (2, B, H))
        output, _ = layer(output, **call)
    np.testing.assert_allclose(output.swapaxes(0, 1), net(x).detach().numpy(), atol=2e-6)
