"""One layer and direction by itself, in float64: what the reference makes of its parameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastlstm import reference
from fastlstm._activations import Activation, as_activation
from fastlstm.reference._layers import PARAMETER_NAMES, Weights

from ._results import Array, difference

GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "RNN": ("h",)}


@dataclass(frozen=True)
class Cell:
    """The equations and weights of one layer and direction."""

    kind: str
    activations: tuple[Activation, ...]
    weights: Weights
    clip: float = np.inf
    input_forget: bool = False
    reset_after: bool = True

    @property
    def gates(self) -> tuple[str, ...]:
        """Their names in the order of the weights' rows."""
        return GATES[self.kind]

    @property
    def hidden_size(self) -> int:
        """H"""
        return len(self.weights.W) // len(self.gates)

    @property
    def gate_seen_by_all(self) -> str | None:
        """The gate of which each unit reaches all values of h within the step: through a matrix."""
        if self.kind == "GRU" and not self.reset_after:
            return "r"
        return "o" if self.weights.W_hr is not None else None

    def row(self, gate: str, unit: int) -> int:
        """The row of a gate and unit in W, R and the biases."""
        return self.gates.index(gate) * self.hidden_size + unit

    def with_weights(self, **weights: Any) -> Cell:
        """The same with other arrays for some weights, by the fields of Weights."""
        return replace(self, weights=self.weights._replace(**weights))

    @np.errstate(over="ignore", invalid="ignore")
    def step(self, x: Array, state: tuple[Array, ...]) -> Any:
        """Compute one step: the reference's LSTMStep, GRUStep or RNNStep."""
        W, R, b_W, b_R = self.weights[:4]
        functions: Any = self.activations
        if self.kind == "LSTM":
            h, c = state
            lstm = reference.LSTMOptions(functions, self.clip, self.input_forget)
            return reference.lstm_cell(x, h, c, *self.weights, options=lstm)
        (h,) = state
        if self.kind == "GRU":
            gru = reference.GRUOptions(functions, self.clip)
            after = self.reset_after
            return reference.gru_cell(x, h, W, R, b_W, b_R, reset_after=after, options=gru)
        rnn = reference.RNNOptions(functions[0], self.clip)
        return reference.rnn_cell(x, h, W, R, b_W, b_R, options=rnn)


def cell_of(layer: Any, k: int, direction: int) -> Cell:
    """Take layer k of a stack in one direction."""
    suffix = f"_l{k}" + ("_reverse" if direction else "")
    params = {
        field: np.asarray(layer.params[name + suffix], np.float64)
        for field, name in PARAMETER_NAMES.items()
        if name + suffix in layer.params
    }
    return Cell(
        type(layer).__name__,
        tuple(as_activation("activations", name) for name in layer.activations),
        Weights(**params),
        np.inf if layer.clip is None else layer.clip,
        getattr(layer, "input_forget", False),
        getattr(layer, "reset_after", True),
    )


def new_state(step: Any) -> tuple[Array, ...]:
    """h, and c where there is one, of what a cell's step returned."""
    return (step.h, step.c) if hasattr(step, "c") else (step.h,)


@dataclass(frozen=True)
class Observed:
    """Single steps of a layer and direction of the source, N of them."""

    x: Array
    """(N, I)"""
    state: tuple[Array, ...]
    """Before: h (N, P), and of an LSTM c (N, H)."""
    new: tuple[Array, ...]
    """After."""
    bounds: tuple[Array, ...]
    """How far the new state may be from the exact one."""

    def rows(self, begin: int, end: int) -> Observed:
        """Some of the steps."""
        x, *rest = (
            tuple(a[begin:end] for a in arrays)
            for arrays in ((self.x,), self.state, self.new, self.bounds)
        )
        return Observed(x[0], *rest)

    def and_those_of(self, other: Observed) -> Observed:
        """These steps and more."""
        x, *rest = (
            tuple(np.concatenate(pair) for pair in zip(ours, theirs, strict=True))
            for ours, theirs in (
                ((self.x,), (other.x,)),
                (self.state, other.state),
                (self.new, other.new),
                (self.bounds, other.bounds),
            )
        )
        return Observed(x[0], *rest)

    def misfit(self, cell: Cell, units: slice = slice(None)) -> float:
        """The largest distance of a cell's new states from these, as a part of what is allowed."""
        new = new_state(cell.step(self.x, self.state))
        ratios = [
            difference(a[:, units], b[:, units]) / bound[:, units]
            for a, b, bound in zip(new, self.new, self.bounds, strict=True)
        ]
        return max(float(np.max(ratio, initial=0.0)) for ratio in ratios)

    def explained_by(self, cell: Cell) -> bool:
        """Whether a cell gives these new states."""
        return self.misfit(cell) <= 1
