"""PyTorch, eager: torch.nn modules under inference_mode, time-major and contiguous.

Uneven lengths go through PackedSequence, the documented way to get right results. A stream uses the
cells: for one step nn.LSTM reorders its weights in every call, which the cells do not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fastlstm_bench.cases import BETAS, EPSILON, LEARNING_RATE, MAX_NORM, Case
from fastlstm_bench.problem import Array, Arrays, Problem, parameter_names
from fastlstm_bench.systems import Call

_LAYERS = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}
_CELLS = {"lstm": torch.nn.LSTMCell, "gru": torch.nn.GRUCell, "rnn": torch.nn.RNNCell}


def start(threads: int) -> dict[str, str]:
    torch.set_num_threads(threads)
    return {
        "torch": torch.__version__,
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": str(torch.backends.mkldnn.is_available()),
        "mkl": str(torch.backends.mkl.is_available()),
    }


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    if case.task == "step":
        return _Steps(case, problem)
    kinds = {"training": _Training, "optimiser": _Optimiser}
    return kinds.get(case.task, _Sequence)(case, problem)


class _Sequence(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        dtype = getattr(torch, case.dtype)
        self.layer = _LAYERS[case.cell](
            case.H, case.H, case.layers, bidirectional=case.bidirectional, dtype=dtype
        )
        self.layer.load_state_dict({n: torch.from_numpy(v) for n, v in problem.params.items()})
        self.x = torch.from_numpy(problem.x)
        self.lengths = None if problem.lengths is None else torch.from_numpy(problem.lengths)
        self.output: Any = None
        self.state: Any = None

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.inference_mode()
        return mode

    def run(self) -> None:
        if self.lengths is None:
            self.output, self.state = self.layer(self.x)
        else:
            packed = pack_padded_sequence(self.x, self.lengths, enforce_sorted=False)
            output, self.state = self.layer(packed)
            self.output, _ = pad_packed_sequence(output)

    def fetch(self) -> Arrays:
        results = {"output": _numpy(self.output)}
        state = self.state if isinstance(self.state, tuple) else (self.state,)
        return results | {n: _numpy(s) for n, s in zip(("h_n", "c_n"), state, strict=False)}


class _Training(_Sequence):
    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        self.x.requires_grad_()
        self.d_output = torch.from_numpy(problem.d_output)

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.enable_grad()
        return mode

    def run(self) -> None:
        self.layer.zero_grad(set_to_none=True)
        self.x.grad = None
        super().run()
        self.output.backward(self.d_output)

    def fetch(self) -> Arrays:
        gradients = {f"d_{n}": _numpy(p.grad) for n, p in self.layer.named_parameters()}
        return super().fetch() | gradients | {"d_x": _numpy(self.x.grad)}


class _Optimiser(_Sequence):
    def __init__(self, case: Case, problem: Problem) -> None:
        super().__init__(case, problem)
        self.problem = problem
        self.d_output = torch.from_numpy(problem.d_output)
        self.params = list(self.layer.parameters())
        # Fused: one pass over each parameter, which is faster than the default.
        self.optimizer = torch.optim.Adam(self.params, LEARNING_RATE, BETAS, EPSILON, fused=True)

    def mode(self) -> AbstractContextManager[object]:
        mode: AbstractContextManager[object] = torch.enable_grad()
        return mode

    def run(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        super().run()
        self.output.backward(self.d_output)
        torch.nn.utils.clip_grad_norm_(self.params, MAX_NORM)
        self.optimizer.step()

    def fetch(self) -> Arrays:
        start = self.problem.params
        moved = {f"moved_{n}": _numpy(p) - start[n] for n, p in self.layer.named_parameters()}
        return super().fetch() | moved


class _Steps(Call):
    def __init__(self, case: Case, problem: Problem) -> None:
        dtype = getattr(torch, case.dtype)
        self.cells = []
        for layer in range(case.layers):
            cell = _CELLS[case.cell](case.H, case.H, dtype=dtype)
            own_names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            names = zip(own_names, parameter_names(layer, 0), strict=True)
            cell.load_state_dict({own: torch.from_numpy(problem.params[n]) for own, n in names})
            self.cells.append(cell)
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
    array: Array = tensor.detach().numpy()
    return array
