"""OpenVINO: the ONNX model compiled for latency, in float32, with all tensors set once.

In a stream two requests pass the states back and forth through shared memory.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Array, Arrays, Problem
from fastlstm_bench.systems import Call, UnsupportedError, onnx_model

DTYPES = ("float32", "float64", "bfloat16")


def start(threads: int) -> dict[str, str]:
    return {
        "openvino": ov.__version__,
        "hint": "LATENCY",
        "inference precision": "f32, bf16 where asked for",
        "capabilities": " ".join(_capabilities(ov.Core())),
    }


def _capabilities(core: Any) -> list[str]:
    return list(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if case.trains:
        raise UnsupportedError("the package runs inference only")
    if case.dtype == "float64":
        raise UnsupportedError("the CPU plugin computes float64 models in float32")
    core = ov.Core()
    if case.dtype == "bfloat16" and "BF16" not in _capabilities(core):
        raise UnsupportedError("the CPU plugin has no bfloat16 on this processor")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(onnx_model.build(case, problem), path)
        model = core.read_model(path)
        compiled = core.compile_model(
            model,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                # Some processors would get bfloat16 or float16 unasked.
                "INFERENCE_PRECISION_HINT": "bf16" if case.dtype == "bfloat16" else "f32",
            },
        )
    return _Requests(case, compiled, problem)


class _Requests(Call):
    def __init__(self, case: Case, compiled: Any, problem: Problem) -> None:
        self.case = case
        streaming = case.task == "step"
        T = 1 if streaming else case.T
        self.x = np.ascontiguousarray(problem.x[:T])
        self.y = np.zeros((T, case.directions, case.B, case.H), case.element)
        shape = (case.directions, case.B, case.H)
        names = onnx_model.state_names(case)
        self.states = [
            {new: np.zeros(shape, case.element) for _, new in names} for _ in range(1 + streaming)
        ]
        self.requests = []
        for turn in range(len(self.states)):
            request = compiled.create_infer_request()
            request.set_tensor("x", ov.Tensor(self.x, shared_memory=True))
            request.set_tensor("y", ov.Tensor(self.y, shared_memory=True))
            for name, new in names:
                if streaming:
                    source = self.states[turn][new]
                    request.set_tensor(name, ov.Tensor(source, shared_memory=True))
                target = self.states[turn - 1][new]
                request.set_tensor(new, ov.Tensor(target, shared_memory=True))
            self.requests.append(request)
        self.turn = 0

    def feed(self, x: Array) -> None:
        self.x[0] = x

    def run(self) -> None:
        self.requests[self.turn].infer(share_outputs=True)
        self.turn = (self.turn + 1) % len(self.requests)

    def fetch(self) -> Arrays:
        last = self.states[self.turn if self.case.task == "step" else 0]
        return onnx_model.results(self.case, last | {"y": self.y})
