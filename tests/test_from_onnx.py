"""Layers from ONNX: its own tests, ONNX Runtime's results, every attribute, errors, damage."""

from __future__ import annotations

import importlib
import itertools
import re
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from damage import check_reader
from fastlstm.interchange import onnx_import as reader
from foreign import build
from tolerances import ONNX_RUNTIME, assert_close

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
T, B, I, H = 6, 4, 3, 5


# --- ONNX's own tests ---------------------------------------------------------------------------


def backend_cases() -> list[Any]:
    """ONNX makes a test's model and data when the module of its operator is imported."""
    node = importlib.import_module("onnx.backend.test.case.node")
    for name in ("lstm", "gru", "rnn"):
        importlib.import_module(f"onnx.backend.test.case.node.{name}")
    return [c for c in node._NodeTestCases if c.model.graph.node[0].op_type in GATES]


BACKEND_CASES = backend_cases()


def test_all_of_onnx_tests_are_here() -> None:
    kinds = [case.model.graph.node[0].op_type for case in BACKEND_CASES]
    assert {kind: kinds.count(kind) >= 6 for kind in GATES} == dict.fromkeys(GATES, True)


@pytest.mark.parametrize("case", BACKEND_CASES, ids=lambda case: case.name)
def test_onnx_backend_node(case: Any) -> None:
    (node,) = case.model.graph.node
    ((inputs, outputs),) = case.data_sets
    given = dict(zip([i.name for i in case.model.graph.input], inputs, strict=True))
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    for name in ("W", "R", "B", "P"):  # inputs there, as all is; constants in every real model
        if name in given:
            model.graph.initializer.append(numpy_helper.from_array(given[name], name))
    layer = build(reader.describe(model)[0])
    names = ("initial_h", "initial_c") if node.op_type == "LSTM" else ("initial_h",)
    state: Any = tuple(given[name] for name in names if name in given) or None
    if state is not None and len(state) == 1:
        (state,) = state
    output, final = layer(given["X"], state, lengths=given.get("sequence_lens"))
    final = final if isinstance(final, tuple) else (final,)
    batch_first = layer.batch_first
    D = 2 if layer.bidirectional else 1
    y = output.reshape(*output.shape[:2], D, layer.hidden_size)
    ours = {"Y": y if batch_first else y.transpose(0, 2, 1, 3)}
    for name, value in zip(("Y_h", "Y_c"), final, strict=False):
        ours[name] = value.swapaxes(0, 1) if batch_first else value
    expected = dict(zip([o.name for o in case.model.graph.output], outputs, strict=True))
    assert expected
    for name, value in expected.items():
        assert ours[name].shape == value.shape
        np.testing.assert_allclose(ours[name], value, rtol=case.rtol, atol=case.atol)


# --- ONNX Runtime -------------------------------------------------------------------------------


