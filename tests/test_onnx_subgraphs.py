"""Recurrent nodes inside of other nodes: branches, bodies, functions of the model."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.interchange.onnx_import import find_nodes

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import helper  # noqa: E402
from onnx_models import (  # noqa: E402
    B,
    H,
    I,
    graph,
    info,
    model,
    node,
    recurrent,
    run,
    weights,
    x_of,
)
from tolerances import ONNX_RUNTIME, assert_close  # noqa: E402

W, OTHER = weights(), {f"{name}2": value for name, value in weights(seed=1).items()}
X = x_of()
SECOND = ("X", "W2", "R2", "B2")


def assert_gives(layer: Any, tensors: dict[str, Any], x: Any = X) -> None:
    """A layer is the LSTM with these weights."""
    names = [name for name in tensors if name[0] in "WRB"]
    plain = model([recurrent("X", *names)], tensors)
    assert_close(layer(x)[0], run(plain, X=x)[:, 0], ONNX_RUNTIME, "Y")


def both_branches(**more: Any) -> Any:
    then = graph([recurrent(name="first")], "Y_first")
    other = graph([recurrent(*SECOND, name="second")], "Y_second", OTHER)
    branches = node("If", ["c"], ["Y"], then_branch=then, else_branch=other, **more)
    inputs = [info("X", shape=["t", "b", I]), info("c", "BOOL", [])]
    return model([branches], W, inputs=inputs)


def test_branches() -> None:
    """Weights are the branch's own, or those of the graph around it."""
    source = both_branches(name="which")
    assert [*find_nodes(source)] == ["which/else_branch/second", "which/then_branch/first"]
    for name, tensors, holds in (("first", W, True), ("second", OTHER, False)):
        for path in (name, f"which/{'then' if holds else 'else'}_branch/{name}"):
            layer = fastlstm.from_onnx(source, path)
            assert_gives(layer, tensors)
        assert_close(layer(X)[0], run(source, X=X, c=np.array(holds))[:, 0], ONNX_RUNTIME, "Y")
    unnamed = both_branches()
    with pytest.raises(ValueError, match="one of 'Y/else_branch/second', 'Y/then_branch/first'"):
        fastlstm.from_onnx(unnamed)


def test_a_name_that_several_have_is_not_taken_for_one() -> None:
    branches = [graph([recurrent(name="same")], "Y_same") for _ in range(2)]
    both = node("If", ["c"], ["Y"], name="f", then_branch=branches[0], else_branch=branches[1])
    inputs = [info("X", shape=["t", "b", I]), info("c", "BOOL", [])]
    source = model([both], W, inputs=inputs)
    with pytest.raises(ValueError, match="one of 'f/else_branch/same', 'f/then_branch/same', got"):
        fastlstm.from_onnx(source, "same")
    assert_gives(fastlstm.from_onnx(source, "f/else_branch/same"), W)
    twice = model([recurrent(), recurrent(*SECOND), recurrent(name="rnn#2")], {**W, **OTHER})
    assert [*find_nodes(twice)] == ["rnn", "rnn#2", "rnn#2#2"]


def test_weights_are_made_in_any_graph_around() -> None:
    transposed = {"W_t": W["W"].swapaxes(1, 2), "R": W["R"]}
    inner = graph(
        [node("Identity", ["B_out"], ["B"]), recurrent(name="deep")], "Y_deep", {"unused": X}
    )
    middle = graph(
        [
            node("Transpose", ["W_t"], ["W"], perm=[0, 2, 1]),
            node("If", ["c"], ["Y_mid"], name="in", then_branch=inner, else_branch=inner),
        ],
        "Y_mid",
        {"B_out": W["B"]},
    )
    outer = node("If", ["c"], ["Y"], name="out", then_branch=middle, else_branch=middle)
    inputs = [info("X", shape=["t", "b", I]), info("c", "BOOL", [])]
    source = model([outer], transposed, inputs=inputs)
    path = "out/else_branch/in/then_branch/deep"
    assert path in find_nodes(source)
    assert_gives(fastlstm.from_onnx(source, path), W)


def loop(nodes: list[Any], output: str) -> Any:
    body = helper.make_graph(
        [*nodes, node("Identity", ["go"], ["go_on"])],
        "body",
        [info("i", "INT64", []), info("go", "BOOL", []), info("carried")],
        [info("go_on", "BOOL", []), info(output)],
    )
    return node("Loop", ["n", "", "X"], ["Y"], name="loop", body=body)


