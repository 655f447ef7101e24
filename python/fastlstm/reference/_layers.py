"""What is around a cell, whatever the cell: time, layers, directions, lengths, masks and tapes.

Nothing here knows the equations of a cell. A :class:`._cell.Cell` brings a step forward and a step
backward, with the names of its state's parts and of its parameters. This module checks all that
comes from outside, then walks through time with it in every layer and direction.

T time steps, B batch, I input size, L layers, D directions, P width of the output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array
from ._cell import Cell, State, TraceT, Weights, read_weights
from ._masks import broadcast, read_step_masks

Lengths: TypeAlias = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Gradients:
    """The gradients of a loss, each with the shape of what it is the gradient of.

    Attributes
    ----------
    x : ndarray
        Like the input. Zero past a sequence's end.
    state : tuple of ndarray
        Like the initial state: ``(d_h_0, d_c_0)`` for the LSTM.
    params : dict of str to ndarray
        Like the parameters, by name.
    """

    x: Array
    state: State
    params: dict[str, Array]


class _Visit(NamedTuple):
    """One step of a walk: all that the step backward needs."""

    t: int
    rows: npt.NDArray[np.intp]  # the rows of the batch that took part
    x: Array
    state: dict[str, Array]  # before the step, by part
    step: Any  # what the step returned
    masks: Any


@dataclass(frozen=True)
class Call:
    """The checked arguments of a forward call, in float64 and always with a batch axis."""

    cell: Cell[Any]
    options: Mapping[str, Any]  # more arguments of the cell's steps
    weights: list[list[Weights]]  # [layer][direction]
    x: Array  # (T, B, I)
    state: dict[str, Array]  # by part, each (L*D, B, .)
    H: int
    lengths: Lengths  # (B,)
    reverse: bool
    masks: list[Array]  # [layer - 1]: (T, B, D*P), on what that layer reads; or empty
    step_masks: dict[str, Array]  # by field of the cell's masks: (L*D, T, B, .)
    merge: str
    batched: bool  # False: the caller's arrays have no batch axis

    def public(self, array: Array) -> Array:
        """Return an array whose axis 1 is the batch with the axes that the caller uses."""
        return array if self.batched else array[:, 0]


@dataclass(frozen=True)
class Tape(Generic[TraceT]):
    """What a forward pass leaves for the backward pass, and for looking inside.

    Attributes
    ----------
    traces : list of list of NamedTuple
        ``traces[layer][direction]``.
    """

    traces: list[list[TraceT]]
    _call: Call = field(repr=False)
    _visits: list[list[list[_Visit]]] = field(repr=False)  # [layer][direction][step]
    _output: Array = field(repr=False)  # of both directions, before they are merged


TapeT = TypeVar("TapeT", bound=Tape[Any])


def read_call(
    cell: Cell[Any],
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: Sequence[npt.ArrayLike] | None,
    *,
    lengths: npt.ArrayLike | None,
    reverse: bool,
    masks: Sequence[npt.ArrayLike] | None,
    merge: str,
    step_masks: Mapping[str, npt.ArrayLike | None],
    options: Mapping[str, Any],
) -> Call:
    """Check the arguments of a forward call.

    Parameters
    ----------
    cell : Cell
        What runs.
    params, x, state, lengths, reverse, masks, merge
        As of :func:`fastlstm.reference.lstm_forward`.
    step_masks : mapping
        Regularisation by the fields of the cell's masks.
    options : mapping
        More arguments of the cell's steps.
    """
    weights, sizes = read_weights(cell, params)
    L, D = len(weights), len(weights[0])
    I = weights[0][0][cell.parameters[0].field].shape[1]
    if reverse and D == 2:
        raise ValueError("reverse: expected False for a bidirectional layer, got True")

    x = np.asarray(x, dtype=np.float64)
    batched = x.ndim != 2
    x = as_array("x", x, ("T", "B", I) if batched else ("T", I))
    if not batched:
        x = x[:, np.newaxis]
    T, B, _ = x.shape

    names = [f"{part}_0" for part in cell.state]
    shapes: list[tuple[int, ...]] = [(L * D, B, sizes[size]) for size in cell.state.values()]
    parts = _read_state("state", state, names, shapes, batched)
    initial = dict(zip(cell.state, parts, strict=True))
    return Call(
        cell=cell,
        options=options,
        weights=weights,
        x=x,
        state=initial,
        H=sizes["H"],
        lengths=_read_lengths(lengths, T, B, batched),
        reverse=reverse,
        masks=_read_masks(masks, L, (T, B, D * initial[cell.output].shape[2]), batched),
        step_masks=read_step_masks(step_masks, initial, T),
        merge=merge,
        batched=batched,
    )


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity flow through silently
def forward(call: Call, tape: type[TapeT]) -> tuple[Array, State, TapeT]:
    """Run all layers. Each reads the output of the one below, of both directions side by side.

    Parameters
    ----------
    call : Call
        From `read_call`.
    tape : type
        The class of the tape to make.

    Returns
    -------
    output : ndarray of float64, shape (T, B, D*P)
    state : tuple of ndarray
        The parts of the final state, each (L*D, B, .).
    tape
        For `backward`.
    """
    cell = call.cell
    output = call.x
    final = {part: np.empty_like(s) for part, s in call.state.items()}
    traces: list[list[Any]] = []
    visits: list[list[list[_Visit]]] = []
    for layer, directions in enumerate(call.weights):
        layer_input = output * call.masks[layer - 1] if layer > 0 and call.masks else output
        outputs: list[Array] = []
        traces.append([])
        visits.append([])
        for direction in range(len(directions)):
            row = layer * len(directions) + direction
            last, trace, walk = _walk_forward(call, layer, direction, layer_input)
            for part, s in final.items():
                s[row] = last[part]
            outputs.append(trace[cell.output])
            traces[layer].append(
                cell.trace(**{name: call.public(values) for name, values in trace.items()})
            )
            visits[layer].append(walk)
        output = np.concatenate(outputs, axis=-1)
    merged = _merge_directions(output, call.merge, len(call.weights[0]))
    return (
        call.public(merged),
        tuple(call.public(s) for s in final.values()),
        tape(traces, call, visits, call.public(output)),
    )


@np.errstate(over="ignore", invalid="ignore")
def backward(
    tape: Tape[Any],
    d_output: npt.ArrayLike | None,
    d_state: Sequence[npt.ArrayLike] | None,
) -> Gradients:
    """Run all layers backward, the last one first: its d_x is the d_output of the one below.

    `d_output` and `d_state` have the caller's axes; None is zeros.
    """
    call, cell = tape._call, tape._call.cell
    T, B, _ = call.x.shape
    D, P = len(call.weights[0]), call.state[cell.output].shape[2]
    d_y = np.zeros((T, B, D * P))
    if d_output is not None:
        d_output = _merge_directions_backward(d_output, call.merge, tape._output)
        d_y = _read("d_output", d_output, d_y.shape, call.batched)
    names = [f"d_{part}_n" for part in cell.state]
    shapes = [s.shape for s in call.state.values()]
    d_final = _read_state("d_state", d_state, names, shapes, call.batched)

    d_initial = tuple(np.empty_like(s) for s in d_final)
    d_params: dict[str, Array] = {}
    for layer in reversed(range(len(call.weights))):
        d_x = np.zeros(())
        for direction in range(D):
            row = layer * D + direction
            d_h = d_y[..., direction * P : (direction + 1) * P]
            d_last = dict(zip(cell.state, (s[row] for s in d_final), strict=True))
            walk = tape._visits[layer][direction]
            weights = call.weights[layer][direction]
            d_input, d_first, d_weights = _walk_backward(call, weights, walk, d_h, d_last)
            d_x = d_x + d_input
            for s, part in zip(d_initial, cell.state, strict=True):
                s[row] = d_first[part]
            for parameter in cell.parameters:
                if parameter.field in d_weights:
                    d_params[parameter.full_name(layer, direction)] = d_weights[parameter.field]
        d_y = d_x * call.masks[layer - 1] if layer > 0 and call.masks else d_x
    return Gradients(call.public(d_y), tuple(call.public(s) for s in d_initial), d_params)


def _walk_forward(
    call: Call, layer: int, direction: int, x: Array
) -> tuple[dict[str, Array], dict[str, Array], list[_Visit]]:
    """Walk through time in one direction of one layer.

    A row of the batch takes part in step t only while t is inside its sequence; otherwise its state
    stays as it is. Forward in time, this keeps the state of the sequence's end. Backward in time,
    it keeps the initial state until the sequence's end is reached.

    Returns the final state by part, each (B, .), the trace by name, each (T, B, .), and the visits.
    """
    cell, weights = call.cell, call.weights[layer][direction]
    T, B, _ = x.shape
    row = layer * len(call.weights[layer]) + direction
    state = {part: s[row].copy() for part, s in call.state.items()}
    widths = {part: s.shape[1] for part, s in state.items()}
    trace = {name: np.zeros((T, B, widths.get(name, call.H))) for name in cell.trace._fields}
    visits: list[_Visit] = []
    for t in reversed(range(T)) if call.reverse or direction == 1 else range(T):
        rows = np.flatnonzero(t < call.lengths)
        before = {part: s[rows] for part, s in state.items()}
        masks = cell.masks(**{name: m[row, t, rows] for name, m in call.step_masks.items()})
        step = cell.step(x=x[t, rows], **before, **weights, masks=masks, **call.options)
        for part, s in state.items():
            s[rows] = getattr(step, part)
        for name, values in trace.items():
            values[t, rows] = getattr(step, name)
        visits.append(_Visit(t, rows, x[t, rows], before, step, masks))
    return state, trace, visits


def _walk_backward(
    call: Call, weights: Weights, visits: list[_Visit], d_output: Array, d_state: dict[str, Array]
) -> tuple[Array, dict[str, Array], Weights]:
    """Backpropagation through time: make the visits again, the last one first.

    The gradients of the state go from visit to visit as the state did. Those of the weights are
    summed, as all visits used the same weights.

    Returns d_x (T, B, I), the gradients of the initial state by part, and those of the weights.
    """
    cell, parameters = call.cell, [p for p in call.cell.parameters if p.field in weights]
    T, B, _ = d_output.shape
    d_state = {part: d.copy() for part, d in d_state.items()}
    d_x = np.zeros((T, B, weights[parameters[0].field].shape[1]))
    d_weights = {p.field: np.zeros_like(weights[p.field]) for p in parameters}
    read = {p.field: weights[p.field] for p in parameters if p.read_backward}
    for t, rows, x, before, step, masks in reversed(visits):
        d_new = {f"d_{part}": d[rows] for part, d in d_state.items()}
        d_new[f"d_{cell.output}"] = d_new[f"d_{cell.output}"] + d_output[t, rows]
        d = cell.step_backward(step, x=x, **before, **read, **d_new, masks=masks, **call.options)
        d_x[t, rows] = d.d_x
        for part, d_part in d_state.items():
            d_part[rows] = getattr(d, f"d_{part}")
        for p in parameters:
            d_weights[p.field] += getattr(d, p.gradient or f"d_{p.field}")
    return d_x, d_state, d_weights


def _read(name: str, value: npt.ArrayLike, shape: tuple[int, ...], batched: bool) -> Array:
    """Return the caller's array in `shape`, whose axis 1 is the batch that it may not have."""
    if batched:
        return as_array(name, value, shape)
    return as_array(name, value, shape[:1] + shape[2:])[:, np.newaxis]


