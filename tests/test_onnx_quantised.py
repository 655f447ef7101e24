"""Quantized layers and ONNX: numbers and scales that stay as they are, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from fastlstm.interchange.onnx_export import make_model  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402
from onnx_models import GATES, B, H, I, T, model, node, recurrent, run, weights  # noqa: E402

# Our rows by the gates of ONNX.
ORDER = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}


def ours(kind: str, rows: Any) -> Any:
    gates = np.split(rows, GATES[kind])
    return np.concatenate([gates[k] for k in ORDER[kind]])


def qdq(
    kind: str, D: int, form: str, dtype: str = "int8", zero: int | None = None
) -> tuple[Any, dict[str, Any]]:
    """A model whose W and R DequantizeLinear makes, and their numbers and scales (D, rows)."""
    rng, floats, nodes = np.random.default_rng(0), weights(kind, D), []
    tensors, parts = {"B": floats["B"]}, {}
    for name in ("W", "R"):
        shape, middle = floats[name].shape, 0 if zero is None else zero
        numbers = rng.integers(middle - 100, middle + 100, shape).astype(dtype)
        scale = rng.uniform(0.002, 0.004, shape[:2]).astype(np.float32)
        attributes: dict[str, Any] = {}
        if form == "one scale":
            scale[:] = scale[0, 0]
            stored, stored_scale = numbers, scale[0, 0]
        elif form == "by rows":  # the same in both directions
            scale[:] = scale[0]
            stored, stored_scale, attributes = numbers, scale[0], {"axis": 1}
        else:
            stored, stored_scale = numbers.reshape(-1, shape[2]), scale.reshape(-1)
            attributes = {"axis": 0}
        inputs = [f"{name}_numbers", f"{name}_scale"]
        tensors |= {inputs[0]: stored, inputs[1]: stored_scale}
        if zero is not None:
            inputs.append(f"{name}_zero")
            tensors[inputs[2]] = np.full(np.shape(stored_scale), zero, dtype)
        if form == "reshaped":
            tensors[f"{name}_shape"] = np.array(shape, np.int64)
            nodes.append(node("DequantizeLinear", inputs, [f"{name}_rows"], **attributes))
            nodes.append(node("Reshape", [f"{name}_rows", f"{name}_shape"], [name]))
        else:
            nodes.append(node("DequantizeLinear", inputs, [name], **attributes))
        parts[name] = (numbers.astype(int) - middle, scale)
    more = {"linear_before_reset": 1} if kind == "GRU" else {}
    direction = "bidirectional" if D == 2 else "forward"
    nodes.append(recurrent(kind=kind, direction=direction, **more))
    return model(nodes, tensors), parts


@pytest.mark.parametrize("form", ["one scale", "by rows", "reshaped"])
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("kind", GATES)
def test_dequantised_weights_are_kept(kind: str, D: int, form: str) -> None:
    source, parts = qdq(kind, D, form)
    small, exact = fastlstm.from_onnx(source, quantized=True), fastlstm.from_onnx(source)
    assert small.quantization == ("int8", "float32")
    assert exact.quantization is None
    for name, param in (("W", "weight_ih"), ("R", "weight_hh")):
        numbers, scale = parts[name]
        for d, end in enumerate(("_l0", "_l0_reverse")[:D]):
            assert np.array_equal(small.stored[param + end], ours(kind, numbers[d]))
            assert np.array_equal(small.stored[f"{param}{end}_scale"], ours(kind, scale[d]))
    assert all(np.array_equal(value, small.params[name]) for name, value in exact.params.items())
    x = np.random.default_rng(1).standard_normal((T, B, I)).astype(np.float32)
    theirs = run(source, X=x).transpose(0, 2, 1, 3).reshape(T, B, D * H)
    np.testing.assert_allclose(small(x)[0], theirs, atol=2e-6)
    activations = fastlstm.from_onnx(source, quantized=True, activations="int8")
    assert activations.quantization == ("int8", "int8")


def test_zero_points_that_fit() -> None:
    source, parts = qdq("LSTM", 1, "by rows", "uint8", 128)
    small = fastlstm.from_onnx(source, quantized=True)
    assert np.array_equal(small.stored["weight_hh_l0"], ours("LSTM", parts["R"][0][0]))
    source, _ = qdq("LSTM", 1, "one scale", "uint8", 100)
    wide = next(t for t in source.graph.initializer if t.name == "R_numbers")
    values = numpy_helper.to_array(wide).copy()
    values[0, 0, 0] = 255
    wide.CopyFrom(numpy_helper.from_array(values, wide.name))
    with pytest.raises(ValueError, match=r"rnn: R: less their zero points, .* to 155: expected"):
        fastlstm.from_onnx(source, quantized=True)
    assert fastlstm.from_onnx(source).quantization is None


def of_runtime(D: int, dtype: str, per_column: bool, zero: int = 0) -> tuple[Any, dict[str, Any]]:
    rng, columns = np.random.default_rng(0), 4 * H
    scales = (D, columns) if per_column else (D,)
    stored = {
        "W": (rng.integers(-90, 90, (D, I, columns)) + zero).astype(dtype),
        "R": (rng.integers(-90, 90, (D, H, columns)) + zero).astype(dtype),
        "B": rng.normal(0, 0.3, (D, 2 * columns)).astype(np.float32),
    }
    for name in ("W", "R"):
        stored[f"{name}_scale"] = rng.uniform(0.002, 0.004, scales).astype(np.float32)
        stored[f"{name}_zero"] = np.full(scales, zero, dtype)
    inputs = ["X", "W", "R", "B", "", "", "", "", "W_scale", "W_zero", "R_scale", "R_zero"]
    direction = "bidirectional" if D == 2 else "forward"
    quantised = node(
        *("DynamicQuantizeLSTM", inputs, ["Y"]),
        domain="com.microsoft",
        hidden_size=H,
        direction=direction,
        name="rnn",
    )
    return model([quantised], stored), stored


@pytest.mark.parametrize("per_column", [False, True])
@pytest.mark.parametrize(("dtype", "zero"), [("int8", 0), ("int8", 7), ("uint8", 128)])
@pytest.mark.parametrize("D", [1, 2])
def test_dynamic_quantize_lstm_is_kept(D: int, dtype: str, zero: int, per_column: bool) -> None:
    source, stored = of_runtime(D, dtype, per_column, zero)
    small = fastlstm.from_onnx(source, quantized=True)
    for name, param in (("W", "weight_ih"), ("R", "weight_hh")):
        for d, end in enumerate(("_l0", "_l0_reverse")[:D]):
            numbers = stored[name][d].T.astype(int) - zero
            assert np.array_equal(small.stored[param + end], ours("LSTM", numbers))
            scale = np.broadcast_to(stored[f"{name}_scale"][d], 4 * H)
            assert np.array_equal(small.stored[f"{param}{end}_scale"], ours("LSTM", scale))
    if per_column and zero == 7:
        return  # ONNX Runtime refuses to run it
    x = np.random.default_rng(1).uniform(-1, 1, (T, B, I)).astype(np.float32)
    theirs = run(source, X=x).transpose(0, 2, 1, 3).reshape(T, B, D * H)
    for activations in ("float32", "int8"):
        layer = fastlstm.from_onnx(source, quantized=True, activations=activations)
        np.testing.assert_allclose(layer(x)[0], theirs, atol=0.01)


def test_what_cannot_be_kept() -> None:
    plain = model([recurrent()], weights())
    refused = "W: expected what DequantizeLinear makes of whole numbers of 8 bits"
    with pytest.raises(ValueError, match=refused):
        fastlstm.from_onnx(plain, quantized=True)
    source, _ = qdq("LSTM", 1, "one scale")
    doubled = helper.make_node("Add", ["W_once", "W_once"], ["W"])
    source.graph.node[0].output[0] = "W_once"
    source.graph.node.insert(1, doubled)
    with pytest.raises(ValueError, match=refused):
        fastlstm.from_onnx(source, quantized=True)
    columns, _ = qdq("LSTM", 1, "by rows")
    columns.graph.node[0].attribute[0].i = 2
    scale = next(t for t in columns.graph.initializer if t.name == "W_scale")
    by_columns = np.linspace(0.01, 0.02, I).astype(np.float32)
    scale.CopyFrom(numpy_helper.from_array(by_columns, scale.name))
    with pytest.raises(ValueError, match="W: expected one scale and zero point for each row"):
        fastlstm.from_onnx(columns, quantized=True)
    large, _ = qdq("LSTM", 1, "one scale", "int16")
    large.opset_import[0].version = 21
    with pytest.raises(ValueError, match=r"W: .*expected whole numbers of 8 bits, got int16"):
        fastlstm.from_onnx(large, quantized=True)
    with pytest.raises(ValueError, match="activations: expected None, as the weights are not"):
        fastlstm.from_onnx(source, activations="int8")
    with pytest.raises(TypeError, match="quantized: expected True or False"):
        fastlstm.from_onnx(source, quantized="yes")


# --- from layers ----------------------------------------------------------------------------------

LAYERS: dict[str, Any] = {
    "LSTM": lambda: fastlstm.LSTM(I, H, 2, bidirectional=True, seed=0),
    "LSTM, options": lambda: fastlstm.LSTM(I, H, peepholes=True, batch_first=True, seed=0),
    "GRU": lambda: fastlstm.GRU(I, H, 2, reverse=True, seed=0),
    "GRU, before": lambda: fastlstm.GRU(I, H, reset_after=False, bias=False, seed=0),
    "RNN": lambda: fastlstm.RNN(I, H, bidirectional=True, merge="sum", seed=0),
}


@pytest.mark.parametrize("weights", ["int8", "bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_small_layers_as_models(name: str, weights: str, tmp_path: Path) -> None:
    exact = LAYERS[name]()
    exact.update({n: 3 * value for n, value in exact.params.items()})
    small = exact.quantize(weights)
    fastlstm.to_onnx(small, tmp_path / "m.onnx", lengths=False, states=False)
    source = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(source)
    maker = {"int8": "DequantizeLinear", "bfloat16": "Cast"}[weights]
    assert sum(n.op_type == maker for n in source.graph.node) == 2 * small.num_layers
    elements = {t.name: t.data_type for t in source.graph.initializer}
    assert not {"W_0", "R_0"} & {*elements}
    x = np.random.default_rng(0).standard_normal((B, T, I) if small.batch_first else (T, B, I))
    x = x.astype(np.float32)
    np.testing.assert_allclose(run(source, x=x), small(x)[0], atol=2e-6)
    back = fastlstm.from_onnx(source, "layer_0", quantized=weights == "int8")
    for key, value in back.stored.items():
        if weights == "int8":
            assert np.array_equal(value, small.stored[key])
        else:
            assert np.array_equal(value, small.params[key])
    if weights == "bfloat16":  # of which rounding makes the same numbers again
        again = back.quantize("bfloat16")
        assert np.array_equal(again.stored["weight_hh_l0"], small.stored["weight_hh_l0"])


def test_a_model_of_small_weights_is_small() -> None:
    exact = fastlstm.LSTM(64, 128)
    sizes = [make_model(layer).ByteSize() for layer in (exact, exact.quantize("bfloat16"))]
    sizes.append(make_model(exact.quantize("int8")).ByteSize())
    assert sizes[1] < 0.55 * sizes[0]
    assert sizes[2] < 0.3 * sizes[0]


@pytest.mark.parametrize("activations", ["bfloat16", "int8"])
def test_activations_that_onnx_does_not_round(activations: str) -> None:
    small = fastlstm.GRU(3, 5).quantize(activations, activations)
    with pytest.raises(ValueError, match=f"activations='{activations}': ONNX's GRU rounds nothing"):
        make_model(small)


def test_verify_a_quantized_layer() -> None:
    source, _ = qdq("GRU", 1, "by rows")
    report = fastlstm.verify(fastlstm.from_onnx(source, quantized=True), source)
    assert report.ok, str(report)
