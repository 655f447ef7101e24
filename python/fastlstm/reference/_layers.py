"""What is around a cell, whatever the cell: parameter names, layers, directions, lengths and masks.

Nothing here knows the equations of a cell. A cell brings two functions that walk through time in
one direction of one layer, `ForwardWalk` and `BackwardWalk`. This module checks all that comes from
outside, then calls them for every layer and direction.

T time steps, B batch, I input size, H hidden size, L layers, D directions, P width of h.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_array

State: TypeAlias = tuple[Array, ...]  # (h, c) for the LSTM
Lengths: TypeAlias = npt.NDArray[np.intp]
RecordT = TypeVar("RecordT")


class Weights(NamedTuple):
    """The parameters of one layer and direction, or their gradients. None: it has no such one."""

    W: Array
    R: Array
    b_W: Array | None = None
    b_R: Array | None = None
    W_hr: Array | None = None
    p: Array | None = None  # peepholes of i, f, o
    # Layer normalisation: gains for W x, R h and c, and the bias for c
    n_W: Array | None = None
    n_R: Array | None = None
    n_c: Array | None = None
    b_c: Array | None = None


# Field of Weights -> PyTorch's name, to which "_l0", "_l0_reverse", "_l1", ... is added.
PARAMETER_NAMES = {
    "W": "weight_ih",
    "R": "weight_hh",
    "b_W": "bias_ih",
    "b_R": "bias_hh",
    "W_hr": "weight_hr",
    "p": "weight_peephole",
    "n_W": "weight_ln_ih",
    "n_R": "weight_ln_hh",
    "n_c": "weight_ln_c",
    "b_c": "bias_ln_c",
}

# (weights, x (T, B, I), initial state (B, .), lengths (B,), whether to go backward in time)
# -> output (T, B, P), final state (B, .), and a record of the walk.
ForwardWalk: TypeAlias = Callable[
    [Weights, Array, State, Lengths, bool], tuple[Array, State, RecordT]
]
# (weights, record, d_output (T, B, P), gradients of the final state (B, .))
# -> d_x (T, B, I), gradients of the initial state (B, .), gradients of the weights.
BackwardWalk: TypeAlias = Callable[[Weights, RecordT, Array, State], tuple[Array, State, Weights]]


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


@dataclass(frozen=True)
class Call:
    """The checked arguments of a forward call, in float64 and always with a batch axis."""

    weights: list[list[Weights]]  # [layer][direction]
    x: Array  # (T, B, I)
    state_names: tuple[str, ...]
    state: State  # each (L*D, B, .)
    lengths: Lengths  # (B,)
    reverse: bool
    masks: list[Array]  # [layer - 1]: (T, B, D*P), on what that layer reads; or empty
    batched: bool  # False: the caller's arrays have no batch axis

    def public(self, array: Array) -> Array:
        """Return an array whose axis 1 is the batch with the axes that the caller uses."""
        return array if self.batched else array[:, 0]


def read_call(
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: Sequence[npt.ArrayLike] | None,
    lengths: npt.ArrayLike | None,
    reverse: bool,
    masks: Sequence[npt.ArrayLike] | None,
    *,
    gates: int,
    state_names: tuple[str, ...],
) -> Call:
    """Check the arguments of a forward call.

    `gates` is how many blocks of H rows W and R stack. `state_names` is ``("h", "c")`` for the
    LSTM.
    """
    weights = _read_weights(params, gates)
    L, D = len(weights), len(weights[0])
    W, R = weights[0][0].W, weights[0][0].R
    H, P = R.shape[0] // gates, R.shape[1]
    if reverse and D == 2:
        raise ValueError("reverse: expected False for a bidirectional layer, got True")

    x = np.asarray(x, dtype=np.float64)
    batched = x.ndim != 2
    x = as_array("x", x, ("T", "B", W.shape[1]) if batched else ("T", W.shape[1]))
    if not batched:
        x = x[:, np.newaxis]
    T, B, _ = x.shape

    shapes: list[tuple[int, ...]] = [(L * D, B, P if name == "h" else H) for name in state_names]
    return Call(
        weights=weights,
        x=x,
        state_names=state_names,
        state=_read_state("state", state, [f"{name}_0" for name in state_names], shapes, batched),
        lengths=_read_lengths(lengths, T, B, batched),
        reverse=reverse,
        masks=_read_masks(masks, L, (T, B, D * P), batched),
        batched=batched,
    )


@np.errstate(over="ignore", invalid="ignore")  # NaN and infinity flow through silently
def layers_forward(
    call: Call, walk: ForwardWalk[RecordT]
) -> tuple[Array, State, list[list[RecordT]]]:
    """Run all layers. Each reads the output of the one below, of both directions side by side.

    Returns the output (T, B, D*P), the final states, each (L*D, B, .), and the record of each walk
    by layer and direction.
    """
    output = call.x
    final = tuple(np.empty_like(s) for s in call.state)
    records: list[list[RecordT]] = []
    for layer, directions in enumerate(call.weights):
        layer_input = output * call.masks[layer - 1] if layer > 0 and call.masks else output
        outputs: list[Array] = []
        records.append([])
        for direction, weights in enumerate(directions):
            row = layer * len(directions) + direction
            initial = tuple(s[row] for s in call.state)
            reverse = call.reverse or direction == 1
            y, last, record = walk(weights, layer_input, initial, call.lengths, reverse)
            for s, s_last in zip(final, last, strict=True):
                s[row] = s_last
            outputs.append(y)
            records[layer].append(record)
        output = np.concatenate(outputs, axis=-1)
    return output, final, records


@np.errstate(over="ignore", invalid="ignore")
def layers_backward(
    call: Call,
    walk: BackwardWalk[RecordT],
    records: list[list[RecordT]],
    d_output: npt.ArrayLike | None,
    d_state: Sequence[npt.ArrayLike] | None,
) -> Gradients:
    """Run all layers backward, the last one first: its d_x is the d_output of the one below.

    `d_output` and `d_state` have the caller's axes and are checked here; None is zeros.
    """
    T, B, _ = call.x.shape
    D, P = len(call.weights[0]), call.weights[0][0].R.shape[1]
    d_y = np.zeros((T, B, D * P))
    if d_output is not None:
        d_y = _read("d_output", d_output, d_y.shape, call.batched)
    names = [f"d_{name}_n" for name in call.state_names]
    shapes = [s.shape for s in call.state]
    d_final = _read_state("d_state", d_state, names, shapes, call.batched)

    d_initial = tuple(np.empty_like(s) for s in call.state)
    d_params: dict[str, Array] = {}
    for layer in reversed(range(len(call.weights))):
        d_x = np.zeros(())
        for direction, weights in enumerate(call.weights[layer]):
            row = layer * D + direction
            d_h = d_y[..., direction * P : (direction + 1) * P]
            d_last = tuple(s[row] for s in d_final)
            d_input, d_first, d_weights = walk(weights, records[layer][direction], d_h, d_last)
            d_x = d_x + d_input
            for s, s_first in zip(d_initial, d_first, strict=True):
                s[row] = s_first
            for field, gradient in d_weights._asdict().items():
                if gradient is not None:
                    d_params[_parameter_name(field, layer, direction)] = gradient
        d_y = d_x * call.masks[layer - 1] if layer > 0 and call.masks else d_x
    return Gradients(call.public(d_y), tuple(call.public(s) for s in d_initial), d_params)


def merge_directions(output: Array, merge: str, directions: int) -> Array:
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


def merge_directions_backward(d_output: npt.ArrayLike, merge: str, output: Array) -> npt.ArrayLike:
    """Return the gradient of what `merge_directions` merged."""
    if merge == "concat":
        return d_output
    one, other = np.split(output, 2, axis=-1)
    d = as_array("d_output", d_output, one.shape)
    if merge == "mul":
        return np.concatenate([d * other, d * one], axis=-1)
    return np.concatenate([d, d] if merge == "sum" else [d / 2, d / 2], axis=-1)


def _parameter_name(field: str, layer: int, direction: int) -> str:
    return f"{PARAMETER_NAMES[field]}_l{layer}{'_reverse' if direction == 1 else ''}"


def _read_weights(params: Mapping[str, npt.ArrayLike], gates: int) -> list[list[Weights]]:
    """Infer layers, directions, biases and projection from the names, then check every shape.

    The values are copied: what the caller does to them after forward must not reach backward.
    """
    L = max(1, sum(re.fullmatch(r"weight_ih_l\d+", name) is not None for name in params))
    D = 2 if any(name.endswith("_reverse") for name in params) else 1
    fields = ["W", "R"]
    if any(name.startswith("bias_") for name in params):
        fields += ["b_W", "b_R"]
    if any(name.startswith("weight_hr_") for name in params):
        fields += ["W_hr"]
    if any(name.startswith("weight_peephole_") for name in params):
        fields += ["p"]
    if gates == 4 and any(name.startswith("weight_ln_") for name in params):
        fields += ["n_W", "n_R", "n_c"] + (["b_c"] if "b_W" in fields else [])

    expected = {
        _parameter_name(field, layer, direction)
        for layer in range(L)
        for direction in range(D)
        for field in fields
    }
    missing, unknown = sorted(expected - set(params)), sorted(set(params) - expected)
    if missing or unknown:
        raise ValueError(f"params: missing {missing}, unknown {unknown}")

    rows, P = as_array("weight_hh_l0", params["weight_hh_l0"], (f"{gates}H", "P")).shape
    H = rows // gates
    shapes: dict[str, tuple[int | str, ...]] = {
        "W": (gates * H, "I"),
        "R": (gates * H, P if "W_hr" in fields else H),
        "b_W": (gates * H,),
        "b_R": (gates * H,),
        "W_hr": (P, H),
        "p": (3 * H,),
        "n_W": (gates * H,),
        "n_R": (gates * H,),
        "n_c": (H,),
        "b_c": (H,),
    }
    weights: list[list[Weights]] = []
    for layer in range(L):
        weights.append([])
        for direction in range(D):
            values: dict[str, Array] = {}
            for field in fields:
                name = _parameter_name(field, layer, direction)
                values[field] = as_array(name, params[name], shapes[field]).copy()
            weights[layer].append(Weights(**values))
            shapes["W"] = (gates * H, values["W"].shape[1])  # both directions read the same input
        shapes["W"] = (gates * H, D * P)  # the next layer reads the output of this one
    return weights


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
    broadcast: list[Array] = []
    for k, mask in enumerate(masks):
        array = np.asarray(mask, dtype=np.float64)
        try:
            array = np.broadcast_to(array, public_shape)
        except ValueError:
            message = f"masks[{k}]: expected {public_shape} or what broadcasts to it"
            raise ValueError(f"{message}, got {array.shape}") from None
        broadcast.append(array.copy().reshape(shape))
    return broadcast