def test_the_body_of_a_loop() -> None:
    shrink = {"P": np.ones((H, I), np.float32)}
    nodes = [
        recurrent("carried", "W", "R", "B", name="step"),
        node("Squeeze", ["Y_step", "one"], ["flat"]),
        node("MatMul", ["flat", "P"], ["next"]),
    ]
    tensors = {**W, **shrink, "n": np.int64(2), "one": np.array([1])}
    source = model([loop(nodes, "next")], tensors)
    layer = fastlstm.from_onnx(source, "loop/body/step")
    x = X
    for _ in range(2):
        x = layer(x)[0] @ shrink["P"]
    np.testing.assert_allclose(x, run(source, X=X), rtol=1e-4, atol=1e-5)
    # What the loop carries is no constant, even where it begins as one.
    nodes[0].input[1] = "carried"
    with pytest.raises(ValueError, match="W: expected a constant, got 'carried', which the model"):
        fastlstm.from_onnx(model([loop(nodes, "next")], tensors))


def test_the_bodies_of_scan_and_sequence_map() -> None:
    body = helper.make_graph(
        [recurrent("x_in", "W", "R", "B", name="one")],
        "body",
        [info("x_in", shape=["t", "b", I])],
        [info("Y_one")],
    )
    scan = node("Scan", ["many"], ["Y"], name="scan", body=body, num_scan_inputs=1)
    source = model([scan], W, inputs=[info("many", shape=["k", "t", "b", I])])
    layer = fastlstm.from_onnx(source, "scan/body/one")
    assert_close(layer(X)[0], run(source, many=X[None])[0, :, 0], ONNX_RUNTIME, "Y")
    mapped = node("SequenceMap", ["s"], ["Y"], name="map", body=body)
    source = model([node("SequenceConstruct", ["X"], ["s"]), mapped], W)
    assert_gives(fastlstm.from_onnx(source, "map/body/one"), W)


@pytest.mark.parametrize("sparse", [False, True])
def test_an_initializer_does_not_stand_for_the_input_of_a_body(sparse: bool) -> None:
    """Each run is given all inputs of a body: ONNX's reference takes those."""
    carried = node("Neg", ["W"], ["next"])
    made = loop([carried, recurrent("X", "W", "R", "B", name="step")], "next")
    made.input[2] = "W_0"
    body = next(a.g for a in made.attribute if a.name == "body")
    body.input[2].name = "W"
    stored = onnx.numpy_helper.from_array(OTHER["W2"].reshape(-1) if sparse else OTHER["W2"], "W")
    if sparse:
        places = onnx.numpy_helper.from_array(np.arange(W["W"].size), "places")
        body.sparse_initializer.append(helper.make_sparse_tensor(stored, places, W["W"].shape))
    else:
        body.initializer.append(stored)
    tensors = {"W_0": W["W"], "R": W["R"], "B": W["B"], "n": np.int64(2)}
    with pytest.raises(ValueError, match="W: expected a constant, got 'W', which the model comput"):
        fastlstm.from_onnx(model([made], tensors))


def test_names_that_nothing_makes() -> None:
    """A state or bias that is nowhere is not one that was left out, or for the caller to give."""
    cases = {"B": ("X", "W", "R", "b"), "sequence_lens": ("X", "W", "R", "", "n_x")}
    cases["initial_h"] = ("X", "W", "R", "B", "", "h_0")
    cases["initial_c"] = ("X", "W", "R", "B", "", "", "c_0")
    for what, names in cases.items():
        message = f"{what}: nothing in the model makes '{names[-1]}'"
        with pytest.raises(ValueError, match=message):
            fastlstm.from_onnx(model([recurrent(*names)], W), constants=True)
        body = loop([recurrent(*names, name="step")], "Y_step")
        with pytest.raises(ValueError, match=message):
            fastlstm.from_onnx(model([body], {**W, "n": np.int64(1)}), constants=True)
        inner = function([recurrent(*names, name="inner")], ["X", "W", "R", "B"])
        # Those of the caller's are unknown in a function.
        outside = {**W, names[-1]: np.ones((1, B, H), np.float32)}
        with pytest.raises(ValueError, match=message):
            fastlstm.from_onnx(
                model([call("X", "W", "R", "B", name="f")], outside, functions=[inner])
            )


