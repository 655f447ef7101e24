"""fastlstm: one layer object, called as in its README; streams through `layer.stream`."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
from fastlstm import optim

from fastlstm_bench import cases
from fastlstm_bench.cases import BETAS, EPSILON, LEARNING_RATE, MAX_NORM, Case
from fastlstm_bench.problem import Array, Arrays, Problem
from fastlstm_bench.systems import Call, UnsupportedError, jobs_fastlstm

USES = ("layer", *jobs_fastlstm.USES)
DTYPES = cases.DTYPES

_LAYERS = {"lstm": "LSTM", "gru": "GRU", "rnn": "RNN"}


def start(threads: int) -> dict[str, str]:
    fastlstm.set_num_threads(threads)
    return {"fastlstm": fastlstm.__version__, "isa": fastlstm.isa()}


def prepare(case: Case, problem: Problem, threads: int, activations: str | None = None) -> Call:
    """Load the weights; small ones multiply what is as small, unless `activations` says other."""
    if case.use != "layer":
        return jobs_fastlstm.prepare(case, problem)
    layer_type: Any = getattr(fastlstm, _LAYERS[case.cell], None)
    if layer_type is None:
        raise UnsupportedError(f"this release has no {_LAYERS[case.cell]}")
    layer = layer_type(
        case.H, case.H, case.layers, bidirectional=case.bidirectional, dtype=case.element
    )
    layer.load_state_dict(problem.params)
    if case.dtype in cases.SMALL:
        layer = layer.quantize(case.dtype, activations or case.dtype)
    if case.task == "step":
        return _Steps(case, layer)
    if case.task == "training":
        return _Training(layer, problem)
    if case.task == "optimiser":
        return _Optimiser(layer, problem)
    return _Inference(case, layer, problem)


def _results(output: Array, state: Any) -> Arrays:
    if not isinstance(state, tuple):
        return {"output": output, "h_n": state}
    return {"output": output, "h_n": state[0], "c_n": state[1]}


class _Inference(Call):
    def __init__(self, case: Case, layer: Any, problem: Problem) -> None:
        self.layer, self.problem = layer, problem
        self.output = np.empty((case.T, case.B, case.directions * case.H), case.element)
        self.state: Any = None

    def run(self) -> None:
        _, self.state = self.layer(self.problem.x, lengths=self.problem.lengths, out=self.output)

    def fetch(self) -> Arrays:
        return _results(self.output, self.state)


class _Training(Call):
    needs: tuple[str, ...] = ("x", "state", "params")

    def __init__(self, layer: Any, problem: Problem) -> None:
        self.layer, self.problem = layer, problem
        self.output: Any = None
        self.state: Any = None
        self.gradients: Any = None

    def run(self) -> None:
        self.output, self.state, tape = self.layer.forward(
            self.problem.x, lengths=self.problem.lengths
        )
        self.gradients = tape.backward(self.problem.d_output, needs=self.needs)

    def fetch(self) -> Arrays:
        gradients = {f"d_{name}": value for name, value in self.gradients.params.items()}
        return _results(self.output, self.state) | {"d_x": self.gradients.x} | gradients


class _Optimiser(_Training):
    needs = ("params",)

    def __init__(self, layer: Any, problem: Problem) -> None:
        super().__init__(layer, problem)
        self.optimizer = optim.Adam(LEARNING_RATE, BETAS, EPSILON)

    def run(self) -> None:
        super().run()
        gradients, _ = optim.clip_by_global_norm(self.gradients.params, MAX_NORM)
        self.layer.update(self.optimizer.step(self.layer.params, gradients))

    def fetch(self) -> Arrays:
        params, start = self.layer.params, self.problem.params
        moved = {f"moved_{name}": params[name] - start[name] for name in start}
        return _results(self.output, self.state) | moved


class _Steps(Call):
    def __init__(self, case: Case, layer: Any) -> None:
        self.stream = layer.stream(batch_size=case.B)
        self.x = np.empty((case.B, case.H), case.element)
        self.output = np.empty((case.B, case.H), case.element)

    def feed(self, x: Array) -> None:
        self.x[...] = x

    def run(self) -> None:
        self.stream.step(self.x, out=self.output)

    def fetch(self) -> Arrays:
        return {"output": self.output}
