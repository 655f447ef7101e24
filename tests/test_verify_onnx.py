"""Verification of ONNX models where they stand: what runs is the file, not only the node."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.interchange import onnx_import as reader

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")  # of the same extra
from onnx import TensorProto  # noqa: E402
from onnx_models import B, H, I, info, model, node, recurrent, weights  # noqa: E402

RNG = np.random.default_rng(0)
H_0 = RNG.uniform(-1, 1, (1, 1, H)).astype(np.float32)


def whole(*, state: bool = True, lengths: bool = True, kind: str = "GRU", **more: Any) -> Any:
    """Words, batch first, by an embedding to a GRU with a state of its own; lengths are inputs."""
    tensors = {**weights(kind), "table": RNG.standard_normal((9, I)).astype(np.float32)}
    tensors |= {"h_0": H_0, "one": np.array([1]), "first": np.array([0])}
    nodes = [
        node("Gather", ["table", "words"], ["vectors"]),
        node("Transpose", ["vectors"], ["x"], perm=[1, 0, 2]),
        node("Shape", ["words"], ["b"], start=0, end=1),
        node("Concat", ["one", "b", "one"], ["many"], axis=0),
        node("Tile", ["h_0", "many"], ["h"]),
        recurrent(
            *("x", "W", "R", "B", "n" if lengths else "", "h" if state else ""), kind=kind, **more
        ),
        node("Squeeze", ["Y", "one"], ["flat"]),
    ]
    inputs = [info("words", "INT64", ["b", "t"])]
    if lengths:
        inputs.append(info("n", "INT32", ["b"]))
    return model(nodes, tensors, inputs=inputs, output="flat")


def names_of(report: Any) -> list[str]:
    return [check.name for check in report.checks]


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("state", [False, True])
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_model_as_it_stands(kind: str, state: bool, lengths: bool, tmp_path: Path) -> None:
    source, path = whole(state=state, lengths=lengths, kind=kind), tmp_path / "m.onnx"
    layer, _ = fastlstm.from_onnx(source, constants=True)
    stored = copy.deepcopy(source)
    onnx.save(stored, path, save_as_external_data=True, location="data", size_threshold=0)
    for model_or_path in (source, path):
        report = fastlstm.verify(layer, model_or_path)
        assert report.ok, report
        assert names_of(report)[-1] == "the model"
        assert report.not_looked_at == ()


def test_a_state_that_the_reader_drops_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layer alone is the same: only the model as it stands shows it."""
    source = whole()
    layer, _ = fastlstm.from_onnx(source, constants=True)
    read = reader.NodeReader.read
    monkeypatch.setattr(reader.NodeReader, "read", lambda self: (read(self)[0], {}))
    report = fastlstm.verify(layer, source)
    assert [check.name for check in report.checks if not check.ok] == ["the model"]
    assert not report.ok
    assert "They differ. First with inputs 'the model'" in str(report)


def test_what_the_model_computes_is_taken_from_the_run() -> None:
    inputs = [info("X", shape=["t", "b", I]), info("h0", shape=[1, "b", H])]
    nodes = [node("Neg", ["h0"], ["h"]), recurrent("X", "W", "R", "B", "", "h", kind="GRU")]
    source = model(nodes, weights("GRU"), inputs=inputs)
    with pytest.warns(UserWarning, match="initial_h: the model computes it"):
        layer = fastlstm.from_onnx(source)
    report = fastlstm.verify(layer, source)
    assert report.ok, report
    assert names_of(report)[-1] == "the model"


def test_sizes_that_must_be_the_same() -> None:
    inputs = [info("X", shape=["t", "b", I]), info("h0", shape=[1, "other", H])]
    source = model(
        [recurrent("X", "W", "R", "B", "", "h0", kind="GRU")], weights("GRU"), inputs=inputs
    )
    report = fastlstm.verify(fastlstm.from_onnx(source), source)
    assert names_of(report)[-1] == "the model"


def test_a_model_that_cannot_be_run() -> None:
    nodes = [node("Mine", ["X"], ["x"], domain="my"), recurrent("x", "W", "R", "B")]
    source = model(nodes, weights())
    report = fastlstm.verify(fastlstm.from_onnx(source), source)
    assert report.ok
    (line,) = report.not_looked_at
    assert line.startswith("the model around the node, which cannot be run: ")
    assert "\nNot looked at: the model around the node, which cannot be run: " in str(report)
    assert "the model" not in names_of(report)


def test_a_given_batch() -> None:
    source = model([recurrent()], weights(), inputs=[info("X", "FLOAT", [2, B, I])])
    assert source.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    report = fastlstm.verify(fastlstm.from_onnx(source), source)
    assert (report.checks[-1].T, report.checks[-1].B) == (2, B)
