"""The simple recurrent network, explained and computed one step at a time.

.. code-block:: text

    h' = tanh(W x + b_W + R h + b_R)         or relu instead of tanh

That is all: each of the H units sees the input and all units of the step before. What it has seen
must pass through R and the slope of the function at every step, and so must a gradient on its way
back; after many steps it has vanished or exploded. The gates of the LSTM and the GRU are there to
prevent that. Where a sequence is short, or memory need not be long, this is the cheapest cell.

Other functions, bounded sums, dropout of h and zoneout are options, as in
:mod:`fastlstm.reference.lstm`.

References
----------
J. L. Elman: Finding Structure in Time. Cognitive Science 14(2), 1990.

Notes
-----
Letters as in :mod:`fastlstm.reference.lstm`. Only the sum of b_W and b_R matters.
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
from .activations import TANH, clipped, clipped_slope


class RNNStep(NamedTuple):
    """All values of one step, each (B, H)."""

    h: Array
    a: Array  # the sum before it is clipped


class RNNOptions(NamedTuple):
    """What changes the equation; the defaults are tanh, without a bound."""

    activation: Activation = TANH
    """The function: any of :mod:`fastlstm.reference.activations`, relu among them."""
    clip: float = np.inf
    """The bound of the sum before it."""


PLAIN = RNNOptions()


class RNNStepGradients(NamedTuple):
    """Gradients of a loss with respect to the arguments of one step, each in their shape.

    d_b is the gradient of b_W and of b_R, as only their sum matters.
    """

    d_x: Array
    d_h: Array
    d_W: Array
    d_R: Array
    d_b: Array


def rnn_cell(
    x: npt.ArrayLike,
    h: npt.ArrayLike,
    W: npt.ArrayLike,
    R: npt.ArrayLike,
    b_W: npt.ArrayLike | None = None,
    b_R: npt.ArrayLike | None = None,
    *,
    options: RNNOptions = PLAIN,
    masks: HiddenMasks = NO_MASKS,
    read: Callable[[Array], Array] = as_it_is,
) -> RNNStep:
    """Compute one step of an RNN for a batch.

    Parameters
    ----------
    x : array_like, shape (B, I)
        Input of this step.
    h : array_like, shape (B, H)
        Hidden state before this step.
    W, R : array_like, shapes (H, I) and (H, H)
        Input and recurrent weights.
    b_W, b_R : array_like, shape (H,), optional
        Biases.
    options : RNNOptions
        The function, clipping.
    masks : HiddenMasks
        Regularisation of this step.
    read : callable
        What rows go through on their way into a product, in :mod:`.low_precision`.

    Raises
    ------
    ValueError
        A shape does not fit.

    Examples
    --------
    >>> rnn_cell([[1.0]], [[2.0]], [[0.5]], [[1.0]], options=RNNOptions(Activation("Relu"))).h
    array([[2.5]])
    """
    (x, h, W, R), biases = read_step(
        CELL, {"x": x, "h": h, "W": W, "R": R}, {"b_W": b_W, "b_R": b_R}
    )
    a = read(x) @ W.T + read(dropped(masks.h, h)) @ R.T
    for bias in biases:
        if bias is not None:
            a = a + bias
    h_new = clipped(options.activation, a, options.clip)
    return RNNStep(zoned_out(masks.keep_h, h, h_new), a)


def rnn_cell_backward(
    step: RNNStep,
    x: npt.ArrayLike,
    h: npt.ArrayLike,
    W: npt.ArrayLike,
    R: npt.ArrayLike,
    d_h: npt.ArrayLike,
    *,
    options: RNNOptions = PLAIN,
    masks: HiddenMasks = NO_MASKS,
) -> RNNStepGradients:
    """Compute the gradients of one step from d_h, the gradient of what it returned.

    Parameters
    ----------
    step : RNNStep
        What `rnn_cell` returned for the arguments below.
    x, h, W, R, options, masks
        The arguments of `rnn_cell`. Biases are not needed.
    d_h : array_like, shape (B, H)
        Gradient of the loss with respect to the new state.

    Returns
    -------
    RNNStepGradients
        ``d_h`` in it is with respect to the state before the step.
    """
    (x, h, W, R, d_h), _ = read_step(CELL, {"x": x, "h": h, "W": W, "R": R, "d_h": d_h}, {})
    # Zoneout: h' = keep_h h + (1 - keep_h) h_new
    d_h_old, d_h_new = zoned_out_backward(masks.keep_h, d_h)
    # The slope of tanh is 1 - tanh^2.
    d_a = d_h_new * clipped_slope(options.activation, step.a, options.clip)
    return RNNStepGradients(
        d_x=d_a @ W,
        d_h=d_h_old + dropped(masks.h, d_a @ R),
        d_W=d_a.T @ x,
        d_R=d_a.T @ dropped(masks.h, h),
        d_b=d_a.sum(axis=0),
    )


class RNNTrace(NamedTuple):
    """The hidden state over time of one layer and direction; zero past a sequence's end."""

    h: Array


