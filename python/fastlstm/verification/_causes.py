"""Why a layer and its source differ: hypotheses, each tried on what the source really gave.

A hypothesis is a cell (:class:`._cells.Cell`), computed by the float64 reference. It is the cause
if its steps are the source's, within rounding, in all single steps that are known. Hypotheses:

0. The layer itself: its weights are right and its kernels are not.
1. The source as fastlstm reads it now; the layer was changed, or is of something else.
2. Mistakes that conversions make: gates in another order, missing or doubled biases, transposed
   weights, the reset before or after the product, other functions, no clipping, ...
3. Any other weights of one gate, or of all gates, of the unit: by least squares (:mod:`._fit`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastlstm._activations import Activation
from fastlstm.interchange._gates import PEEPHOLES, reordered
from fastlstm.layers import spec_of

from ._cells import Cell, Observed, cell_of
from ._fit import fit
from ._pair import Compared, Pair
from ._results import Results, difference, run_layer, trace

# Random single steps beside those that showed the difference, so that no hypothesis fits by chance.
_MORE_STEPS = 64

_FUNCTIONS = (
    *(Activation(name) for name in ("Sigmoid", "Tanh", "Relu", "Softsign", "Softplus")),
    *(Activation("HardSigmoid", alpha, 0.5) for alpha in (0.2, 1 / 6)),
    *(Activation("Affine", 1.0, 0.0), Activation("Elu", 1.0)),
    *(Activation("LeakyRelu", alpha) for alpha in (0.01, 0.2, 0.3)),
)
# What a layer takes as one function: where it stands among the cell's.
_PLACES: dict[str, dict[str, tuple[int, ...]]] = {
    "LSTM": {"gates": (0,), "g": (1,), "the output": (2,), "g and the output": (1, 2)},
    "GRU": {"r and z": (0,), "n": (1,)},
    "RNN": {"h": (0,)},
}


@dataclass(frozen=True)
class Cause:
    """A hypothesis that held."""

    text: str
    """What would make the layer the same as the source."""
    cell: Cell
    """The layer's cell after that."""


def find_cause(
    pair: Pair,
    place: tuple[int, int],
    observed: Observed,
    more: Callable[[int], Observed],
    value: str,
    shown: int,
) -> Cause | None:
    """Find what explains the difference of one layer and direction.

    Parameters
    ----------
    place : tuple of int
        The layer and direction.
    observed : Observed
        The single steps that showed the difference.
    more : callable
        Makes this many random single steps.
    value, shown
        Which value differs, ``"h"`` or ``"c"``, and in which unit.
    """
    cell = cell_of(pair.layer, *place)
    known = observed.and_those_of(more(_MORE_STEPS))
    if known.explained_by(cell):
        return Cause("fastlstm.reference gives with these weights what the source gave", cell)
    suffix = f"_l{place[0]}" + ("_reverse" if place[1] else "")
    mistake = next((c for c in mistakes(cell, pair.layer, place) if known.explained_by(c[1])), None)
    options, weights = option_changes(pair), weight_changes(pair, suffix)
    if options or weights:
        fresh = cell_of(pair.fresh, *place)
        if known.explained_by(fresh):
            if mistake is not None and not options:  # says more than a list of all weights
                return Cause(mistake[0], fresh)
            return Cause("; ".join(options + weights), fresh)
    if mistake is not None:
        return Cause(*mistake)
    fitted = fit(cell, known, more, value, shown, suffix)
    return None if fitted is None else Cause(*fitted)


# --- 1. the source as it is read now --------------------------------------------------------------


def option_changes(pair: Pair) -> list[str]:
    """Say which options are not as the reader makes them, of those that matter to results."""
    ours, theirs = spec_of(pair.layer).options, spec_of(pair.fresh).options
    return [
        f"{name} is {ours[name]!r}, in the source {value!r}"
        for name, value in theirs.items()
        if ours[name] != value and name not in ("batch_first", "dropout", "dtype")
    ]


def weight_changes(pair: Pair, suffix: str) -> list[str]:
    """Say which weights are not; of one layer and direction, or of all with an empty suffix."""
    texts = []
    for name, theirs in pair.fresh.params.items():
        ours = pair.layer.params.get(name)
        if not name.endswith(suffix) or ours is None:  # the option bias says that
            continue
        wrong = np.argwhere(~((ours == theirs) | (np.isnan(ours) & np.isnan(theirs))))
        if len(wrong):
            at = tuple(int(n) for n in wrong[0])
            count = f" ({len(wrong)} of {ours.size} values differ)" if len(wrong) > 1 else ""
            texts.append(
                f"{name}{list(at)} is {ours[at]:.6g}, in the source {theirs[at]:.6g}{count}"
            )
    return texts


# --- 2. mistakes of conversions -------------------------------------------------------------------


def mistakes(cell: Cell, layer: Any, place: tuple[int, int]) -> Iterator[tuple[str, Cell]]:
    """Cells that a mistake in a conversion would have to be repaired to."""
    yield from _orders(cell)
    yield from _biases(cell)
    yield from _transposed(cell)
    yield from _options(cell)
    if layer.bidirectional:
        k, d = place
        yield "the weights of the two directions exchanged", cell_of(layer, k, 1 - d)


