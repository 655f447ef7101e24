"""The gated recurrent unit, explained and computed one step at a time.

A GRU keeps one vector, the hidden state h, and has three small networks that look at the input x
and at h:

.. code-block:: text

    r = sigmoid(W_r x + b_Wr + R_r h + b_Rr)      reset gate:  how much of h the candidate sees
    z = sigmoid(W_z x + b_Wz + R_z h + b_Rz)      update gate: how much of h to keep
    n = tanh(W_n x + b_Wn + r (R_n h + b_Rn))     candidate:   what to put in its place
    h' = (1 - z) n + z h

What the forget gate and the cell state are to the LSTM, z and h are here: with z near 1 a unit
passes its value, and its gradient, on from step to step almost unchanged.

The reset gate has two places. Above it acts *after* the product with R_n, as in PyTorch, cuDNN and
by default in Keras. In the first paper, and by default in ONNX, it acts *before*:

.. code-block:: text

    n = tanh(W_n x + b_Wn + R_n (r h) + b_Rn)

The two are different functions, and weights trained for one are of no use to the other.

As options, other functions may stand for sigmoid and for tanh, and their sums may be bounded to
[-clip, clip] before, as in :mod:`fastlstm.reference.lstm`. So is regularisation: with dropout of h
the products with R read a h of which some units are zero (before the product it is r times that),
but the h that z keeps is whole; with zoneout some units of h' keep the value of h.

References
----------
K. Cho et al.: Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine
Translation. EMNLP 2014.

Notes
-----
Letters as in :mod:`fastlstm.reference.lstm`. W and R stack the rows of r, z, n in this order, which
is PyTorch's. With the reset gate after the product b_Rn is multiplied by r, so that b_W and b_R are
not merely added, as they are otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm._activations import Activation

from ._arrays import Array, as_it_is
from ._cell import Cell, Parameter, read_step
from ._layers import Gradients, Tape, backward, forward, read_call
from ._masks import NO_MASKS, HiddenMasks, dropped, zoned_out, zoned_out_backward
from .activations import SIGMOID, TANH, clipped, clipped_slope


class GRUStep(NamedTuple):
    """All values of one step, each (B, H) but for a."""

    r: Array
    z: Array
    n: Array
    m: Array  # what R_n h, or R_n (r h), adds to the candidate's sum, before r acts on it
    h: Array
    a: Array  # (B, 3H) sums of r, z, n before they are clipped


class GRUOptions(NamedTuple):
    """What changes the equations; the defaults are those above."""

    activations: tuple[Activation, Activation] = (SIGMOID, TANH)
    """Of the gates r, z, and of the candidate n."""
    clip: float = np.inf
    """The bound of the sums."""


PLAIN = GRUOptions()


class GRUStepGradients(NamedTuple):
    """Gradients of a loss with respect to the arguments of one step, each in their shape."""

    d_x: Array
    d_h: Array
    d_W: Array
    d_R: Array
    d_b_W: Array
    d_b_R: Array


def gru_cell(
    x: npt.ArrayLike,
    h: npt.ArrayLike,
    W: npt.ArrayLike,
    R: npt.ArrayLike,
    b_W: npt.ArrayLike | None = None,
    b_R: npt.ArrayLike | None = None,
    *,
    reset_after: bool = True,
    options: GRUOptions = PLAIN,
    masks: HiddenMasks = NO_MASKS,
    read: Callable[[Array], Array] = as_it_is,
) -> GRUStep:
    """Compute one step of a GRU for a batch.

    Parameters
    ----------
    x : array_like, shape (B, I)
        Input of this step.
    h : array_like, shape (B, H)
        Hidden state before this step.
    W : array_like, shape (3H, I)
        Input weights, rows in the order r, z, n.
    R : array_like, shape (3H, H)
        Recurrent weights, rows in the same order.
    b_W, b_R : array_like, shape (3H,), optional
        Biases.
    reset_after : bool
        Whether the reset gate acts after the product with R_n.
    options : GRUOptions
        Other functions, clipping.
    masks : HiddenMasks
        Regularisation of this step.
    read : callable
        What rows go through on their way into a product, in :mod:`.low_precision`.

    Returns
    -------
    GRUStep
        The gates and the new state ``h``.

    Raises
    ------
    ValueError
        A shape does not fit.

    Examples
    --------
    One unit with an update gate near 1 remembers:

    >>> step = gru_cell(x=[[1.0]], h=[[0.5]], W=[[0.0], [20.0], [3.0]], R=np.zeros((3, 1)))
    >>> step.h.round(6)
    array([[0.5]])
    """
    (x, h, W, R), biases = read_step(
        CELL, {"x": x, "h": h, "W": W, "R": R}, {"b_W": b_W, "b_R": b_R}
    )
    b_W, b_R = (np.zeros(len(W)) if b is None else b for b in biases)
    W_r, W_z, W_n = np.split(W, 3)
    R_r, R_z, R_n = np.split(R, 3)
    b_Wr, b_Wz, b_Wn = np.split(b_W, 3)
    b_Rr, b_Rz, b_Rn = np.split(b_R, 3)

    gate, candidate = options.activations
    h_seen = dropped(masks.h, h)
    x_read, h_read = read(x), read(h_seen)
    a_r = x_read @ W_r.T + b_Wr + h_read @ R_r.T + b_Rr
    a_z = x_read @ W_z.T + b_Wz + h_read @ R_z.T + b_Rz
    r = clipped(gate, a_r, options.clip)
    z = clipped(gate, a_z, options.clip)
    if reset_after:
        m = h_read @ R_n.T + b_Rn
        a_n = x_read @ W_n.T + b_Wn + r * m
    else:
        m = read(r * h_seen) @ R_n.T + b_Rn
        a_n = x_read @ W_n.T + b_Wn + m
    n = clipped(candidate, a_n, options.clip)
    a = np.concatenate([a_r, a_z, a_n], axis=1)
    h_new = (1 - z) * n + z * h
    return GRUStep(r, z, n, m, h=zoned_out(masks.keep_h, h, h_new), a=a)


def gru_cell_backward(
    step: GRUStep,
    x: npt.ArrayLike,
    h: npt.ArrayLike,
    W: npt.ArrayLike,
    R: npt.ArrayLike,
    d_h: npt.ArrayLike,
    *,
    reset_after: bool = True,
    options: GRUOptions = PLAIN,
    masks: HiddenMasks = NO_MASKS,
) -> GRUStepGradients:
    """Compute the gradients of one step: the lines of `gru_cell` from the last to the first.

    Parameters
    ----------
    step : GRUStep
        What `gru_cell` returned for the arguments below.
    x, h, W, R, reset_after, options, masks
        The arguments of `gru_cell`. `h` is the state *before* the step. Biases are not needed.
    d_h : array_like, shape (B, H)
        Gradient of the loss with respect to the new state ``step.h``: what came from the output
        plus what the next step sent back.

    Returns
    -------
    GRUStepGradients
        ``d_h`` in it is with respect to the state before the step.

    Raises
    ------
    ValueError
        A shape does not fit.

    Examples
    --------
    With an update gate near 1, the gradient of the state passes unchanged:

    >>> x, h, W, R = [[1.0]], [[0.5]], [[0.0], [20.0], [3.0]], np.zeros((3, 1))
    >>> step = gru_cell(x, h, W, R)
    >>> gru_cell_backward(step, x, h, W, R, d_h=[[1.0]]).d_h.round(6)
    array([[1.]])
    """
    (x, h, W, R, d_h), _ = read_step(CELL, {"x": x, "h": h, "W": W, "R": R, "d_h": d_h}, {})
    r, z, n, m, _, a = step
    a_r, a_z, a_n = np.split(a, 3, axis=1)
    gate, candidate = options.activations
    R_n = np.split(R, 3)[2]

    h_read = dropped(masks.h, h)

    # Zoneout: h' = keep_h h + (1 - keep_h) h_new
    d_h_old, d_h_new = zoned_out_backward(masks.keep_h, d_h)
    # h_new = (1 - z) n + z h
    d_n = d_h_new * (1 - z)
    d_z = d_h_new * (h - n)
    d_h_old = d_h_old + d_h_new * z
    # n = tanh(a_n) and z = sigmoid(a_z), whose slopes are 1 - n^2 and z (1 - z)
    d_a_n = d_n * clipped_slope(candidate, a_n, options.clip)
    d_a_z = d_z * clipped_slope(gate, a_z, options.clip)
    if reset_after:  # a_n = W_n x + b_Wn + r m, m = R_n h_read + b_Rn
        d_r = d_a_n * m
        d_m = d_a_n * r
        d_h_read = d_m @ R_n
        seen = h_read  # what R_n is multiplied by
    else:  # a_n = W_n x + b_Wn + m, m = R_n (r h_read) + b_Rn
        d_m = d_a_n
        d_r = d_m @ R_n * h_read
        d_h_read = d_m @ R_n * r
        seen = r * h_read
    d_a_r = d_r * clipped_slope(gate, a_r, options.clip)
    # W x + b_W gets the gradients of r, z and n, R h + b_R those of r, z and m.
    d_from_x = np.concatenate([d_a_r, d_a_z, d_a_n], axis=1)
    d_from_h = np.concatenate([d_a_r, d_a_z, d_m], axis=1)
    d_rz = np.concatenate([d_a_r, d_a_z], axis=1)
    d_h_read = d_h_read + d_rz @ R[: len(R) - len(R_n)]
    return GRUStepGradients(
        d_x=d_from_x @ W,
        d_h=d_h_old + dropped(masks.h, d_h_read),
        d_W=d_from_x.T @ x,
        d_R=np.concatenate([d_rz.T @ h_read, d_m.T @ seen]),
        d_b_W=d_from_x.sum(axis=0),
        d_b_R=d_from_h.sum(axis=0),
    )


class GRUTrace(NamedTuple):
    """Every value over time of one layer and direction, for looking inside.

    Each (T, B, H); without a batch axis where the input has none. Values at time t are those that
    the step which read x[t] computed. They are zero past a sequence's end.
    """

    r: Array
    z: Array
    n: Array
    h: Array


# All that layers, directions and time need to know of these equations.
CELL = Cell(
    parameters=(
        Parameter("W", "weight_ih", ("3H", "I")),
        Parameter("R", "weight_hh", ("3H", "H")),
        Parameter("b_W", "bias_ih", ("3H",), ("bias",), read_backward=False),
        Parameter("b_R", "bias_hh", ("3H",), ("bias",), read_backward=False),
    ),
    state={"h": "H"},
    step=gru_cell,
    step_backward=gru_cell_backward,
    trace=GRUTrace,
    masks=HiddenMasks,
)


class GRUTape(Tape[GRUTrace]):
    """What `gru_forward` leaves for `gru_backward`, and for looking inside."""


def gru_forward(
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: npt.ArrayLike | None = None,
    *,
    lengths: npt.ArrayLike | None = None,
    reverse: bool = False,
    masks: Sequence[npt.ArrayLike] | None = None,
    reset_after: bool = True,
    options: GRUOptions = PLAIN,
    h_masks: npt.ArrayLike | None = None,
    keep_h: npt.ArrayLike | None = None,
    merge: str = "concat",
) -> tuple[Array, Array, GRUTape]:
    """Run a batch of sequences through all layers of a GRU.

    Parameters
    ----------
    params : mapping of str to array_like
        PyTorch's names: ``weight_ih_l0`` (3H, I), ``weight_hh_l0`` (3H, H), ``bias_ih_l0`` and
        ``bias_hh_l0`` (3H,), then ``..._l0_reverse``, ``..._l1`` and so on.
    state : array_like, shape (L*D, B, H), optional
        h_0. Zeros by default.
    x, lengths, reverse, masks
        As for :func:`fastlstm.reference.lstm_forward`.
    reset_after : bool
        Whether the reset gate acts after the product with R_n.
    options : GRUOptions
        Of all layers.
    h_masks : array_like, shape (L*D, B, H), optional
        Multiplied into the h that R reads, at all steps alike: recurrent dropout, with its scaling.
    keep_h : array_like, optional
        Zoneout: broadcasts to (L*D, T, B, H). 1 where a unit keeps its value; one number between 0
        and 1 is what inference uses.
    merge : {"concat", "sum", "mul", "ave"}
        As for :func:`fastlstm.reference.lstm_forward`.

    Returns
    -------
    output : ndarray of float64, shape (T, B, D*H)
        h of the last layer, both directions side by side; (T, B, H) where they are merged.
    state : ndarray of float64, shape (L*D, B, H)
        h_n.
    tape : GRUTape
        For `gru_backward`; ``tape.traces[layer][direction]`` has every value over time.

    Raises
    ------
    ValueError
        A name is missing or unknown, or a shape or a length does not fit.
    TypeError
        `lengths` are not integers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> params = {"weight_ih_l0": rng.normal(size=(6, 3)), "weight_hh_l0": rng.normal(size=(6, 2))}
    >>> output, h_n, tape = gru_forward(params, rng.normal(size=(5, 4, 3)), lengths=[5, 0, 3, 1])
    >>> output.shape, h_n.shape
    ((5, 4, 2), (1, 4, 2))
    >>> grads = gru_backward(tape, d_output=output)  # of the loss 0.5 * sum(output**2)
    >>> grads.x.shape, sorted(grads.params)
    ((5, 4, 3), ['weight_hh_l0', 'weight_ih_l0'])
    """
    call = read_call(
        CELL,
        params,
        x,
        None if state is None else (state,),
        lengths=lengths,
        reverse=reverse,
        masks=masks,
        merge=merge,
        step_masks={"h": h_masks, "keep_h": keep_h},
        options={"options": options, "reset_after": reset_after},
    )
    output, (h_n,), tape = forward(call, GRUTape)
    return output, h_n, tape


def gru_backward(
    tape: GRUTape,
    d_output: npt.ArrayLike | None = None,
    d_state: npt.ArrayLike | None = None,
) -> Gradients:
    """Compute the gradients of a loss with respect to everything that `gru_forward` was given.

    Parameters
    ----------
    tape : GRUTape
        From `gru_forward`. It is not changed, so it can be used again.
    d_output : array_like, shape of the output, optional
        Gradient of the loss with respect to the output. Zeros by default.
    d_state : array_like, shape of the state, optional
        Gradient of the loss with respect to h_n. Zeros by default.

    Returns
    -------
    Gradients
        ``x``, ``state`` as ``(d_h_0,)``, and ``params`` by name.

    Raises
    ------
    ValueError
        A shape does not fit.
    """
    return backward(tape, d_output, None if d_state is None else (d_state,))