def _read_state(
    argument: str,
    value: Sequence[npt.ArrayLike] | None,
    names: list[str],
    shapes: list[tuple[int, ...]],
    batched: bool,
) -> State:
    if value is None:
        return tuple(np.zeros(shape) for shape in shapes)
    if len(value) != len(names):
        raise ValueError(f"{argument}: expected ({', '.join(names)}), got {len(value)} arrays")
    return tuple(
        _read(name, array, shape, batched)
        for name, array, shape in zip(names, value, shapes, strict=True)
    )


def _read_lengths(lengths: npt.ArrayLike | None, T: int, B: int, batched: bool) -> Lengths:
    if lengths is None:
        return np.full(B, T, dtype=np.intp)
    if not batched:
        raise ValueError("lengths: expected None for a single sequence without a batch axis")
    values = np.asarray(lengths)
    if values.dtype.kind not in "iu":
        raise TypeError(f"lengths: expected integers, got {values.dtype}")
    if values.shape != (B,):
        raise ValueError(f"lengths: expected ({B},), got {values.shape}")
    if np.any(values < 0) or np.any(values > T):
        raise ValueError(f"lengths: expected values from 0 to {T}, got {values.tolist()}")
    return values.astype(np.intp)


def _read_masks(
    masks: Sequence[npt.ArrayLike] | None, L: int, shape: tuple[int, ...], batched: bool
) -> list[Array]:
    """Broadcast each mask to a layer's output and copy it, as a caller may reuse its buffer."""
    if masks is None:
        return []
    if len(masks) != L - 1:
        raise ValueError(f"masks: expected {L - 1}, one between each two layers, got {len(masks)}")
    public_shape = shape if batched else shape[:1] + shape[2:]
    return [
        broadcast(f"masks[{k}]", mask, public_shape).reshape(shape) for k, mask in enumerate(masks)
    ]


def _merge_directions(output: Array, merge: str, directions: int) -> Array:
    """Make one of the outputs (..., D*P) of both directions, which stand side by side."""
    if merge not in ("concat", "sum", "mul", "ave"):
        raise ValueError(f"merge: expected concat, sum, mul or ave, got {merge!r}")
    if merge == "concat":
        return output
    if directions == 1:
        raise ValueError(f"merge: expected concat for one direction, got {merge!r}")
    one, other = np.split(output, 2, axis=-1)
    if merge == "mul":
        return one * other
    return one + other if merge == "sum" else (one + other) / 2


def _merge_directions_backward(d_output: npt.ArrayLike, merge: str, output: Array) -> npt.ArrayLike:
    """Return the gradient of what `_merge_directions` merged."""
    if merge == "concat":
        return d_output
    one, other = np.split(output, 2, axis=-1)
    d = as_array("d_output", d_output, one.shape)
    if merge == "mul":
        return np.concatenate([d * other, d * one], axis=-1)
    return np.concatenate([d, d] if merge == "sum" else [d / 2, d / 2], axis=-1)
