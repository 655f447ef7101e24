"""Estimators as ONNX models: the layer's own, with nodes before and after it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray
from fastlstm._extras import needs_extra
from fastlstm.interchange.onnx_export import make_model

from ._network import Network


@needs_extra("to_onnx", "onnx")
def onnx_model(
    network: Network,
    *,
    mean: FloatArray | None,
    scale: FloatArray | None,
    result: str,
    y_mean: FloatArray | None = None,
    y_scale: FloatArray | None = None,
    notes: Mapping[str, Any],
) -> Any:
    """Return the ModelProto of a network.

    Parameters
    ----------
    mean, scale : ndarray or None
        (F,): what numbers are scaled by.
    result : "probabilities" or "prediction"
        A softmax of the scores, or the scores themselves.
    y_mean, y_scale : ndarray, optional
        What predictions are scaled by.
    notes : mapping
        For the model's metadata, as JSON.

    Raises
    ------
    ValueError
        ONNX cannot represent it.
    """
    if "crf" in network.parts:
        raise ValueError("crf: ONNX has no node that decides the labels of a sequence together")
    return _Writer(network).model(mean, scale, result, y_mean, y_scale, notes)


class _Writer:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.dtype: Any = network.layer.dtype
        self.whole = make_model(network.layer, lengths=True, states=False)
        self.constants: dict[str, npt.NDArray[Any]] = {}
        self.nodes: list[Any] = []

    def model(
        self,
        mean: FloatArray | None,
        scale: FloatArray | None,
        result: str,
        y_mean: FloatArray | None,
        y_scale: FloatArray | None,
        notes: Mapping[str, Any],
    ) -> Any:
        from onnx import TensorProto, helper, numpy_helper

        network, graph = self.network, self.whole.graph
        element = TensorProto.DOUBLE if self.dtype == np.float64 else TensorProto.FLOAT
        lengths = graph.input[1]
        shape: tuple[Any, ...]
        if "words" in network.parts:
            shape, kind = ("batch", "time"), TensorProto.INT64
            vectors = self._constant("words", network.words.params["weight"])
            by_sequence = self._add("Gather", [vectors, "X"], "vectors")
        else:
            shape, kind = ("batch", "time", network.layer.input_size), element
            by_sequence = "X"
            if mean is not None and scale is not None:
                centred = self._add("Sub", ["X", self._float("mean", mean)], "centred")
                by_sequence = self._add("Div", [centred, self._float("scale", scale)], "scaled")
        self._add("Transpose", [by_sequence], "x", perm=(1, 0, 2))
        before, self.nodes = self.nodes, []

        pooled = "pool" in network.parts
        scores = self._scores(self._pooled(network.pool.how) if pooled else "output")
        if y_mean is not None and y_scale is not None:
            scores = self._add("Mul", [scores, self._float("y_scale", y_scale)], "deviation")
            scores = self._add("Add", [scores, self._float("y_mean", y_mean)], "scaled_back")
        if result == "probabilities":
            scores = self._add("Softmax", [scores], "of_each", axis=-1)
        if pooled:
            self._add("Identity", [scores], result)
        else:
            self._add("Transpose", [scores], result, perm=(1, 0, 2))

        of_result = ("batch", network.out.n_out) if pooled else ("batch", "time", network.out.n_out)
        whole = [*before, *graph.node, *self.nodes]
        tensors = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        inputs = [helper.make_tensor_value_info("X", kind, shape), lengths]
        outputs = [helper.make_tensor_value_info(result, element, of_result)]
        model = helper.make_model(
            helper.make_graph(whole, "estimator", inputs, outputs, [*graph.initializer, *tensors]),
            opset_imports=list(self.whole.opset_import),
            ir_version=self.whole.ir_version,
            producer_name=self.whole.producer_name,
            producer_version=self.whole.producer_version,
        )
        helper.set_model_props(model, {name: json.dumps(note) for name, note in notes.items()})
        return model

    def _pooled(self, how: str) -> str:
        """Make (B, n) of the layer's output, (T, B, n); `lengths` are int32."""
        from onnx import TensorProto

        zero, one = (self._int(name, k) for name, k in (("none", 0), ("one", 1)))
        shape = self._add("Shape", ["output"], "shape", start=0, end=1)
        T = self._add("Squeeze", [shape, self._axes(0)], "T")
        steps = self._add("Range", [zero, T, one], "steps")
        by_step = self._add("Unsqueeze", [steps, self._axes(1)], "by_step")
        lengths = self._add("Cast", ["lengths"], "of_sequences", to=TensorProto.INT64)
        if how in ("max", "mean"):
            inside = self._add("Less", [by_step, lengths], "is_inside")
            inside = self._add("Unsqueeze", [inside, self._axes(2)], "inside")
            least = -np.inf if how == "max" else 0.0
            other = self._float("other", np.array(least))
            kept = self._add("Where", [inside, "output", other], "kept")
            if how == "max":
                return self._add("ReduceMax", [kept, self._axes(0)], "pooled", keepdims=0)
            total = self._add("ReduceSum", [kept, self._axes(0)], "total", keepdims=0)
            counts = self._add("CastLike", [lengths, "output"], "counts")
            counts = self._add("Unsqueeze", [counts, self._axes(1)], "counts_by_row")
            return self._add("Div", [total, counts], "pooled")
        last = self._add("Sub", [lengths, one], "last_step")
        is_last = self._add("Equal", [by_step, last], "is_last")
        is_last = self._add("Unsqueeze", [is_last, self._axes(2)], "is_last_step")
        nothing = self._float("nothing", np.array(0.0))
        kept = self._add("Where", [is_last, "output", nothing], "kept")
        at_end = self._add("ReduceSum", [kept, self._axes(0)], "at_end", keepdims=0)
        if how == "last":
            return at_end
        at_start = self._add("Gather", ["output", zero], "at_start", axis=0)
        halves = []
        for k, name in enumerate((at_end, at_start)):
            names = [f"{name}_{half}" for half in ("forwards", "backwards")]
            self._add("Split", [name], *names, axis=1, num_outputs=2)
            halves.append(names[k])
        return self._add("Concat", halves, "pooled", axis=1)

    def _scores(self, h: str) -> str:
        params = self.network.out.params
        weight = self._constant("out_weight", np.ascontiguousarray(params["weight"].T))
        product = self._add("MatMul", [h, weight], "product")
        return self._add("Add", [product, self._constant("out_bias", params["bias"])], "scores")

    def _add(self, operator: str, inputs: list[str], *outputs: str, **attributes: Any) -> str:
        """Add a node, and return the name of its first output."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def _constant(self, name: str, value: npt.NDArray[Any]) -> str:
        name = f"estimator_{name}"  # the layer has its own
        self.constants[name] = value
        return name

    def _float(self, name: str, value: FloatArray) -> str:
        return self._constant(name, value.astype(self.dtype))

    def _int(self, name: str, value: int) -> str:
        return self._constant(name, np.array(value, np.int64))

    def _axes(self, axis: int) -> str:
        return self._constant(f"axis_{axis}", np.array([axis], np.int64))
