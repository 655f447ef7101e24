"""Where a layer and its source differ first: step, layer, direction, unit, then gate and cause.

A step of a layer is a function of its input and of the state before it. So every step of a sequence
can be asked for by itself: one call with T = 1, in which each row of the batch is a step, with the
state that our layer had before it. What differs there, in the lowest layer, is where both begin to
differ: nothing that went wrong before can reach it. This takes no knowledge of the source's inside,
and one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastlstm.interchange._gates import GATES
from fastlstm.layers import spec_of

from ._causes import Cause, find_cause, sequence_causes
from ._cells import Observed, cell_of
from ._pair import Compared, Pair
from ._results import Array, Inputs, trace


@dataclass(frozen=True)
class Difference:
    """The first place where a layer and its source differ."""

    inputs: str
    """The kind of inputs that shows it: the name of a :class:`Check`."""
    step: int
    """Its index in time. The first one is the first of its direction's walk through time."""
    row: int
    """Which sequence of the batch."""
    layer: int
    """0 for the lowest."""
    direction: int
    """0, or 1 for the second of two directions."""
    unit: int
    """The hidden unit."""
    gates: tuple[str, ...]
    """Those that differ in this step and unit. Where `cause` is None, those that can be at fault;
    none where each step by itself is the same, and only sequences differ."""
    shown_by: str
    """Which value shows it: ``"c[3]"`` or ``"h[3]"`` of this step, or the output's."""
    ours: float
    """This value in the layer."""
    theirs: float
    """This value in the source."""
    units: int
    """How many units differ in this step."""
    cause: str | None
    """What would make the layer the same as the source; None: not found."""


def locate(pair: Pair, compared: Compared) -> Difference:
    """Find the first difference, for inputs that show one."""
    inputs = compared.inputs
    T, B, _ = inputs.x.shape
    D = spec_of(pair.layer).directions
    steps = pair.compare(single_steps(pair.layer, inputs), (T, B))
    for k in range(pair.layer.num_layers):
        found = []
        for d in range(D):
            wrong = np.any([w[k * D + d].any(axis=-1) for w in steps.wrong[1:]], axis=0)
            order = walk(pair.layer, d, inputs)
            order = np.where(wrong.reshape(T, B) & (order >= 0), order, T)
            n = int(order.argmin())
            if order.flat[n] < T:
                found.append((int(order.flat[n]), d, n))
        if found:
            _, d, n = min(found)
            return _in_a_step(pair, steps, k, d, n, (T, B))
    return _in_sequences(pair, compared)


def walk(layer: Any, direction: int, inputs: Inputs) -> Array:
    """When a direction comes to each step (T, B), from 0; -1 for steps past a sequence's end."""
    T, B, _ = inputs.x.shape
    lengths = np.full(B, T) if inputs.lengths is None else inputs.lengths
    forward = np.broadcast_to(np.arange(T)[:, None], (T, B))
    order = lengths - 1 - forward if direction == 1 or layer.reverse else forward
    return np.where(forward < lengths, order, -1)


def single_steps(layer: Any, inputs: Inputs) -> Inputs:
    """Make a batch of T * B single steps of a batch of sequences."""
    T, B, I = inputs.x.shape
    traces = [cell for cells in trace(layer, inputs) for cell in cells]
    before = []
    for name, initial in zip(("h", "c"), inputs.state, strict=False):
        states = []
        for k, (cell, first) in enumerate(zip(traces, initial, strict=True)):
            direction = k % spec_of(layer).directions
            back = direction == 1 or layer.reverse
            order = walk(layer, direction, inputs)
            previous = np.roll(getattr(cell, name), -1 if back else 1, axis=0)
            states.append(np.where((order == 0)[..., None], first, previous))
        before.append(np.stack(states).reshape(len(initial), T * B, -1))
    return Inputs(inputs.name, inputs.x.reshape(1, T * B, I), tuple(before))


def observe(steps: Compared, k: int, d: int, D: int) -> Observed:
    """What one layer and direction of the source read and gave in single steps."""
    x = steps.inputs.x[0]
    if k > 0:  # the next layer reads what the one below gave
        x = np.concatenate(list(steps.theirs.state[0][(k - 1) * D : k * D]), axis=-1)
    cell = k * D + d
    return Observed(
        x.astype(np.float64),
        tuple(s[cell].astype(np.float64) for s in steps.inputs.state),
        tuple(s[cell].astype(np.float64) for s in steps.theirs.state),
        tuple(bound[cell] for bound in steps.bounds[1:]),
    )


