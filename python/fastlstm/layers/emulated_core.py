"""The core's coming interface, as fastlstm.layers.core states it, on the present one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from fastlstm import _core
from fastlstm._activations import Activation
from fastlstm._blas import require_blas_for_forward
from fastlstm._checks import FloatArray

_PLAIN: Mapping[str, Any] = {
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


def parameters(config: Mapping[str, Any]) -> list[dict[str, tuple[tuple[int, ...], str]]]:
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


def state_parts(config: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Return the names and widths of a state's parts; the first is h, the output."""
    full = _full(config)
    h = ("h", full["proj_size"] or full["hidden_size"])
    return [h, ("c", full["hidden_size"])] if full["cell"] == "lstm" else [h]


def _full(config: Mapping[str, Any]) -> dict[str, Any]:
    return {**_PLAIN, **config}


def _positions(arrays: Mapping[str, Any]) -> list[Any]:
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
        d_params: Sequence[Mapping[str, Any]],
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
    _class: ClassVar[Any]

    def __init__(self, config: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> None:
        full = _full(config)
        del full["bias"]
        self.old = self._class(**full, cells=[_positions(arrays) for arrays in cells])

    def with_params(self, cells: Mapping[int, Mapping[str, Any]]) -> _Stack:
        new = object.__new__(type(self))
        new.old = self.old
        for k, arrays in cells.items():
            new.old = new.old.with_params(k, _positions(arrays))
        return new

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
    _class: ClassVar[Any]

    def __init__(self, stack: Any, batch_size: int) -> None:
        require_blas_for_forward()
        old = self._old = self._class(stack.old, batch_size)
        self.step, self.stepper, self.run, self.state = old.step, old.stepper, old.run, old.state

    def set_state(self, state: Sequence[FloatArray]) -> None:
        self._old.set_state(*state)


class StackFloat32(_Stack):
    """Layers in float32."""

    _class = _core.StackFloat32


class StackFloat64(_Stack):
    """Layers in float64."""

    _class = _core.StackFloat64


class StreamFloat32(_Stream):
    """A stream in float32."""

    _class = _core.StreamFloat32


class StreamFloat64(_Stream):
    """A stream in float64."""

    _class = _core.StreamFloat64
