"""All that layers ask of the C++ core; its arrays are contiguous and of the stack's dtype."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from fastlstm import _core
from fastlstm._activations import Activation
from fastlstm._blas import require_blas_for_forward
from fastlstm._checks import FloatArray, IndexArray

# Keys left out have the values of a plain layer: csrc/include/fastlstm/stack.hpp.
Config: TypeAlias = Mapping[str, Any]
# The parameters of one cell (layer k // D, direction k % D) by their short names, "weight_ih".
CellArrays: TypeAlias = Mapping[str, FloatArray]


class Tape(Protocol):
    """What a training call leaves."""

    def backward(
        self,
        *,
        d_output: FloatArray | None,
        d_final: Sequence[FloatArray | None] | None,
        d_x: FloatArray | None,
        d_initial: Sequence[FloatArray] | None,
        d_params: Sequence[CellArrays],
        d_steps: Sequence[FloatArray] | None,
    ) -> None:
        """Write gradients to the arrays that are given; those of parameters are added."""

    def gates(self, k: int, /) -> FloatArray:
        """(T, B, G * H): the gates of cell k."""

    def state(self, k: int, part: int, /) -> FloatArray:
        """(T, B, width): one part of the state of cell k."""


class Stack(Protocol):
    """Layers with their weights, which do not change."""

    def with_params(self, cells: Mapping[int, CellArrays], /) -> Stack:
        """The same with other parameters of some cells: all of each."""

    def forward(
        self,
        *,
        x: FloatArray,
        initial: Sequence[FloatArray] | None,
        lengths: IndexArray | None,
        output: FloatArray,
        final: Sequence[FloatArray],
        batch_first: bool,
    ) -> None:
        """Write the output and the final state."""

    def forward_train(
        self,
        *,
        x: FloatArray,
        initial: Sequence[FloatArray] | None,
        lengths: IndexArray | None,
        output: FloatArray,
        final: Sequence[FloatArray],
        batch_first: bool,
        regularisation: Mapping[str, Any],
        memory_limit: int,
    ) -> Tape:
        """The same for training; a limit of 0 is none."""

    def training_memory(
        self,
        *,
        steps: int,
        batch_size: int,
        lengths: IndexArray | None,
        batch_first: bool,
        regularisation: Mapping[str, Any],
        memory_limit: int,
    ) -> tuple[int, float]:
        """The bytes and the extra time of a training call."""


class Stream(Protocol):
    """Layers that run step by step."""

    def step(self, x: FloatArray, out: FloatArray, /) -> None:
        """One step."""

    def stepper(self) -> Callable[[object, object], bool]:
        """A quick step: False, with nothing done, where x or out need checks or conversions."""

    def run(self, x: FloatArray, output: FloatArray, batch_first: bool, /) -> None:
        """Many steps."""

    def state(self) -> list[FloatArray]:
        """Copies of the state's parts."""

    def set_state(self, state: Sequence[FloatArray], /) -> None:
        """Copy a state."""


def parameters(config: Config) -> list[dict[str, tuple[tuple[int, ...], str]]]:
    """Return those of each cell in PyTorch's order: short name -> shape and initial value.

    The initial value is "uniform", "one" or "zero".
    """
    full = _full(config)
    I, H, P = full["input_size"], full["hidden_size"], full["proj_size"] or full["hidden_size"]
    D = 2 if full["bidirectional"] else 1
    GH = {"lstm": 4, "gru": 3, "gru_reset_before": 3}.get(full["cell"], 1) * H
    norm = full["layer_norm"]
    cells = []
    for k in range(full["num_layers"] * D):
        below = I if k < D else D * P
        rows = {
            "weight_ih": ((GH, below), "uniform", True),
            "weight_hh": ((GH, P), "uniform", True),
            "bias_ih": ((GH,), "uniform", full["bias"]),
            "bias_hh": ((GH,), "uniform", full["bias"]),
            "weight_hr": ((P, H), "uniform", full["proj_size"]),
            "weight_peephole": ((3 * H,), "uniform", full["peepholes"]),
            "weight_ln_ih": ((GH,), "one", norm),
            "weight_ln_hh": ((GH,), "one", norm),
            "weight_ln_c": ((H,), "one", norm),
            "bias_ln_c": ((H,), "zero", norm and full["bias"]),
        }
        cells.append({n: (shape, initial) for n, (shape, initial, there) in rows.items() if there})
    return cells