def make_weights(kind: str, D: int, *, peepholes: bool = False, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    G = GATES[kind]
    shapes = {"W": (D, G * H, I), "R": (D, G * H, H), "B": (D, 2 * G * H)}
    if peepholes:
        shapes["P"] = (D, 3 * H)
    return {name: rng.normal(0, 0.6, s).astype(np.float32) for name, s in shapes.items()}


def make_model(
    kind: str, weights: dict[str, Any], *, states: int = 0, lengths: bool = False, **attributes: Any
) -> Any:
    """A model of one node, with float32 inputs X, sequence_lens, initial_h and initial_c."""
    F = TensorProto.FLOAT
    count = {"LSTM": 8}.get(kind, 6)
    names = ["X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"][:count]
    graph_inputs = [helper.make_tensor_value_info("X", F, ["time", "batch", I])]
    present = {"X", *weights}
    if lengths:
        graph_inputs.append(
            helper.make_tensor_value_info("sequence_lens", TensorProto.INT32, ["b"])
        )
        present.add("sequence_lens")
    for name in ("initial_h", "initial_c")[:states]:
        graph_inputs.append(helper.make_tensor_value_info(name, F, None))
        present.add(name)
    outputs = ["Y", "Y_h", "Y_c"] if kind == "LSTM" else ["Y", "Y_h"]
    inputs = [name if name in present else "" for name in names]
    while not inputs[-1]:
        inputs.pop()
    node = helper.make_node(kind, inputs, outputs, name="node", hidden_size=H, **attributes)
    graph = helper.make_graph(
        [node],
        "model",
        graph_inputs,
        [helper.make_tensor_value_info(name, F, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def session(model: Any) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def check_parity(model: Any, *, lengths: Any = None, scale: float = 1.0) -> None:
    kind = model.graph.node[0].op_type
    D = model.graph.initializer[0].dims[0]
    rng = np.random.default_rng(1)

    def normal(*shape: int) -> Any:
        return (scale * rng.standard_normal(shape)).astype(np.float32)

    feeds = {"X": normal(T, B, I)}
    for value in model.graph.input:
        if value.name.startswith("initial"):
            feeds[value.name] = normal(D, B, H)
    if lengths is not None:
        feeds["sequence_lens"] = np.array(lengths, np.int32)
    expected = session(model).run(None, feeds)
    layer = build(reader.describe(model)[0])
    state: Any = tuple(v for name, v in feeds.items() if name.startswith("initial")) or None
    if state is not None and kind != "LSTM":
        (state,) = state
    output, final = layer(feeds["X"], state, lengths=lengths)
    final = final if isinstance(final, tuple) else (final,)
    y = output.reshape(T, B, D, H).transpose(0, 2, 1, 3)
    assert_close(y, expected[0], ONNX_RUNTIME, "Y")
    for ours, theirs in zip(final, expected[1:], strict=True):
        assert_close(ours, theirs, ONNX_RUNTIME, "state")


@pytest.mark.parametrize("lengths", [None, [3, 6, 1, 5]], ids=["whole", "lengths"])
@pytest.mark.parametrize("states", [False, True], ids=["zero", "state"])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", GATES)
def test_parity(kind: str, bias: bool, direction: str, states: bool, lengths: Any) -> None:
    weights = make_weights(kind, 2 if direction == "bidirectional" else 1)
    if not bias:
        del weights["B"]
    count = states * (2 if kind == "LSTM" else 1)
    model = make_model(
        kind, weights, states=count, lengths=lengths is not None, direction=direction
    )
    check_parity(model, lengths=lengths)


@pytest.mark.parametrize("before", [0, 1])
def test_reset_before_and_after_the_product(before: int) -> None:
    check_parity(make_model("GRU", make_weights("GRU", 1), linear_before_reset=before))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_peepholes(direction: str) -> None:
    D = 2 if direction == "bidirectional" else 1
    weights = make_weights("LSTM", D, peepholes=True)
    check_parity(make_model("LSTM", weights, states=2, direction=direction))


@pytest.mark.parametrize("peepholes", [False, True])
def test_input_forget(peepholes: bool) -> None:
    weights = make_weights("LSTM", 1, peepholes=peepholes)
    check_parity(make_model("LSTM", weights, states=2, input_forget=1))


# Of all cells, and of both GRUs.
every_cell = pytest.mark.parametrize(
    ("kind", "more"),
    [("LSTM", {}), ("GRU", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})],
    ids=["LSTM", "GRU", "GRU, reset after", "RNN"],
)


@every_cell
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_clip(kind: str, more: dict[str, Any], direction: str) -> None:
    weights = make_weights(kind, 2 if direction == "bidirectional" else 1)
    check_parity(make_model(kind, weights, direction=direction, clip=0.4, **more))


@pytest.mark.parametrize("function", reader.PARAMETERS)
@every_cell
def test_activations(kind: str, more: dict[str, Any], function: str) -> None:
    count = len(reader.DEFAULTS[kind])
    parameters = len(reader.PARAMETERS[function])
    attributes: dict[str, Any] = {"activations": [function] * count, **more}
    if parameters:
        attributes["activation_alpha"] = [0.7, 0.3, 0.9][:count]
    if parameters == 2:
        attributes["activation_beta"] = [0.8, 1.2, 0.6][:count]
    # Small weights, with which functions without a bound do not grow beyond all numbers.
    weights = {name: 0.4 * value for name, value in make_weights(kind, 1).items()}
    check_parity(make_model(kind, weights, **attributes), scale=0.5)


def describe_functions(kind: str = "LSTM", D: int = 1, **attributes: Any) -> Any:
    direction = "bidirectional" if D == 2 else "forward"
    model = make_model(kind, make_weights(kind, D), direction=direction, **attributes)
    return reader.describe(model)[0].options.get("activations")


def test_parameters_of_activations_are_shared_out_in_order() -> None:
    assert describe_functions() is None
    assert describe_functions(activations=["Sigmoid", "Tanh", "Tanh"]) is None
    names = ["HardSigmoid", "tanh", "LEAKYRELU"]
    expected = (("HardSigmoid", 0.5, 0.25), "Tanh", ("LeakyRelu", 0.125))
    alphas = {"activation_alpha": [0.5, 0.125], "activation_beta": [0.25]}
    assert describe_functions(activations=names, **alphas) == expected
    # What is missing at the end has its default.
    defaults = (("HardSigmoid", 0.5, 0.5), "Tanh", ("LeakyRelu", pytest.approx(0.01)))
    assert describe_functions(activations=names, activation_alpha=[0.5]) == defaults
    twice = {"activations": names * 2, "activation_alpha": [0.5, 0.125] * 2}
    assert describe_functions(D=2, **twice, activation_beta=[0.25] * 2) == expected


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"activations": ["Tanh"]}, "activations: expected 3 functions, got 1"),
        ({"activations": ["Tanh", "Gelu", "Tanh"]}, "expected one of Affine, .* got 'Gelu'"),
        ({"activations": ["Tanh", "Tanh", "Affine"]}, "Affine without its alpha and beta"),
        ({"activation_alpha": [0.5]}, "activation_alpha: has more values than the functions"),
        ({"direction": "sideways"}, "direction: 'sideways' is none"),
        ({"linear_before_reset": 1}, "linear_before_reset: an attribute that no LSTM has"),
        ({"gates": 4}, "gates: an attribute that no LSTM has"),
    ],
)
def test_attributes_that_are_refused(attributes: dict[str, Any], message: str) -> None:
    model = make_model("LSTM", make_weights("LSTM", 1), **attributes)
    with pytest.raises(ValueError, match=message):
        fastlstm.from_onnx(model)


