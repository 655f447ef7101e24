"""ONNX Runtime: an optimised session with all inputs and outputs bound to memory once.

In a stream the states go back and forth between two sets of buffers, so that nothing is copied.
Spinning of the session's threads is left as it is by default.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import QuantType, quantize_dynamic

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Array, Arrays, Problem
from fastlstm_bench.systems import Call, UnsupportedError, onnx_model

DTYPES = ("float32", "float64", "int8")


def start(threads: int) -> dict[str, str]:
    return {"onnxruntime": ort.__version__, "provider": "CPUExecutionProvider"}


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if case.trains:
        raise UnsupportedError("the package runs inference only")
    if case.dtype == "float64":
        raise UnsupportedError("its recurrent operators are not implemented for float64")
    if case.dtype == "int8" and case.cell != "lstm":
        raise UnsupportedError("of recurrent layers it quantises the LSTM alone")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    model = onnx_model.build(case, problem)
    session = ort.InferenceSession(
        (_quantised(model) if case.dtype == "int8" else model).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    return _Bound(case, session, problem)


def _quantised(model: Any) -> Any:
    """The model with DynamicQuantizeLSTM, as ONNX Runtime's own tool makes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
        return onnx.load(path)


class _Bound(Call):
    def __init__(self, case: Case, session: Any, problem: Problem) -> None:
        self.case, self.session = case, session
        T = 1 if case.task == "step" else case.T
        self.x = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(problem.x[:T]))
        zeros = np.zeros((case.directions, case.B, case.H), case.element)

        def buffers() -> dict[str, Any]:
            names = onnx_model.state_names(case)
            return {new: ort.OrtValue.ortvalue_from_numpy(zeros.copy()) for _, new in names}

        y = np.zeros((T, case.directions, case.B, case.H), case.element)
        self.y = ort.OrtValue.ortvalue_from_numpy(y)
        if case.task == "step":
            self.states = [buffers(), buffers()]
            self.bindings = [self._bind(0, 1), self._bind(1, 0)]
        else:
            self.states = [buffers()]
            self.bindings = [self._bind(None, 0)]
        self.turn = 0

    def _bind(self, source: int | None, target: int) -> Any:
        binding = self.session.io_binding()
        binding.bind_ortvalue_input("x", self.x)
        binding.bind_ortvalue_output("y", self.y)
        for name, new in onnx_model.state_names(self.case):
            if source is not None:
                binding.bind_ortvalue_input(name, self.states[source][new])
            binding.bind_ortvalue_output(new, self.states[target][new])
        return binding

    def feed(self, x: Array) -> None:
        self.x.update_inplace(np.ascontiguousarray(x[np.newaxis]))

    def run(self) -> None:
        self.session.run_with_iobinding(self.bindings[self.turn])
        self.turn = (self.turn + 1) % len(self.bindings)

    def fetch(self) -> Arrays:
        last = self.states[self.turn if self.case.task == "step" else 0]
        outputs = {name: value.numpy() for name, value in last.items()}
        return onnx_model.results(self.case, outputs | {"y": self.y.numpy()})
