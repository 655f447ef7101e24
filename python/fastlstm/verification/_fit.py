"""The weights with which a cell gives what the source gave, by least squares.

A gate of a unit is a function of one sum, w . x + r . h + b. Where only the weights of one gate of
a unit are wrong, or those of all its gates, they can be measured: enough single steps from random
inputs and states say what they have to be. There are several steps for each weight, so that a fit
that is exact to rounding is no coincidence. Method: Gauss and Newton, damped (Levenberg and
Marquardt), from the layer's own weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ._cells import Cell, Observed
from ._results import Array

_OVERDETERMINED = 3  # steps for each weight
_MOST_ITERATIONS = 60
_ENOUGH = 0.9  # of the sum of squares left by an iteration: the next ones would not change much
_NUDGE = 1e-5  # of a bias, to see what its gate does


@dataclass(frozen=True)
class _Term:
    """Weights that enter one sum: features (N, M) times these values of the cell's arrays."""

    bias: tuple[str, int]
    """What stands for the sum: a value of b_W or b_R, by field and row."""
    features: Array
    where: list[tuple[str, tuple[int, ...]]]
    """For each feature the field and index of its weight."""


def fit(
    cell: Cell,
    known: Observed,
    more: Callable[[int], Observed],
    value: str,
    shown: int,
    suffix: str,
) -> tuple[str, Cell] | None:
    """Find weights of one unit, or of the projection, that explain what the source gave.

    Parameters
    ----------
    known : Observed
        Single steps that a fit must explain, beside those that it is made from.
    more : callable
        Makes this many random single steps.
    value, shown
        Which value differs, and in which unit.
    suffix : str
        Of the names of these weights, for the text.

    Returns
    -------
    tuple, optional
        What is to be changed, and the cell after that.
    """
    if known.misfit(cell, slice(shown, shown + 1)) <= 1:  # nothing is wrong with this unit
        return None
    zeros = np.zeros(len(cell.weights["W"]))
    cell = cell.with_weights(**{b: cell.weights.get(b, zeros) for b in ("b_W", "b_R")})
    weights = cell.weights["W"].shape[1] + cell.weights["R"].shape[1] + 3
    data = more(_OVERDETERMINED * max(weights, cell.hidden_size))
    projected = "W_hr" in cell.weights and value == "h"
    if projected:
        found = _projection(cell, data, known, shown)
        if found is not None:
            return f"other weights in row {shown} of weight_hr{suffix} (measured)", found
    wide = cell.gate_seen_by_all if value == "h" else None
    attempts = [] if projected else [(shown, gate) for gate in cell.gates if gate != wide]
    if wide is not None:
        attempts.append((_unit_of(cell, wide, data), wide))
    best = None
    for unit, gate in attempts:
        outputs = slice(None) if gate == wide else slice(unit, unit + 1)
        fitted = _least_squares(cell, data, unit, (gate,), outputs)
        misfit = max(o.misfit(fitted, outputs) for o in (known, data))
        if misfit <= 1 and (best is None or misfit < best[0]):
            best = misfit, _text(cell, fitted, unit, (gate,), suffix), fitted
    if best is not None:
        return best[1:]
    if wide is not None or len(cell.gates) == 1:
        return None
    data = more(_OVERDETERMINED * weights * len(cell.gates))
    outputs = slice(shown, shown + 1)
    fitted = _least_squares(cell, data, shown, cell.gates, outputs)
    if max(o.misfit(fitted, outputs) for o in (known, data)) > 1:
        return None
    return _text(cell, fitted, shown, cell.gates, suffix), fitted


def _text(cell: Cell, fitted: Cell, unit: int, gates: tuple[str, ...], suffix: str) -> str:
    """Which weights are not the same, as far as they could be measured."""
    moved = []
    for field, name in cell.names.items():
        old, new = cell.weights[field], fitted.weights[field]
        moved += [
            (abs(new[n] - old[n]), field, name, n) for n in map(tuple, np.argwhere(new != old))
        ]
    largest = max(size for size, *_ in moved)
    moved = [m for m in moved if m[0] > 0.02 * largest]
    if len(moved) == 1:
        _, field, name, index = moved[0]
        old, new = (c.weights[field][index] for c in (cell, fitted))
        text = f"{name}{suffix}{[int(n) for n in index]}"
        if field == "b_W" and not (cell.kind == "GRU" and cell.reset_after and gates == ("n",)):
            other = cell.weights["b_R"][index]
            old, new, text = old + other, new + other, f"{text} + bias_hh{suffix}[{index[0]}]"
        return f"{text} is {old:.6g}, in the source about {new:.6g} (measured)"
    fields = ", ".join(dict.fromkeys(f"{name}{suffix}" for _, _, name, _ in moved))
    gate = f"gate {gates[0]}" if len(gates) == 1 else f"gates {', '.join(gates)}"
    return f"other weights of {gate} of unit {unit}, in {fields} (measured)"