# All that layers, directions and time need to know of these equations.
CELL = Cell(
    parameters=(
        Parameter("W", "weight_ih", ("H", "I")),
        Parameter("R", "weight_hh", ("H", "H")),
        Parameter("b_W", "bias_ih", ("H",), ("bias",), gradient="d_b", read_backward=False),
        Parameter("b_R", "bias_hh", ("H",), ("bias",), gradient="d_b", read_backward=False),
    ),
    state={"h": "H"},
    step=rnn_cell,
    step_backward=rnn_cell_backward,
    trace=RNNTrace,
    masks=HiddenMasks,
)


class RNNTape(Tape[RNNTrace]):
    """What `rnn_forward` leaves for `rnn_backward`, and for looking inside."""


def rnn_forward(
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: npt.ArrayLike | None = None,
    *,
    lengths: npt.ArrayLike | None = None,
    reverse: bool = False,
    masks: Sequence[npt.ArrayLike] | None = None,
    options: RNNOptions = PLAIN,
    h_masks: npt.ArrayLike | None = None,
    keep_h: npt.ArrayLike | None = None,
    merge: str = "concat",
) -> tuple[Array, Array, RNNTape]:
    """Run a batch of sequences through all layers of an RNN.

    Parameters
    ----------
    params : mapping of str to array_like
        PyTorch's names: ``weight_ih_l0`` (H, I), ``weight_hh_l0`` (H, H), ``bias_ih_l0`` and
        ``bias_hh_l0`` (H,), then ``..._l0_reverse``, ``..._l1`` and so on.
    state : array_like, shape (L*D, B, H), optional
        h_0. Zeros by default.
    x, lengths, reverse, masks
        As for :func:`fastlstm.reference.lstm_forward`.
    options : RNNOptions
        The function, clipping.
    h_masks, keep_h, merge
        As for :func:`fastlstm.reference.gru_forward`.

    Returns
    -------
    output : ndarray of float64, shape (T, B, D*H)
        h of the last layer, both directions side by side; (T, B, H) where they are merged.
    state : ndarray of float64, shape (L*D, B, H)
        h_n.
    tape : RNNTape
        For `rnn_backward`; ``tape.traces[layer][direction]`` has every value over time.

    Raises
    ------
    ValueError
        A name is missing or unknown, or a shape or a length does not fit.
    TypeError
        `lengths` are not integers.

    Examples
    --------
    >>> params = {"weight_ih_l0": [[1.0]], "weight_hh_l0": [[2.0]]}
    >>> relu = RNNOptions(Activation("Relu"))
    >>> output, h_n, tape = rnn_forward(params, np.ones((3, 1, 1)), options=relu)
    >>> output.ravel()
    array([1., 3., 7.])
    >>> rnn_backward(tape, d_state=[[[1.0]]]).x.ravel()
    array([4., 2., 1.])
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
        options={"options": options},
    )
    output, (h_n,), tape = forward(call, RNNTape)
    return output, h_n, tape


def rnn_backward(
    tape: RNNTape,
    d_output: npt.ArrayLike | None = None,
    d_state: npt.ArrayLike | None = None,
) -> Gradients:
    """Compute the gradients of a loss with respect to everything that `rnn_forward` was given.

    Parameters
    ----------
    tape : RNNTape
        From `rnn_forward`. It is not changed, so it can be used again.
    d_output, d_state
        As for :func:`fastlstm.reference.gru_backward`.

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