def test_functions_that_differ_between_directions() -> None:
    names = ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "Relu", "Tanh"]
    with pytest.raises(ValueError, match="activations: differ between directions"):
        describe_functions(D=2, activations=names)


@pytest.mark.parametrize("kind", GATES)
def test_defaults(kind: str) -> None:
    """A node without attributes, inputs and outputs that it may lack, and with all at defaults."""
    bare = make_model(kind, make_weights(kind, 1))
    (node,) = bare.graph.node
    del node.attribute[:], node.input[3:], node.output[1:], bare.graph.output[1:]
    more: dict[str, Any] = {"LSTM": {"input_forget": 0}, "GRU": {"linear_before_reset": 0}}
    more = {"layout": 0, "activations": [*reader.DEFAULTS[kind]], **more.get(kind, {})}
    weights = {n: w for n, w in make_weights(kind, 1).items() if n != "B"}
    full = make_model(kind, weights, direction="forward", **more)
    layers = [fastlstm.from_onnx(model) for model in (bare, full)]
    reset = {"reset_after": False} if kind == "GRU" else {}
    for layer in layers:
        assert repr(layer) == repr(getattr(fastlstm, kind)(I, H, bias=False, **reset))
    check_parity_of_params(bare, full)
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    expected = session(full).run(None, {"X": x})[0][:, 0]  # it does not run the bare one
    assert_close(layers[0](x)[0], expected, ONNX_RUNTIME, "Y")


def test_layout() -> None:
    model = make_model("LSTM", make_weights("LSTM", 1), layout=1)
    assert fastlstm.from_onnx(model).batch_first


# --- models -------------------------------------------------------------------------------------


def test_relu() -> None:
    model = make_model(
        "RNN", make_weights("RNN", 2), activations=["Relu"] * 2, direction="bidirectional"
    )
    assert reader.describe(model)[0].options["nonlinearity"] == "relu"


def test_files_and_constants_of_all_kinds(tmp_path: Path) -> None:
    weights = make_weights("LSTM", 1)
    model = make_model("LSTM", weights)
    expected = fastlstm.from_onnx(model).params
    onnx.save(model, tmp_path / "m.onnx")
    external = make_model("LSTM", weights)
    onnx.save(external, tmp_path / "e.onnx", save_as_external_data=True, size_threshold=0)
    nodes = make_model("LSTM", weights)
    while nodes.graph.initializer:
        tensor = nodes.graph.initializer.pop()
        nodes.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    for source in (tmp_path / "m.onnx", str(tmp_path / "m.onnx"), tmp_path / "e.onnx", nodes):
        params = fastlstm.from_onnx(source).params
        for name, value in expected.items():
            assert np.array_equal(params[name], value)


@pytest.mark.parametrize("size", [0, 100], ids=["missing", "cut"])
def test_external_data_that_is_not_there(size: int, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    model = make_model("LSTM", make_weights("LSTM", 1))
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=0)
    data = (tmp_path / "data").read_bytes()
    (tmp_path / "data").unlink()
    if size:
        (tmp_path / "data").write_bytes(data[:size])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        fastlstm.from_onnx(path)