# --- functions ------------------------------------------------------------------------------------


def function(nodes: list[Any], inputs: list[str], name: str = "Wrapped", **more: Any) -> Any:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my", 1)]
    return helper.make_function("my", name, inputs, ["Y"], nodes, opsets, **more)


def call(*inputs: str, name: str, output: str = "Y", kind: str = "Wrapped", **more: Any) -> Any:
    return node(kind, list(inputs), [output], name=name, domain="my", **more)


def test_a_function_that_is_called_twice() -> None:
    inner = function([recurrent("x", "w", "r", "b", name="inner")], ["x", "w", "r", "b"])
    inner.node[0].output[0] = "Y"
    calls = [call("X", "W", "R", "B", name="a"), call(*SECOND, name="b", output="Z")]
    source = model(calls, {**W, **OTHER}, functions=[inner])
    assert [*find_nodes(source)] == ["a/inner", "b/inner"]
    assert_gives(fastlstm.from_onnx(source, "a/inner"), W)
    assert_gives(fastlstm.from_onnx(source, "b/inner"), OTHER)
    with pytest.raises(ValueError, match="one of 'a/inner', 'b/inner', got 'inner'"):
        fastlstm.from_onnx(source, "inner")
    # Left out by one caller, as an optional input.
    calls = [call("X", "W", "R", name="a"), call(*SECOND, name="b", output="Z")]
    source = model(calls, {**W, **OTHER}, functions=[inner])
    assert not fastlstm.from_onnx(source, "a/inner").bias
    assert fastlstm.from_onnx(source, "b/inner").bias


def test_attributes_of_a_function() -> None:
    lstm = node("LSTM", ["x", "W", "R", "B"], ["Y"], name="inner")
    for name, given in (("hidden_size", "size"), ("clip", "bound"), ("direction", "way")):
        attribute = lstm.attribute.add()
        attribute.name, attribute.ref_attr_name = name, given
        attribute.type = {"size": 2, "bound": 1, "way": 3}[given]
    shift = node("Constant", [], ["W"])
    attribute = shift.attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "value", "weight", 4
    inner = function(
        [shift, lstm],
        ["x", "R", "B"],
        attributes=["size", "weight", "bound"],
        attribute_protos=[helper.make_attribute("way", "reverse")],
    )
    outer = function([call("x", "R", "B", name="in")], ["x", "R", "B"], name="Outer")
    for name, kind in (("size", 2), ("weight", 4)):  # handed on
        attribute = outer.node[0].attribute.add()
        attribute.name, attribute.ref_attr_name, attribute.type = name, name, kind
    outer.attribute.extend(["size", "weight"])
    made = onnx.numpy_helper.from_array(W["W"])
    outside = call("X", "R", "B", name="out", kind="Outer", size=H, weight=made)
    source = model([outside], {"R": W["R"], "B": W["B"]}, functions=[inner, outer])
    layer = fastlstm.from_onnx(source)
    assert [*find_nodes(source)] == ["out/in/inner"]
    assert layer.reverse
    assert layer.clip is None  # nobody gives it
    assert_close(layer(X)[0], run(source, X=X)[:, 0], ONNX_RUNTIME, "Y")


def test_weights_that_functions_and_branches_make() -> None:
    scaled = function([node("Mul", ["w", "s"], ["Y"])], ["w", "s"])
    half = graph([node("Mul", ["R", "half"], ["r"])], "r")
    source = model(
        [
            call("W", "half", name="scaled", output="Wh"),
            node("If", ["always"], ["Rh"], then_branch=half, else_branch=half),
            recurrent("X", "Wh", "Rh", "B"),
        ],
        {**W, "half": np.float32(0.5), "always": np.array(True)},
        functions=[scaled],
    )
    layer = fastlstm.from_onnx(source)
    assert_close(layer(X)[0], run(source, X=X)[:, 0], ONNX_RUNTIME, "Y")