def _terms(cell: Cell, data: Observed, unit: int, gates: tuple[str, ...]) -> Iterator[_Term]:
    step = cell.step(data.x, data.state)
    h, one = data.state[0], np.ones((len(data.x), 1))
    I, P = data.x.shape[1], h.shape[1]
    for gate in gates:
        row = cell.row(gate, unit)
        W = [("W", (row, j)) for j in range(I)]
        R = [("R", (row, j)) for j in range(P)]
        b_W, b_R = ("b_W", row), ("b_R", row)
        if cell.kind == "GRU" and gate == "n":
            seen = h if cell.reset_after else step.r * h
            yield _Term(b_W, np.hstack([data.x, one]), [*W, ("b_W", (row,))])
            bias = [("b_R", (row,))] if cell.reset_after else []
            yield _Term(b_R, np.hstack([seen, one][: 1 + len(bias)]), [*R, *bias])
            continue
        features, where = [data.x, h, one], [*W, *R, ("b_W", (row,))]
        if "p" in cell.weights and gate in "ifo":
            c = step.c_new if gate == "o" else data.state[1]
            features.append(c[:, unit : unit + 1])
            where.append(("p", ("ifo".index(gate) * cell.hidden_size + unit,)))
        yield _Term(b_W, np.hstack(features), where)


def _least_squares(
    cell: Cell, data: Observed, unit: int, gates: tuple[str, ...], outputs: slice
) -> Cell:
    """Change the weights of these gates of a unit until the results are the source's."""
    damping = 1e-4
    rest = _residuals(cell, data, outputs)
    for _ in range(_MOST_ITERATIONS):
        terms = list(_terms(cell, data, unit, gates))
        slopes = [_slope(cell, data, term.bias, outputs) for term in terms]
        A = np.block(
            [
                [
                    a.features.T @ ((s_a * s_b).sum(axis=1)[:, None] * b.features)
                    for b, s_b in zip(terms, slopes, strict=True)
                ]
                for a, s_a in zip(terms, slopes, strict=True)
            ]
        )
        if not np.trace(A) > 0:  # nothing that these weights do is seen
            return cell
        right = np.concatenate(
            [t.features.T @ (s * rest).sum(axis=1) for t, s in zip(terms, slopes, strict=True)]
        )
        where = [place for term in terms for place in term.where]
        before = float((rest**2).sum())
        while damping < 1e6:
            damped = A + damping * np.diag(np.diag(A)) + 1e-14 * np.trace(A) * np.eye(len(A))
            moved = _moved(cell, where, np.linalg.solve(damped, right))
            new_rest = _residuals(moved, data, outputs)
            after = float((new_rest**2).sum())
            if after < before:
                break
            damping *= 10
        else:
            return cell
        cell, rest, damping = moved, new_rest, max(damping / 10, 1e-12)
        if after > _ENOUGH * before:
            break
    return cell


def _residuals(cell: Cell, data: Observed, outputs: slice) -> Array:
    """What is missing in the results, (N, number of them)."""
    new = cell.new_state(data.x, data.state)
    return np.hstack([(b - a)[:, outputs] for a, b in zip(new, data.new, strict=True)])


def _slope(cell: Cell, data: Observed, bias: tuple[str, int], outputs: slice) -> Array:
    """How the results change with a sum."""
    field, row = bias
    up, down = (_moved(cell, [(field, (row,))], np.array([nudge])) for nudge in (_NUDGE, -_NUDGE))
    return (_residuals(down, data, outputs) - _residuals(up, data, outputs)) / (2 * _NUDGE)


def _moved(cell: Cell, where: list[tuple[str, tuple[int, ...]]], by: Array) -> Cell:
    arrays = {field: cell.weights[field].copy() for field in {f for f, _ in where}}
    for (field, index), amount in zip(where, by, strict=True):
        arrays[field][index] += amount
    return cell.with_weights(**arrays)


def _unit_of(cell: Cell, gate: str, data: Observed) -> int:
    """The unit whose gate explains most of the difference: to first order, step by step."""
    rest = _residuals(cell, data, slice(None))
    left = []
    for unit in range(cell.hidden_size):
        slope = _slope(cell, data, ("b_W", cell.row(gate, unit)), slice(None))
        along = (slope * rest).sum(axis=1) / np.maximum((slope**2).sum(axis=1), 1e-30)
        left.append(float(((rest - along[:, None] * slope) ** 2).sum()))
    return int(np.argmin(left))


def _projection(cell: Cell, data: Observed, known: Observed, shown: int) -> Cell | None:
    """Other weights of the projection of one value of h."""
    m = cell.step(data.x, data.state).m
    row = np.linalg.lstsq(m, data.new[0][:, shown], rcond=None)[0]
    W_hr = np.array(cell.weights["W_hr"])
    W_hr[shown] = row
    fitted = cell.with_weights(W_hr=W_hr)
    outputs = slice(shown, shown + 1)
    return fitted if max(o.misfit(fitted, outputs) for o in (known, data)) <= 1 else None