def _in_a_step(
    pair: Pair, steps: Compared, k: int, d: int, n: int, shape: tuple[int, int]
) -> Difference:
    layer, D = pair.layer, spec_of(pair.layer).directions
    wrong = [w[k * D + d, n] for w in steps.wrong[1:]]
    first = [int(w.argmax()) if w.any() else len(w) for w in wrong]
    # c comes before h. With a projection their units are not the same ones.
    which = 0
    if len(wrong) > 1 and wrong[1].any():
        which = int(len(wrong[0]) != len(wrong[1]) or first[1] <= first[0])
    value, shown = "hc"[which], first[which]

    def more(rows: int) -> Observed:
        rng = np.random.default_rng(pair.seed + 1)
        dtype = steps.inputs.x.dtype
        x = rng.standard_normal((1, rows, layer.input_size)).astype(dtype)
        state = tuple(
            rng.uniform(-1, 1, (len(s), rows, s.shape[-1])).astype(dtype)
            for s in steps.inputs.state
        )
        return observe(pair.compare(Inputs("", x, state), (1, rows)), k, d, D)

    observed = observe(steps, k, d, D)
    cause = find_cause(pair, (k, d), observed, more, value, shown)
    unit, gates = shown, _possible(layer, value)
    if cause is not None:
        one = observed.rows(n, n + 1)
        unit, gates = _gates_that_differ(pair, cause, one, (k, d), value, shown)
    ours, theirs = (r.state[which][k * D + d, n, shown] for r in (steps.ours, steps.theirs))
    return Difference(
        inputs=steps.inputs.name,
        step=n // shape[1],
        row=n % shape[1],
        layer=k,
        direction=d,
        unit=unit,
        gates=gates,
        shown_by=f"{value}[{shown}]",
        ours=float(ours),
        theirs=float(theirs),
        units=int(wrong[which].sum()),
        cause=None if cause is None else cause.text,
    )


def _possible(layer: Any, value: str) -> tuple[str, ...]:
    """Which gates a wrong value can come from."""
    kind = type(layer).__name__
    if kind == "LSTM":
        return ("i", "f", "g") if value == "c" else ("o",)
    return GATES[kind]


def _gates_that_differ(
    pair: Pair, cause: Cause, one: Observed, place: tuple[int, int], value: str, shown: int
) -> tuple[int, tuple[str, ...]]:
    """The unit and its gates that are not the same, as both sides' cells compute them."""
    ours = cell_of(pair.layer, *place)
    steps = [cell.step(one.x, one.state) for cell in (ours, cause.cell)]
    apart = {g: np.abs(getattr(steps[0], g) - getattr(steps[1], g))[0] for g in ours.gates}
    least = max(pair.eps, 1e-3 * max(float(np.max(values)) for values in apart.values()))
    # A gate that reaches other units within the step has the difference in a unit of its own.
    wide = ours.gate_seen_by_all if value == "h" else None
    unit = shown
    if wide is not None and (apart[wide] > least).any():
        unit = int((apart[wide] > least).argmax())
    return unit, tuple(gate for gate, values in apart.items() if values[unit] > least)


def _in_sequences(pair: Pair, compared: Compared) -> Difference:
    """Each step by itself is the same: it is about order, lengths or how outputs are merged."""
    layer, inputs = pair.layer, compared.inputs
    D, K = spec_of(layer).directions, compared.ours.output.shape[1]
    wrong = compared.wrong[0]
    found = []
    for d in range(K):
        order = walk(layer, d, inputs)
        order = np.where(wrong[:, d].any(axis=-1), order, len(order))
        n = int(order.argmin())
        if order.flat[n] < len(order):
            found.append((int(order.flat[n]), d, *divmod(n, order.shape[1])))
    cause = sequence_causes(pair, compared)
    if found:
        _, d, t, b = min(found)
        unit = int(wrong[t, d, b].argmax())
        shown = f"output[{unit}]"
        ours, theirs = (float(r.output[t, d, b, unit]) for r in (compared.ours, compared.theirs))
        layer_index, units = layer.num_layers - 1, int(wrong[t, d, b].sum())
    else:  # only the final states
        which = next(n for n, w in enumerate(compared.wrong[1:]) if w.any())
        states = compared.wrong[1 + which]
        cell, b, unit = (int(n) for n in np.unravel_index(int(states.argmax()), states.shape))
        layer_index, d = divmod(cell, D)
        order = walk(layer, d, inputs)[:, b]
        t = int(order.argmax())
        shown = f"{'hc'[which]}_n[{unit}]"
        ours, theirs = (
            float(r.state[which][cell, b, unit]) for r in (compared.ours, compared.theirs)
        )
        units = int(states[cell, b].sum())
    return Difference(
        inputs=inputs.name,
        step=t,
        row=b,
        layer=layer_index,
        direction=d,
        unit=unit,
        gates=(),
        shown_by=shown,
        ours=ours,
        theirs=theirs,
        units=units,
        cause=cause,
    )
