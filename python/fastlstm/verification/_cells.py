"""One layer and direction by itself, in float64: what the reference makes of its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastlstm import reference
from fastlstm._activations import Activation, as_activation
from fastlstm.interchange._gates import GATES

from ._results import Array, difference


@dataclass(frozen=True)
class Cell:
    """The equations and weights of one layer and direction."""

    kind: str
    activations: tuple[Activation, ...]
    weights: Mapping[str, Array]
    """Those that it has, by the reference's letters: W, R, b_W, ..."""
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
        return len(self.weights["W"]) // len(self.gates)

    @property
    def gate_seen_by_all(self) -> str | None:
        """The gate of which each unit reaches all values of h within the step: through a matrix."""
        if self.kind == "GRU" and not self.reset_after:
            return "r"
        return "o" if "W_hr" in self.weights else None

    def row(self, gate: str, unit: int) -> int:
        """The row of a gate and unit in W, R and the biases."""
        return self.gates.index(gate) * self.hidden_size + unit

    @property
    def names(self) -> dict[str, str]:
        """How its weights are called in layers, without "_l0" and so on."""
        parameters = reference.CELLS[self.kind].parameters
        return {p.field: p.name for p in parameters if p.field in self.weights}

    def with_weights(self, **weights: Array | None) -> Cell:
        """The same with other arrays for some weights, by their letters; None takes one away."""
        there = {**self.weights, **weights}
        return replace(self, weights={n: w for n, w in there.items() if w is not None})

    @np.errstate(over="ignore", invalid="ignore")
    def step(self, x: Array, state: tuple[Array, ...]) -> Any:
        """Compute one step: the reference's LSTMStep, GRUStep or RNNStep."""
        cell = reference.CELLS[self.kind]
        functions: Any = self.activations
        more: dict[str, Any]
        if self.kind == "LSTM":
            more = {"options": reference.LSTMOptions(functions, self.clip, self.input_forget)}
        elif self.kind == "GRU":
            options = reference.GRUOptions(functions, self.clip)
            more = {"options": options, "reset_after": self.reset_after}
        else:
            more = {"options": reference.RNNOptions(functions[0], self.clip)}
        parts = dict(zip(cell.state, state, strict=True))
        return cell.step(x=x, **parts, **self.weights, **more)

    def new_state(self, x: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        """Compute the state after one step."""
        step = self.step(x, state)
        return tuple(getattr(step, part) for part in reference.CELLS[self.kind].state)


def cell_of(layer: Any, k: int, direction: int) -> Cell:
    """Take layer k of a stack in one direction."""
    kind = type(layer).__name__
    names = {p.field: p.full_name(k, direction) for p in reference.CELLS[kind].parameters}
    params = layer.params
    return Cell(
        kind,
        tuple(as_activation("activations", name) for name in layer.activations),
        {
            field: np.asarray(params[name], np.float64)
            for field, name in names.items()
            if name in params
        },
        np.inf if layer.clip is None else layer.clip,
        getattr(layer, "input_forget", False),
        getattr(layer, "reset_after", True),
    )


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
        new = cell.new_state(self.x, self.state)
        ratios = [
            difference(a[:, units], b[:, units]) / bound[:, units]
            for a, b, bound in zip(new, self.new, self.bounds, strict=True)
        ]
        return max(float(np.max(ratio, initial=0.0)) for ratio in ratios)

    def explained_by(self, cell: Cell) -> bool:
        """Whether a cell gives these new states."""
        return self.misfit(cell) <= 1
