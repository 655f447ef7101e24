"""PyTorch, eager: torch.nn modules under inference_mode, time-major and contiguous.

Uneven lengths go through PackedSequence, the documented way to get right results. A stream uses the
cells: for one step nn.LSTM reorders its weights in every call, which the cells do not.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastlstm_bench import cases
from fastlstm_bench.cases import BETAS, EPSILON, LEARNING_RATE, MAX_NORM, Case
from fastlstm_bench.problem import CLASSES, IGNORED, VOCABULARY, Array, Arrays, Problem
from fastlstm_bench.systems import Call, UnsupportedError, jobs_torch

USES = ("layer", "cells", "model", *jobs_torch.USES)
DTYPES = cases.DTYPES

_LAYERS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_CELLS = {"lstm": nn.LSTMCell, "gru": nn.GRUCell, "rnn": nn.RNNCell}

# What a system makes of a module before it is called: torch.compile, or our modules in it.
Change = Callable[[Any], Any]


_QUANTISED = {*_CELLS.values(), nn.LSTM, nn.GRU}


def start(threads: int) -> dict[str, str]:
    torch.set_num_threads(threads)
    return {
        "torch": torch.__version__,
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": str(torch.backends.mkldnn.is_available()),
        "mkl": str(torch.backends.mkl.is_available()),
        "quantised": torch.backends.quantized.engine,
    }


def prepare(case: Case, problem: Problem, threads: int, change: Change = lambda m: m) -> Call:
    if case.use in jobs_torch.USES:
        return jobs_torch.prepare(case, problem)
    if case.task == "step":
        return _Steps(case, problem, change)
    kinds = {"training": _Training, "optimiser": _Optimiser}
    return kinds.get(case.task, _Sequence)(case, problem, change)


class _Layer(nn.Module):  # type: ignore[misc]
    """A layer, called with lengths or without."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.rnn = _LAYERS[case.cell](case.H, case.H, case.layers, bidirectional=case.bidirectional)

    def forward(self, x: Any, lengths: Any) -> tuple[Any, Any]:
        if lengths is None:
            output, state = self.rnn(x)
            return output, state
        output, state = self.rnn(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(output)[0], state


class _Cells(nn.Module):  # type: ignore[misc]
    """A loop of single steps."""

    def __init__(self, case: Case, change: Change) -> None:
        super().__init__()
        self.rnn = _CELLS[case.cell](case.H, case.H)
        # Not a part of this module, whose parameters would have two names.
        self._cell = [change(self.rnn)]

    def forward(self, x: Any, lengths: Any) -> tuple[Any, Any]:
        [cell] = self._cell
        state, outputs = None, []
        for step in x:
            state = cell(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        parts = state if isinstance(state, tuple) else (state,)
        return torch.stack(outputs), tuple(part[None] for part in parts)


class _Model(nn.Module):  # type: ignore[misc]
    """Embedding, layer, linear head: scores of each step's classes, and no state."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, case.H)
        self.layer = _Layer(case)
        self.head = nn.Linear(case.directions * case.H, CLASSES)

    def forward(self, x: Any, lengths: Any) -> tuple[Any, Any]:
        return self.head(self.layer(self.embedding(x), lengths)[0]), ()


def _problem_name(name: str) -> str:
    """What a problem calls a module's parameter."""
    own = name.removeprefix("layer.").removeprefix("rnn.")
    # A cell's names have no number of a layer.
    return own if "." in own or "_l" in own else f"{own}_l0"


def _load(module: Any, problem: Problem) -> dict[str, Any]:
    """Give a module the problem's numbers; return its parameters by the problem's names."""
    params = {_problem_name(name): param for name, param in module.named_parameters()}
    for name, param in params.items():
        param.data = torch.from_numpy(problem.params[name].copy())
    return params


def _quantised(case: Case, module: Any) -> Any:
    """The module with dynamically quantised layers: int8 by PyTorch's own tool."""
    if case.cell == "rnn" and case.task != "step":
        raise UnsupportedError("of layers it quantises LSTM and GRU alone")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a newer tool exports the whole model first
        return torch.ao.quantization.quantize_dynamic(module, _QUANTISED, dtype=torch.qint8)


class _Sequence(Call):
    def __init__(self, case: Case, problem: Problem, change: Change) -> None:
        if case.use == "cells":
            module = self.module = _Cells(case, change)
        else:
            module = _Layer(case) if case.use == "layer" else _Model(case)
            self.module = change(module)
        self.params = _load(module, problem)
        self.x = torch.from_numpy(problem.x)
        if case.dtype == "bfloat16":
            self.module, self.x = self.module.bfloat16(), self.x.bfloat16()
        elif case.dtype == "int8":
            self.module = _quantised(case, self.module)
        self.lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)
        self.output: Any = None
        self.state: Any = None

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.inference_mode()
        return mode

    def run(self) -> None:
        self.output, self.state = self.module(self.x, self.lengths)

    def fetch(self) -> Arrays:
        results = {"output": _numpy(self.output)}
        state = self.state if isinstance(self.state, tuple) else (self.state,)
        return results | {n: _numpy(s) for n, s in zip(("h_n", "c_n"), state, strict=False)}


class _Training(_Sequence):
    def __init__(self, case: Case, problem: Problem, change: Change) -> None:
        super().__init__(case, problem, change)
        self.x.requires_grad_()
        self.d_output = torch.from_numpy(problem.d_output)

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.enable_grad()
        return mode

    def run(self) -> None:
        self.module.zero_grad(set_to_none=True)
        self.x.grad = None
        super().run()
        self.output.backward(self.d_output)

    def fetch(self) -> Arrays:
        gradients = {f"d_{name}": _numpy(param.grad) for name, param in self.params.items()}
        return super().fetch() | gradients | {"d_x": _numpy(self.x.grad)}


class _Optimiser(_Sequence):
    def __init__(self, case: Case, problem: Problem, change: Change) -> None:
        super().__init__(case, problem, change)
        self.problem = problem
        self.d_output = torch.from_numpy(problem.d_output)
        self.targets = None if problem.targets is None else torch.from_numpy(problem.targets)
        # Fused: one pass over each parameter, which is faster than the default.
        self.optimizer = torch.optim.Adam(
            self.params.values(), LEARNING_RATE, BETAS, EPSILON, fused=True
        )

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.enable_grad()
        return mode

    def run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        super().run()
        if self.targets is None:
            self.output.backward(self.d_output)
        else:
            nn.functional.cross_entropy(
                self.output.flatten(0, 1),
                self.targets.flatten(),
                ignore_index=IGNORED,
                reduction="sum",
            ).backward()
        nn.utils.clip_grad_norm_(self.params.values(), MAX_NORM)
        self.optimizer.step()

    def fetch(self) -> Arrays:
        start = self.problem.params
        moved = {f"moved_{n}": _numpy(param) - start[n] for n, param in self.params.items()}
        return super().fetch() | moved


class _Steps(Call):
    def __init__(self, case: Case, problem: Problem, change: Change) -> None:
        dtype = getattr(torch, case.element)
        cells = nn.ModuleList()
        for layer in range(case.layers):
            cell = _CELLS[case.cell](case.H, case.H, dtype=dtype)
            names = {name: f"{name}_l{layer}" for name, _ in cell.named_parameters()}
            cell.load_state_dict(
                {own: torch.from_numpy(problem.params[name]) for own, name in names.items()}
            )
            cells.append(change(cell))
        if case.dtype == "bfloat16":
            cells, dtype = cells.bfloat16(), torch.bfloat16
        elif case.dtype == "int8":
            cells = _quantised(case, cells)
        self.cells = [*cells]
        zeros = torch.zeros(case.B, case.H, dtype=dtype)
        self.is_lstm = case.cell == "lstm"
        self.states: list[Any] = [(zeros, zeros) if self.is_lstm else zeros] * case.layers
        self.x = torch.empty(case.B, case.H, dtype=dtype)
        self.output = self.x

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.inference_mode()
        return mode

    def feed(self, x: Array) -> None:
        self.x.copy_(torch.from_numpy(x))

    def run(self) -> None:
        h = self.x
        for layer, cell in enumerate(self.cells):
            state = self.states[layer] = cell(h, self.states[layer])
            h = state[0] if self.is_lstm else state
        self.output = h

    def fetch(self) -> Arrays:
        return {"output": _numpy(self.output)}


def _numpy(tensor: Any) -> Array:
    tensor = tensor.detach()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array