def state_parts(config: Config) -> list[tuple[str, int]]:
    """Return the names and widths of a state's parts; the first is h, the output."""
    full = _full(config)
    h = ("h", full["proj_size"] or full["hidden_size"])
    return [h, ("c", full["hidden_size"])] if full["cell"] == "lstm" else [h]


def make_stack(dtype: np.dtype[Any], config: Config, cells: Sequence[CellArrays]) -> Stack:
    """Pack the parameters of all cells."""
    full = _full(config)
    del full["bias"]
    old = {"float32": _core.StackFloat32, "float64": _core.StackFloat64}[dtype.name]
    return _Stack(dtype, old(**full, cells=[_positions(arrays) for arrays in cells]))


def make_stream(stack: Stack, batch_size: int) -> Stream:
    """Return a stream whose state is zeros."""
    require_blas_for_forward()
    assert isinstance(stack, _Stack)
    streams: dict[str, Any] = {"float32": _core.StreamFloat32, "float64": _core.StreamFloat64}
    return _Stream(streams[stack.dtype.name](stack.old, batch_size))


_PLAIN: Config = {
    "num_layers": 1,
    "bias": True,
    "proj_size": 0,
    "bidirectional": False,
    "reverse": False,
    "merge": "concat",
    "activations": [Activation("Sigmoid"), Activation("Tanh"), Activation("Tanh")],
    "clip": math.inf,
    "input_forget": False,
    "peepholes": False,
    "layer_norm": False,
    "zoneout_h": 0.0,
    "zoneout_c": 0.0,
}
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_peephole")
_NORM_NAMES = ("weight_ln_ih", "weight_ln_hh", "weight_ln_c", "bias_ln_c")


def _full(config: Config) -> dict[str, Any]:
    return {**_PLAIN, **config}


def _positions(arrays: CellArrays) -> list[Any]:
    return [arrays.get(name) for name in (*_NAMES, *_NORM_NAMES)]


def _pair(names: tuple[str, str], arrays: Sequence[Any] | None) -> dict[str, Any]:
    return dict(zip(names, (*(arrays or ()), None, None), strict=False))


class _Tape:
    def __init__(self, old: Any) -> None:
        self.gates = old.gates
        self._old = old

    def state(self, k: int, part: int) -> Any:
        return (self._old.hidden, self._old.cells)[part](k)

    def backward(
        self,
        *,
        d_final: Any,
        d_initial: Any,
        d_params: Sequence[CellArrays],
        d_steps: Any,
        **arrays: Any,
    ) -> None:
        self._old.backward(
            **arrays,
            **_pair(("d_h_n", "d_c_n"), d_final),
            **_pair(("d_h_0", "d_c_0"), d_initial),
            **_pair(("d_h_steps", "d_c_steps"), d_steps),
            d_params=[_positions(cell) for cell in d_params],
        )


class _Stack:
    def __init__(self, dtype: np.dtype[Any], old: Any) -> None:
        self.dtype, self.old = dtype, old

    def with_params(self, cells: Mapping[int, CellArrays]) -> _Stack:
        old = self.old
        for k, arrays in cells.items():
            old = old.with_params(k, _positions(arrays))
        return _Stack(self.dtype, old)

    def forward(self, *, initial: Any, final: Any, **others: Any) -> None:
        require_blas_for_forward()
        states = {**_pair(("h_0", "c_0"), initial), **_pair(("h_n", "c_n"), final)}
        self.old.forward(**states, **others)

    def forward_train(
        self, *, initial: Any, final: Any, regularisation: Mapping[str, Any], **others: Any
    ) -> _Tape:
        require_blas_for_forward()
        states = {**_pair(("h_0", "c_0"), initial), **_pair(("h_n", "c_n"), final)}
        return _Tape(self.old.forward_train(**states, **others, **regularisation))

    def training_memory(self, *, regularisation: Mapping[str, Any], **others: Any) -> Any:
        masks = {name: regularisation[name] for name in ("dropout", "weight_dropout")}
        return self.old.training_memory(**others, **masks)


class _Stream:
    def __init__(self, old: Any) -> None:
        self.step, self.stepper, self.run, self.state = old.step, old.stepper, old.run, old.state
        self._old = old

    def set_state(self, state: Sequence[FloatArray]) -> None:
        self._old.set_state(*state)