def test_a_function_in_the_place_of_an_operator() -> None:
    """A model's function goes before the operator of its name."""
    mine = function([node("Neg", ["x"], ["Y"])], ["x"], name="LSTM")
    source = model([call("X", "W", "R", name="mine", kind="LSTM")], W, functions=[mine])
    with pytest.raises(ValueError, match="found none among its nodes: 1 LSTM, 1 Neg"):
        fastlstm.from_onnx(source)


def test_states_inside_of_a_function() -> None:
    h_0 = np.random.default_rng(2).uniform(-1, 1, (1, 1, H)).astype(np.float32)
    nodes = [
        node("Shape", ["x"], ["b"], start=1, end=2),
        node("Concat", ["one", "b", "one"], ["many"], axis=0),
        node("Tile", ["h_0", "many"], ["h"]),
        node("GRU", ["x", "W", "R", "B", "", "h"], ["Y"], name="inner", hidden_size=H),
    ]
    names = ["x", "W", "R", "B", "one", "h_0"]
    tensors = {**weights("GRU"), "one": np.array([1]), "h_0": h_0}
    source = model([call("X", *tensors, name="f")], tensors, functions=[function(nodes, names)])
    layer, constants = fastlstm.from_onnx(source, constants=True)
    assert np.array_equal(constants["state"], h_0)
    state = np.broadcast_to(h_0, (1, X.shape[1], H))
    assert_close(layer(X, state)[0], run(source, X=X)[:, 0], ONNX_RUNTIME, "Y")


# --- hostile ones ---------------------------------------------------------------------------------


def test_functions_that_call_each_other_without_end() -> None:
    names = ["x", "W", "R", "B"]
    again = function([recurrent("x", "W", "R", "B"), call(*names, name="me", output="o")], names)
    source = model([call("X", "W", "R", "B", name="f")], W, functions=[again])
    with pytest.raises(ValueError, match="f/me: a function that calls itself"):
        fastlstm.from_onnx(source)
    # The same where a weight is made by them.
    endless = function([call("w", name="me", output="Y")], ["w"])
    source = model([call("W", name="f", output="W0"), recurrent("X", "W0", "R")], W)
    source.functions.append(endless)
    with pytest.raises(ValueError, match="called too often"):
        fastlstm.from_onnx(source)


def test_functions_that_multiply() -> None:
    def twice(k: int) -> Any:
        inner = f"F{k - 1}"
        nodes = [call("x", name=n, output=o, kind=inner) for n, o in (("a", "Z"), ("b", "Y"))]
        return function(nodes, ["x"], name=f"F{k}")

    lstm = node("Constant", [], ["W"], value_floats=[0.0])
    first = function([lstm, recurrent("x", "W", "W")], ["x"], name="F0")
    functions = [first, *(twice(k) for k in range(1, 41))]
    source = model([call("X", name="f", kind="F40")], functions=functions)
    with pytest.raises(ValueError, match=r"too often|too many"):
        fastlstm.from_onnx(source)


def test_deep_graphs_and_long_names() -> None:
    inner = graph([recurrent(name="deep")], "Y_deep")
    for k in range(30):  # about as deep as protobuf reads
        branches = {"then_branch": inner, "else_branch": graph([], "Y")}
        inner = graph([node("If", ["c"], [f"o{k}"], name="n" * 10, **branches)], f"o{k}")
    source = model(inner.node, W, inputs=[info("X"), info("c", "BOOL", [])])
    assert_gives(fastlstm.from_onnx(source, "deep"), W)
    many = graph([recurrent(name="same") for _ in range(10_000)], "Y_same")
    source = model([node("If", ["c"], ["Y"], name="n" * 10_000, then_branch=many)], W)
    with pytest.raises(ValueError, match="too long names"):
        fastlstm.from_onnx(source)


def test_verify_takes_nodes_out_of_branches_and_functions() -> None:
    source = both_branches(name="which")
    report = fastlstm.verify(fastlstm.from_onnx(source, "second"), source, "second")
    assert report.ok
    assert report.not_looked_at == ("the model around the node, which is inside another node",)
    names = ["x", "W", "R", "B"]
    nodes = [node("Neg", ["W"], ["V"]), recurrent("x", "V", "R", "B", name="inner")]
    nodes[1].output[0] = "Y"
    source = model([call("X", "W", "R", "B", name="f")], W, functions=[function(nodes, names)])
    report = fastlstm.verify(fastlstm.from_onnx(source), source)
    assert report.ok