def _orders(cell: Cell) -> Iterator[tuple[str, Cell]]:
    parts = {
        "": ("W", "R", "b_W", "b_R"),
        " of weight_ih": ("W",),
        " of weight_hh": ("R",),
        " of the biases": ("b_W", "b_R"),
        " of the peepholes": ("p",),
    }
    for part, fields in parts.items():
        gates = PEEPHOLES if part == " of the peepholes" else cell.gates
        there = {field: cell.weights[field] for field in fields if field in cell.weights}
        for order in itertools.permutations(range(len(gates))) if there else ():
            moved = [n for n in range(len(gates)) if order[n] != n]
            if not moved:
                continue
            wanted = [gates[n] for n in order]
            new = {field: reordered(value, gates, wanted) for field, value in there.items()}
            if len(moved) == 2:
                text = f"gates {gates[moved[0]]} and {gates[moved[1]]}{part} exchanged"
            else:
                text = f"the gates{part} in the order {', '.join(wanted)}"
            yield text, cell.with_weights(**new)


def _biases(cell: Cell) -> Iterator[tuple[str, Cell]]:
    if not {"b_W", "b_R"} <= cell.weights.keys():
        return
    b_W, b_R = cell.weights["b_W"], cell.weights["b_R"]
    yield "no bias_ih", cell.with_weights(b_W=None)
    yield "no bias_hh", cell.with_weights(b_R=None)
    yield "no biases", cell.with_weights(b_W=None, b_R=None)
    yield "biases twice as large", cell.with_weights(b_W=2 * b_W, b_R=2 * b_R)
    yield "biases half as large", cell.with_weights(b_W=b_W / 2, b_R=b_R / 2)
    yield "bias_ih and bias_hh exchanged", cell.with_weights(b_W=b_R, b_R=b_W)
    if cell.kind == "LSTM":
        forget = np.repeat([0.0, 1.0, 0.0, 0.0], cell.hidden_size)
        yield "1 added to the biases of the forget gate", cell.with_weights(b_W=b_W + forget)
        yield "1 taken from the biases of the forget gate", cell.with_weights(b_W=b_W - forget)


def _transposed(cell: Cell) -> Iterator[tuple[str, Cell]]:
    G = len(cell.gates)
    for field in ("R", "W"):
        blocks = np.split(cell.weights[field], G)
        if blocks[0].shape[0] == blocks[0].shape[1]:
            turned = np.concatenate([block.T for block in blocks])
            text = f"{cell.names[field]} of each gate transposed"
            yield text, cell.with_weights(**{field: turned})


def _options(cell: Cell) -> Iterator[tuple[str, Cell]]:
    if cell.kind == "GRU":
        before = {False: "after", True: "before"}[cell.reset_after]
        text = f"the reset gate {before} the product (reset_after={not cell.reset_after})"
        yield text, replace(cell, reset_after=not cell.reset_after)
    if cell.kind == "LSTM":
        text = f"input_forget={not cell.input_forget}"
        yield text, replace(cell, input_forget=not cell.input_forget)
    if np.isfinite(cell.clip):
        yield "no clip", replace(cell, clip=np.inf)
    for place, numbers in _PLACES[cell.kind].items():
        for function in _FUNCTIONS:
            functions = list(cell.activations)
            for n in numbers:
                functions[n] = function
            if tuple(functions) != cell.activations:
                text = f"{function.name} as the function of {place}"
                if function.name in ("HardSigmoid", "LeakyRelu"):
                    text = text.replace(" as", f" (alpha {function.alpha:.4g}) as")
                yield text, replace(cell, activations=tuple(functions))


# --- where each step by itself is the same --------------------------------------------------------


def sequence_causes(pair: Pair, compared: Compared) -> str | None:
    """Find why sequences differ although each of their steps does not."""
    layer, inputs = pair.layer, compared.inputs

    def same(results: Results) -> bool:
        """Whether these are the source's results."""
        pairs = zip(results.arrays(), compared.theirs.arrays(), compared.bounds, strict=True)
        wrong = [
            ours.shape != theirs.shape or difference(ours, theirs) > bound
            for ours, theirs, bound in pairs
        ]
        return not any(np.any(w) for w in (wrong[0] & compared.counts(), *wrong[1:]))

    texts = option_changes(pair) + weight_changes(pair, "")
    if texts and same(run_layer(pair.fresh, inputs)):
        return "; ".join(texts)
    if inputs.lengths is None:
        flipped = run_layer(layer, inputs._replace(x=inputs.x[::-1]))
        if same(flipped._replace(output=flipped.output[::-1])):
            return "sequences read from their other end (reverse)"
    elif same(run_layer(layer, inputs._replace(lengths=None))):
        return "lengths ignored"
    if layer.bidirectional:
        one, other = (cell.h for cell in trace(layer, inputs)[-1])
        merged = {
            "merge='sum'": (one + other)[:, None],
            "merge='mul'": (one * other)[:, None],
            "merge='ave'": ((one + other) / 2)[:, None],
            "the outputs of the two directions exchanged": np.stack([other, one], axis=1),
        }
        for text, output in merged.items():
            if same(compared.ours._replace(output=output)):
                return text
    return None