def test_external_data_elsewhere_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "m.onnx"
    path.parent.mkdir()
    model = make_model("LSTM", make_weights("LSTM", 1))
    onnx.save(model, path, save_as_external_data=True, location="data", size_threshold=0)
    (path.parent / "data").rename(tmp_path / "data")
    for location in ("../data", str(tmp_path / "data")):
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            entry = next(e for e in tensor.external_data if e.key == "location")
            entry.value = location
        onnx.save(model, path)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            fastlstm.from_onnx(path)


@pytest.mark.filterwarnings("ignore")  # PyTorch's, on its own exporters
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("exporter", ["TorchScript", "dynamo"])
@pytest.mark.parametrize("kind", GATES)
def test_what_pytorch_exports(
    kind: str, exporter: str, two: bool, batch_first: bool, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    if exporter == "dynamo":
        pytest.importorskip("onnxscript")
        if kind == "RNN":
            pytest.skip("PyTorch unrolls it: such a model has no RNN node")
    torch.manual_seed(0)
    module = getattr(torch.nn, kind)(I, H, 2, bidirectional=two, batch_first=batch_first)
    path, x = tmp_path / "m.onnx", torch.zeros(B, T, I)
    torch.onnx.export(module, (x,), path, dynamo=exporter == "dynamo", verbose=False)
    nodes = list(reader.find_nodes(onnx.load(path)))
    assert len(nodes) == 2
    for k, node in enumerate(nodes):
        layer = fastlstm.from_onnx(path, node)
        for name, value in layer.params.items():
            expected = getattr(module, name.replace("_l0", f"_l{k}"))
            assert np.array_equal(value, expected.detach().numpy())
        assert getattr(layer, "reset_after", True)


def test_weights_behind_other_nodes() -> None:
    weights = make_weights("LSTM", 1)
    model = make_model("LSTM", {**weights, "W": weights["W"][0].T, "B": weights["B"][0, :20]})
    model.graph.initializer.append(numpy_helper.from_array(weights["B"][0, 20:], "B2"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axes"))
    model.graph.initializer[0].name = "W_t"
    model.graph.initializer[2].name = "B1"
    (node,) = model.graph.node
    before = [
        helper.make_node("Transpose", ["W_t"], ["W_2"], perm=[1, 0]),
        helper.make_node("Unsqueeze", ["W_2", "axes"], ["W"]),
        helper.make_node("Concat", ["B1", "B2"], ["B_1"], axis=0),
        helper.make_node("Unsqueeze", ["B_1", "axes"], ["B"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend([*before, node])
    check_parity_of_params(model, make_model("LSTM", weights))


def check_parity_of_params(actual: Any, expected: Any) -> None:
    ours, theirs = fastlstm.from_onnx(actual).params, fastlstm.from_onnx(expected).params
    for name, value in theirs.items():
        assert np.array_equal(ours[name], value)


# Where each gate of our i, f, g, o is among ONNX's i, o, f, c, and the other way round.
IFGO_OF_IOFG, IOFG_OF_IFGO = (0, 2, 3, 1), (0, 3, 1, 2)


def in_order(array: Any, order: tuple[int, ...]) -> Any:
    """An LSTM's gates, along the first axis, in another order."""
    gates = np.split(array, 4)
    return np.concatenate([gates[k] for k in order])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_types(dtype: str) -> None:
    weights = make_weights("LSTM", 1)
    kinds = {"float16": "FLOAT16", "bfloat16": "BFLOAT16", "float64": "DOUBLE"}
    np_dtype = helper.tensor_dtype_to_np_dtype(getattr(TensorProto, kinds[dtype]))
    typed = {name: value.astype(np_dtype) for name, value in weights.items()}
    layer = fastlstm.from_onnx(make_model("LSTM", typed))
    assert layer.dtype == ("float64" if dtype == "float64" else "float32")
    expected = in_order(typed["W"][0].astype(layer.dtype), IFGO_OF_IOFG)
    assert np.array_equal(layer.params["weight_ih_l0"], expected)


def test_gates_are_where_pytorch_has_them() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module = torch.nn.LSTM(I, H, bidirectional=True).eval()
    model = make_model("LSTM", make_weights("LSTM", 2), direction="bidirectional")
    for tensor, name in zip(
        model.graph.initializer, ("weight_ih", "weight_hh", "bias"), strict=True
    ):

        def gates(suffix: str, name: str = name) -> Any:
            names = [f"bias_ih{suffix}", f"bias_hh{suffix}"] if name == "bias" else [name + suffix]
            arrays = [getattr(module, n).detach().numpy() for n in names]
            return np.concatenate([in_order(a, IOFG_OF_IFGO) for a in arrays])

        value = np.stack([gates("_l0"), gates("_l0_reverse")])
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    layer = fastlstm.from_onnx(model)
    for name, value in module.named_parameters():
        assert np.array_equal(layer.params[name], value.detach().numpy())


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_quantised_weights(dtype: str, per_column: bool) -> None:
    rng = np.random.default_rng(0)
    low, high = (-127, 127) if dtype == "int8" else (0, 255)
    columns = 4 * H
    scales = (1, columns) if per_column else (1,)
    zeros = np.full(scales, 0 if dtype == "int8" else 128, dtype)
    weights = {
        "W": rng.integers(low, high, (1, I, columns)).astype(dtype),
        "R": rng.integers(low, high, (1, H, columns)).astype(dtype),
        "B": rng.normal(0, 0.3, (1, 2 * columns)).astype(np.float32),
    }
    for name in ("W", "R"):
        weights[f"{name}_scale"] = rng.uniform(0.002, 0.004, scales).astype(np.float32)
        weights[f"{name}_zero_point"] = zeros
    inputs = ["X", "W", "R", "B", "", "", "", "", "W_scale", "W_zero_point"]
    inputs += ["R_scale", "R_zero_point"]
    outputs = ["Y", "Y_h", "Y_c"]
    node = helper.make_node(
        "DynamicQuantizeLSTM", inputs, outputs, name="q", domain="com.microsoft", hidden_size=H
    )
    graph = helper.make_graph(
        [node],
        "model",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["time", "batch", I])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    layer = fastlstm.from_onnx(model)
    for name, param in (("W", "weight_ih_l0"), ("R", "weight_hh_l0")):
        exact = (weights[name][0].astype(float) - zeros.reshape(-1).astype(float)) * (
            weights[f"{name}_scale"].reshape(-1).astype(float)
        )
        expected = in_order(exact.T, IFGO_OF_IOFG)
        np.testing.assert_allclose(layer.params[param], expected, rtol=1e-6)
    x = rng.uniform(-1, 1, (T, B, I)).astype(np.float32)
    theirs = session(model).run(None, {"X": x})[0][:, 0]
    # ONNX Runtime rounds inputs and states to 8 bits, in every step.
    np.testing.assert_allclose(layer(x)[0], theirs, atol=0.02)


@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("weight_type", ["QInt8", "QUInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_what_onnx_runtime_quantised(
    per_channel: bool, weight_type: str, D: int, tmp_path: Path
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    weights = make_weights("LSTM", D)
    original = make_model("LSTM", weights, direction="bidirectional" if D == 2 else "forward")
    paths = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    onnx.save(original, paths[0])
    quantization.quantize_dynamic(
        *paths,
        op_types_to_quantize=["LSTM"],
        per_channel=per_channel,
        weight_type=quantization.QuantType[weight_type],
    )
    quantised = onnx.load(paths[1])
    assert [node.op_type for node in quantised.graph.node] == ["DynamicQuantizeLSTM"]
    layer, exact = fastlstm.from_onnx(paths[1]), fastlstm.from_onnx(original)
    for name, value in exact.params.items():
        if name.startswith("bias"):
            assert np.array_equal(layer.params[name], value)
            continue
        # Half a step of the 255 between the largest values, of a row or of all; a whole
        # one where the zero point was rounded, too.
        axis = 1 if per_channel else None
        step = 2 * np.abs(value).max(axis=axis, keepdims=True) / 254
        most = step if weight_type == "QUInt8" else 0.51 * step
        assert not np.array_equal(layer.params[name], value)
        assert (np.abs(layer.params[name] - value) <= most).all()
    x = np.random.default_rng(0).uniform(-1, 1, (T, B, I)).astype(np.float32)
    theirs = session(quantised).run(["Y"], {"X": x})[0]
    y = layer(x)[0].reshape(T, B, D, H).transpose(0, 2, 1, 3)
    # ONNX Runtime rounds inputs and states to 8 bits, in every step: 0.0023 measured.
    np.testing.assert_allclose(y, theirs, atol=0.005)


def test_constant_states_and_lengths() -> None:
    rng = np.random.default_rng(0)
    weights = make_weights("LSTM", 1)
    zero = {name: np.zeros((1, B, H), np.float32) for name in ("initial_h", "initial_c")}
    state = {name: rng.standard_normal((1, B, H)).astype(np.float32) for name in zero}
    lengths = np.array([3, 6, 1, 5], np.int32)
    fastlstm.from_onnx(make_model("LSTM", {**weights, **zero}))
    model = make_model("LSTM", {**weights, **state, "sequence_lens": lengths})
    with pytest.raises(ValueError, match="state, lengths: the model has it as a constant"):
        fastlstm.from_onnx(model)
    layer, call = fastlstm.from_onnx(model, constants=True)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    expected = session(model).run(None, {"X": x})
    output, (h_n, c_n) = layer(x, **call)
    assert_close(output, expected[0][:, 0], ONNX_RUNTIME, "Y")
    assert_close(h_n, expected[1], ONNX_RUNTIME, "Y_h")
    assert_close(c_n, expected[2], ONNX_RUNTIME, "Y_c")


# --- errors -------------------------------------------------------------------------------------


def two_nodes() -> Any:
    model = make_model("LSTM", make_weights("LSTM", 1))
    other = helper.make_node("LSTM", ["X", "W", "R"], ["Z"], hidden_size=H)
    model.graph.node.append(other)
    return model


def test_several_are_listed() -> None:
    with pytest.raises(ValueError, match="expected node= to be one of 'node', 'Z', got None"):
        fastlstm.from_onnx(two_nodes())
    with pytest.raises(ValueError, match="one of 'node', 'Z', got 'Y'"):
        fastlstm.from_onnx(two_nodes(), "Y")
    assert fastlstm.from_onnx(two_nodes(), "node").bias
    assert not fastlstm.from_onnx(two_nodes(), node="Z").bias


def test_what_is_not_there() -> None:
    with pytest.raises(TypeError, match="source: expected a model or a path, got int"):
        fastlstm.from_onnx(3)
    with pytest.raises(TypeError, match="node: expected text, got int"):
        fastlstm.from_onnx(two_nodes(), 3)
    with pytest.raises(ValueError, match="model: expected an LSTM, GRU or RNN, found none"):
        fastlstm.from_onnx(onnx.ModelProto())
    model = make_model("LSTM", make_weights("LSTM", 1))
    model.graph.node[0].input[1] = ""
    with pytest.raises(ValueError, match="W: the node has no such input"):
        fastlstm.from_onnx(model)
    model.graph.node[0].input[1] = "X"
    with pytest.raises(ValueError, match="W: expected a constant, got 'X', which"):
        fastlstm.from_onnx(model)


@pytest.mark.parametrize("name", ["W", "R", "B", "P"])
def test_wrong_shapes(name: str) -> None:
    weights = make_weights("LSTM", 1, peepholes=True)
    for wrong in (weights[name][:, :-1], weights[name][:, :, None], weights[name][[0, 0]]):
        with pytest.raises(ValueError, match=rf"{name}: expected \(|expected three axes"):
            fastlstm.from_onnx(make_model("LSTM", {**weights, name: wrong}))
    with pytest.raises(ValueError, match=f"{name}: expected floats, got int64"):
        fastlstm.from_onnx(make_model("LSTM", {**weights, name: weights[name].astype(int)}))


def test_sizes_that_the_data_does_not_have() -> None:
    for dims in ([1, 2**40, 2**20], [1, 20, 4], [1, 20, 2**62]):
        model = make_model("LSTM", make_weights("LSTM", 1))
        model.graph.initializer[0].dims[:] = dims
        with pytest.raises(ValueError, match="model: node: "):
            fastlstm.from_onnx(model)


def test_chains_of_nodes_that_grow_or_never_end() -> None:
    for first in ("W0", "c60"):
        model = make_model("LSTM", make_weights("LSTM", 1))
        model.graph.initializer[0].name = "W0"
        names = [first, *(f"c{k}" for k in range(1, 61))]
        for one, two in itertools.pairwise(names):
            model.graph.node.append(helper.make_node("Concat", [one, one], [two], axis=0))
        message = "made of itself" if first == "c60" else "more room than the model's size"
        for last in ("c40", "c60"):
            model.graph.node[0].input[1] = last
            with pytest.raises(ValueError, match=message):
                fastlstm.from_onnx(model)


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(make_model("LSTM", make_weights("LSTM", 1)), path)
    check_reader(fastlstm.from_onnx, path, path.read_bytes())
