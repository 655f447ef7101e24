"""The LSTM, explained and computed one step at a time.

A recurrent layer reads a sequence x_1, x_2, ..., x_T and keeps a summary of what it has read. The
LSTM keeps two vectors: the *hidden state* h, which is its output and what its own next step sees,
and the *cell state* c, its memory. At each step four small networks look at the input x and at the
last h:

.. code-block:: text

    i = sigmoid(W_i x + R_i h + b_i)     input gate:  how much of the candidate to write
    f = sigmoid(W_f x + R_f h + b_f)     forget gate: how much of the memory to keep
    g = tanh   (W_g x + R_g h + b_g)     candidate:   what to write, in [-1, 1]
    o = sigmoid(W_o x + R_o h + b_o)     output gate: how much of the memory to show

A gate is a vector of numbers between 0 (closed) and 1 (open), one for each of the H units. The
products below are elementwise:

.. code-block:: text

    c' = f c + i g                       keep a part of the old memory, add a part of the candidate
    h' = o tanh(c')                      show a part of the memory, squashed into [-1, 1]

**Why the cell state carries gradients.** In a plain recurrent network h' = tanh(W x + R h + b), so
a gradient that goes back n steps is multiplied n times by the transpose of R and by slopes of tanh,
which are at most 1. It vanishes or explodes exponentially with n, and what was seen long ago is
hard to learn from. The memory of the LSTM has a second way back. In c' = f c + i g the derivative
of c' with respect to c, at fixed gates, is f: no matrix, no squashing. Over n steps it is the
product of n forget gates, and a unit that holds its forget gate near 1 passes the gradient on
almost unchanged. The ways through h and the gates are there as well; they are how the gates learn.

The backward pass is the chain rule on the six lines above, read from the bottom to the top, and
then one step further back in time: :func:`lstm_cell_backward`.

**Options.** What PyTorch's LSTM does not have; the defaults change nothing.

.. code-block:: text

    peepholes     p_i c is added in the sum of i, p_f c in that of f, p_o c' in that of o
    clip          sums are bounded to [-clip, clip] before their activation
    activations   other functions than sigmoid (for i, f, o), tanh (for g) and tanh (of c')
    input_forget  f = 1 - i
    dropout of h  R reads a h of which some units are zero, the same ones at all steps
    zoneout       a part of the units of c' and h' keeps the values of c and h; the h' of the others
                  is that of a step without zoneout
    layer norm    the sum of the gates is n_W N(W x) + n_R N(R h) + b, all four gates side by side,
                  and h' = o tanh(n_c N(c') + b_c); N(a) subtracts from a vector the mean of its
                  values and divides by their standard deviation, sqrt(variance + 1e-5)

References
----------
S. Hochreiter, J. Schmidhuber: Long Short-Term Memory. Neural Computation 9(8), 1997. The cell state
and the input and output gates; there the memory is never forgotten, f = 1.

F. A. Gers, J. Schmidhuber, F. Cummins: Learning to Forget: Continual Prediction with LSTM. Neural
Computation 12(10), 2000. The forget gate.

H. Sak, A. Senior, F. Beaufays: Long Short-Term Memory Recurrent Neural Network Architectures for
Large Scale Acoustic Modeling. Interspeech 2014. The projection h' = W_hr (o tanh(c')), which makes
h narrower than c, and R smaller.

F. A. Gers, J. Schmidhuber: Recurrent Nets that Time and Count. IJCNN 2000. Peepholes.

K. Greff, R. K. Srivastava, J. Koutnik, B. R. Steunebrink, J. Schmidhuber: LSTM: A Search Space
Odyssey. IEEE TNNLS 28(10), 2017. Coupled gates, and what each part of the LSTM is good for.

Y. Gal, Z. Ghahramani: A Theoretically Grounded Application of Dropout in Recurrent Neural Networks.
NeurIPS 2016. One mask on h for all steps.

J. L. Ba, J. R. Kiros, G. E. Hinton: Layer Normalization. arXiv:1607.06450, 2016. Equations 20-22.

D. Krueger et al.: Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations. ICLR 2017.

Notes
-----
T time steps, B batch, I input size, H hidden size, L layers, D directions, P width of h (H without
a projection). W and R stack the rows of i, f, g, o in this order, which is PyTorch's. As in PyTorch
there are two biases, b_W and b_R; only their sum matters. A batch has one sequence in each row, so
W x is written ``x @ W.T``. The gradient of a loss with respect to x is called d_x.
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
from ._masks import dropped, zoned_out, zoned_out_backward
from .activations import SIGMOID, TANH, activate, clipped, clipped_slope, slope


class LSTMOptions(NamedTuple):
    """What changes the equations; the defaults are the LSTM of the references above."""

    activations: tuple[Activation, Activation, Activation] = (SIGMOID, TANH, TANH)
    """Of the gates i, f, o; of the candidate g; of the cell state on its way into h."""
    clip: float = np.inf
    """The bound of the sums."""
    input_forget: bool = False
    """Whether f is 1 - i. The parameters of f are not used then."""


class LSTMMasks(NamedTuple):
    """What regularisation multiplies the values of one step with. None: it is not used."""

    h: Array | None = None
    """(B, P) on the h that R reads: 0, or 1 / (1 - p) where the unit is kept."""
    keep_h: Array | None = None
    """(B, P) zoneout: 1 where h keeps its value, else 0; in inference the mean of these."""
    keep_c: Array | None = None
    """(B, H) the same for c."""


PLAIN, NO_MASKS = LSTMOptions(), LSTMMasks()

NORM_EPSILON = 1e-5
"""Layer normalisation adds it to the variance."""


class Normalised(NamedTuple):
    """Rows less their mean, over their standard deviation."""

    values: Array
    deviation: Array  # (B, 1)


class LSTMStep(NamedTuple):
    """All values of one step. h is (B, P), all others (B, H), a four of these side by side."""

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    m: Array  # o tanh(c), which is h without a projection
    h: Array
    a: Array  # sums of i, f, g, o before they are clipped
    c_new: Array  # c, before zoneout
    norms: tuple[Normalised, Normalised, Normalised] | None  # of W x, R h, c_new


class LSTMStepGradients(NamedTuple):
    """Gradients of a loss with respect to the arguments of one step, each in their shape.

    d_b is the gradient of b_W and of b_R, as only their sum matters. d_W_hr, d_p and those of layer
    normalisation are None without a projection, without peepholes and without normalisation.
    """

    d_x: Array
    d_h: Array
    d_c: Array
    d_W: Array
    d_R: Array
    d_b: Array
    d_W_hr: Array | None
    d_p: Array | None
    d_n_W: Array | None
    d_n_R: Array | None
    d_n_c: Array | None
    d_b_c: Array | None


def lstm_cell(
    x: npt.ArrayLike,
    h: npt.ArrayLike,
    c: npt.ArrayLike,
    W: npt.ArrayLike,
    R: npt.ArrayLike,
    b_W: npt.ArrayLike | None = None,
    b_R: npt.ArrayLike | None = None,
    W_hr: npt.ArrayLike | None = None,
    p: npt.ArrayLike | None = None,
    n_W: npt.ArrayLike | None = None,
    n_R: npt.ArrayLike | None = None,
    n_c: npt.ArrayLike | None = None,
    b_c: npt.ArrayLike | None = None,
    *,
    options: LSTMOptions = PLAIN,
    masks: LSTMMasks = NO_MASKS,
    read: Callable[[Array], Array] = as_it_is,
) -> LSTMStep:
    """Compute one step of an LSTM for a batch.

    Parameters
    ----------
    x : array_like, shape (B, I)
        Input of this step.
    h : array_like, shape (B, P)
        Hidden state before this step.
    c : array_like, shape (B, H)
        Cell state before this step.
    W : array_like, shape (4H, I)
        Input weights, rows in the order i, f, g, o.
    R : array_like, shape (4H, P)
        Recurrent weights, rows in the same order.
    b_W, b_R : array_like, shape (4H,), optional
        Biases.
    W_hr : array_like, shape (P, H), optional
        Projection. Without it P is H.
    p : array_like, shape (3H,), optional
        Peepholes of i, f, o.
    n_W, n_R : array_like, shape (4H,), optional
        Gains of layer normalisation for W x and R h.
    n_c, b_c : array_like, shape (H,), optional
        Its gain and bias for the cell state on its way into h. Gains: all three, or none.
    options : LSTMOptions
        Other functions, clipping, coupled gates.
    masks : LSTMMasks
        Regularisation of this step.
    read : callable
        What rows go through on their way into a product, in :mod:`.low_precision`.

    Returns
    -------
    LSTMStep
        The gates and the new state, ``c`` and ``h``.

    Raises
    ------
    ValueError
        A shape does not fit.

    Examples
    --------
    One unit with an open forget gate and a closed input gate remembers:

    >>> step = lstm_cell(
    ...     x=[[1.0]], h=[[0.0]], c=[[0.5]],
    ...     W=[[-20.0], [20.0], [0.0], [20.0]], R=np.zeros((4, 1)),
    ... )
    >>> step.c.round(6), step.h.round(6)
    (array([[0.5]]), array([[0.462117]]))
    """
    (x, h, c, W, R), (b_W, b_R, W_hr, p, n_W, n_R, n_c, b_c) = read_step(
        CELL,
        {"x": x, "h": h, "c": c, "W": W, "R": R},
        {"b_W": b_W, "b_R": b_R, "W_hr": W_hr, "p": p}
        | {"n_W": n_W, "n_R": n_R, "n_c": n_c, "b_c": b_c},
    )
    affine = _affine(n_W, n_R, n_c, b_c)
    b = np.zeros(W.shape[0])
    for bias in (b_W, b_R):
        if bias is not None:
            b = b + bias
    gate, candidate, hidden = options.activations
    p_i, p_f, p_o = (0.0, 0.0, 0.0) if p is None else np.split(p, 3)

    # W x + R h + b of all four gates side by side.
    h_read = dropped(masks.h, h)
    from_x, from_h = read(x) @ W.T, read(h_read) @ R.T
    if affine is not None:
        norm_x, norm_h = normalised(from_x), normalised(from_h)
        from_x, from_h = affine.n_W * norm_x.values, affine.n_R * norm_h.values
    a_i, a_f, a_g, a_o = np.split(from_x + from_h + b, 4, axis=1)
    if p is not None:
        a_i = a_i + p_i * c
        a_f = a_f + p_f * c
    i = clipped(gate, a_i, options.clip)
    f = 1 - i if options.input_forget else clipped(gate, a_f, options.clip)
    g = clipped(candidate, a_g, options.clip)
    c_new = f * c + i * g
    if p is not None:
        a_o = a_o + p_o * c_new
    o = clipped(gate, a_o, options.clip)
    norms, seen = None, c_new
    if affine is not None:
        norms = (norm_x, norm_h, normalised(c_new))
        seen = affine.n_c * norms[2].values + affine.b_c
    m = o * activate(hidden, seen)
    h_new = m if W_hr is None else read(m) @ W_hr.T
    return LSTMStep(
        i,
        f,
        g,
        o,
        c=zoned_out(masks.keep_c, c, c_new),
        m=m,
        h=zoned_out(masks.keep_h, h, h_new),
        a=np.concatenate([a_i, a_f, a_g, a_o], axis=1),
        c_new=c_new,
        norms=norms,
    )


def normalised(rows: Array) -> Normalised:
    """Normalise each row by itself."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axis=1, keepdims=True) + NORM_EPSILON)
    return Normalised(centred / deviation, deviation)


def normalised_backward(d: Array, norm: Normalised) -> Array:
    """Return the gradient of what `normalised` was given, from that of its values.

    A change of all values alike, or one in proportion to the values, has no effect: those parts of
    the gradient vanish.
    """
    along = (d * norm.values).mean(axis=1, keepdims=True)
    centred = d - d.mean(axis=1, keepdims=True)
    return np.asarray((centred - norm.values * along) / norm.deviation)


def lstm_cell_backward(
    step: LSTMStep,
    x: npt.ArrayLike,
    h: npt.ArrayLike,
    c: npt.ArrayLike,
    W: npt.ArrayLike,
    R: npt.ArrayLike,
    d_h: npt.ArrayLike,
    d_c: npt.ArrayLike,
    W_hr: npt.ArrayLike | None = None,
    p: npt.ArrayLike | None = None,
    n_W: npt.ArrayLike | None = None,
    n_R: npt.ArrayLike | None = None,
    n_c: npt.ArrayLike | None = None,
    b_c: npt.ArrayLike | None = None,
    *,
    options: LSTMOptions = PLAIN,
    masks: LSTMMasks = NO_MASKS,
) -> LSTMStepGradients:
    """Compute the gradients of one step: the lines of `lstm_cell` from the last to the first.

    Parameters
    ----------
    step : LSTMStep
        What `lstm_cell` returned for the arguments below.
    x, h, c, W, R, W_hr, p, n_W, n_R, n_c, b_c, options, masks
        The arguments of `lstm_cell`. `h` and `c` are the state *before* the step. Biases are not
        needed.
    d_h : array_like, shape (B, P)
        Gradient of the loss with respect to the new hidden state ``step.h``: what came from the
        output plus what the next step sent back.
    d_c : array_like, shape (B, H)
        Gradient with respect to the new cell state ``step.c`` from the next step alone. Its way
        through ``step.h`` is added here.

    Returns
    -------
    LSTMStepGradients
        ``d_h`` and ``d_c`` in it are with respect to the state before the step.

    Raises
    ------
    ValueError
        A shape does not fit.

    Examples
    --------
    With the forget gate open, the gradient of the cell state passes unchanged:

    >>> x, h, c, R = [[1.0]], [[0.0]], [[0.5]], np.zeros((4, 1))
    >>> W = [[-20.0], [20.0], [0.0], [20.0]]
    >>> step = lstm_cell(x, h, c, W, R)
    >>> lstm_cell_backward(step, x, h, c, W, R, d_h=[[0.0]], d_c=[[1.0]]).d_c.round(6)
    array([[1.]])
    """
    (x, h, c, W, R, d_h, d_c), (W_hr, p, n_W, n_R, n_c, b_c) = read_step(
        CELL,
        {"x": x, "h": h, "c": c, "W": W, "R": R, "d_h": d_h, "d_c": d_c},
        {"W_hr": W_hr, "p": p, "n_W": n_W, "n_R": n_R, "n_c": n_c, "b_c": b_c},
    )
    affine = _affine(n_W, n_R, n_c, b_c)
    i, f, g, o, _, m, _, a, c_new, norms = step
    a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)
    gate, candidate, hidden = options.activations
    p_i, p_f, p_o = (0.0, 0.0, 0.0) if p is None else np.split(p, 3)

    # Zoneout: h' = keep_h h + (1 - keep_h) h_new, and c' alike
    d_h_old, d_h_new = zoned_out_backward(masks.keep_h, d_h)
    d_c_old, d_c_new = zoned_out_backward(masks.keep_c, d_c)
    # h_new = W_hr m
    d_m = d_h_new if W_hr is None else d_h_new @ W_hr
    d_W_hr = None if W_hr is None else d_h_new.T @ m
    # m = o tanh(c_new), or of n_c N(c_new) + b_c
    seen = c_new
    if affine is not None and norms is not None:
        seen = affine.n_c * norms[2].values + affine.b_c
    d_o = d_m * activate(hidden, seen)
    d_seen = d_m * o * slope(hidden, seen)
    d_b_c, d_n_c = None, None
    if affine is not None and norms is not None:
        d_b_c = None if b_c is None else d_seen.sum(axis=0)
        d_n_c = (d_seen * norms[2].values).sum(axis=0)
        d_seen = normalised_backward(d_seen * affine.n_c, norms[2])
    d_c_new = d_c_new + d_seen
    # o = sigmoid(a_o), and a_o reads c_new through the peephole.
    d_a_o = d_o * clipped_slope(gate, a_o, options.clip)
    d_c_new = d_c_new + d_a_o * p_o
    # c_new = f c + i g
    d_f = d_c_new * c
    d_i = d_c_new * g
    d_g = d_c_new * i
    d_c_old = d_c_old + d_c_new * f
    if options.input_forget:  # f = 1 - i
        d_i, d_f = d_i - d_f, np.zeros_like(d_f)
    # i = sigmoid(a_i) and so on. The slope of the sigmoid is i (1 - i), that of tanh 1 - g^2.
    d_a_i = d_i * clipped_slope(gate, a_i, options.clip)
    d_a_f = d_f * clipped_slope(gate, a_f, options.clip)
    d_a_g = d_g * clipped_slope(candidate, a_g, options.clip)
    d_c_old = d_c_old + d_a_i * p_i + d_a_f * p_f
    # a = W x + R h + b. All rows of the batch used the same weights: their gradients are summed.
    d_a = np.concatenate([d_a_i, d_a_f, d_a_g, d_a_o], axis=1)
    d_from_x, d_from_h, d_n_W, d_n_R = d_a, d_a, None, None
    if affine is not None and norms is not None:  # a = n_W N(W x) + n_R N(R h) + b
        d_n_W, d_n_R = ((d_a * norm.values).sum(axis=0) for norm in norms[:2])
        d_from_x = normalised_backward(d_a * affine.n_W, norms[0])
        d_from_h = normalised_backward(d_a * affine.n_R, norms[1])
    d_h_read = d_from_h @ R
    d_p = [(d_a_i * c).sum(axis=0), (d_a_f * c).sum(axis=0), (d_a_o * c_new).sum(axis=0)]
    return LSTMStepGradients(
        d_x=d_from_x @ W,
        d_h=d_h_old + dropped(masks.h, d_h_read),
        d_c=d_c_old,
        d_W=d_from_x.T @ x,
        d_R=d_from_h.T @ dropped(masks.h, h),
        d_b=d_a.sum(axis=0),
        d_W_hr=d_W_hr,
        d_p=None if p is None else np.concatenate(d_p),
        d_n_W=d_n_W,
        d_n_R=d_n_R,
        d_n_c=d_n_c,
        d_b_c=d_b_c,
    )


class _Affine(NamedTuple):
    """The parameters of layer normalisation."""

    n_W: Array
    n_R: Array
    n_c: Array
    b_c: Array


def _affine(
    n_W: Array | None, n_R: Array | None, n_c: Array | None, b_c: Array | None
) -> _Affine | None:
    """Return the parameters of layer normalisation. None: there is none."""
    if n_W is None and n_R is None and n_c is None and b_c is None:
        return None
    if n_W is None or n_R is None or n_c is None:
        raise ValueError("n_W, n_R, n_c: expected all of them or none")
    return _Affine(n_W, n_R, n_c, np.zeros_like(n_c) if b_c is None else b_c)


class LSTMTrace(NamedTuple):
    """Every value over time of one layer and direction, for looking inside.

    i, f, g, o and c are (T, B, H), h is (T, B, P); without a batch axis where the input has none.
    Values at time t are those that the step which read x[t] computed. They are zero past a
    sequence's end.
    """

    i: Array
    f: Array
    g: Array
    o: Array
    c: Array
    h: Array


# All that layers, directions and time need to know of these equations.
CELL = Cell(
    parameters=(
        Parameter("W", "weight_ih", ("4H", "I")),
        Parameter("R", "weight_hh", ("4H", "P")),
        Parameter("b_W", "bias_ih", ("4H",), ("bias",), gradient="d_b", read_backward=False),
        Parameter("b_R", "bias_hh", ("4H",), ("bias",), gradient="d_b", read_backward=False),
        Parameter("W_hr", "weight_hr", ("P", "H"), ("projection",)),
        Parameter("p", "weight_peephole", ("3H",), ("peepholes",)),
        Parameter("n_W", "weight_ln_ih", ("4H",), ("layer_norm",)),
        Parameter("n_R", "weight_ln_hh", ("4H",), ("layer_norm",)),
        Parameter("n_c", "weight_ln_c", ("H",), ("layer_norm",)),
        Parameter("b_c", "bias_ln_c", ("H",), ("layer_norm", "bias")),
    ),
    state={"h": "P", "c": "H"},
    step=lstm_cell,
    step_backward=lstm_cell_backward,
    trace=LSTMTrace,
    masks=LSTMMasks,
    same_without={"W_hr": ("P", "H")},
)


class LSTMTape(Tape[LSTMTrace]):
    """What `lstm_forward` leaves for `lstm_backward`, and for looking inside."""


def lstm_forward(
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: Sequence[npt.ArrayLike] | None = None,
    *,
    lengths: npt.ArrayLike | None = None,
    reverse: bool = False,
    masks: Sequence[npt.ArrayLike] | None = None,
    options: LSTMOptions = PLAIN,
    h_masks: npt.ArrayLike | None = None,
    keep_h: npt.ArrayLike | None = None,
    keep_c: npt.ArrayLike | None = None,
    merge: str = "concat",
) -> tuple[Array, tuple[Array, Array], LSTMTape]:
    """Run a batch of sequences through all layers of an LSTM.

    Parameters
    ----------
    params : mapping of str to array_like
        PyTorch's names: ``weight_ih_l0`` (4H, I), ``weight_hh_l0`` (4H, P), ``bias_ih_l0`` and
        ``bias_hh_l0`` (4H,), ``weight_hr_l0`` (P, H), then ``..._l0_reverse``, ``..._l1`` and so
        on; also ``weight_peephole_l0`` (3H,), and for layer normalisation ``weight_ln_ih_l0`` and
        ``weight_ln_hh_l0`` (4H,), ``weight_ln_c_l0`` and, with biases, ``bias_ln_c_l0`` (H,). The
        names say how many layers and directions there are, and whether there are biases,
        projections, peepholes and normalisation. Layers above the first have D*P inputs.
    x : array_like, shape (T, B, I) or (T, I)
        Time first. Without a batch axis, `state` and all results have none either.
    state : (h_0, c_0), optional
        (L*D, B, P) and (L*D, B, H): the initial state of layer 0, of layer 0 reversed, of layer 1,
        ... Zeros by default.
    lengths : array_like of int, shape (B,), optional
        Length of each sequence, from 0 to T, in any order. What `x` holds past the end is not read;
        the output there is zero. The final state is the one at the sequence's end, which is where
        the reverse direction starts. A sequence of length 0 returns its initial state.
    reverse : bool
        Run a layer of one direction backward in time. The output for x[t] stays at index t.
    masks : sequence of L-1 array_like, optional
        ``masks[k]`` is multiplied into the output of layer k before layer k+1 reads it: dropout,
        with its scaling. Each broadcasts to (T, B, D*P).
    options : LSTMOptions
        Of all layers.
    h_masks : array_like, shape (L*D, B, P), optional
        Multiplied into the h that R reads, at all steps alike: recurrent dropout, with its scaling.
    keep_h, keep_c : array_like, optional
        Zoneout: broadcast to (L*D, T, B, P) and (L*D, T, B, H). 1 where a unit keeps its value; one
        number between 0 and 1 is what inference uses.
    merge : {"concat", "sum", "mul", "ave"}
        How the output is made of those of two directions: side by side, their sum, product, or
        mean. Layers above the first read them side by side.

    Returns
    -------
    output : ndarray of float64, shape (T, B, D*P)
        h of the last layer, both directions side by side; (T, B, P) where they are merged.
    state : (h_n, c_n)
        Final state, in the shapes of `state`.
    tape : LSTMTape
        For `lstm_backward`; ``tape.traces[layer][direction]`` has every value over time.

    Raises
    ------
    ValueError
        A name is missing or unknown, or a shape or a length does not fit.
    TypeError
        `lengths` are not integers.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> params = {"weight_ih_l0": rng.normal(size=(8, 3)), "weight_hh_l0": rng.normal(size=(8, 2))}
    >>> x = rng.normal(size=(5, 4, 3))
    >>> output, (h_n, c_n), tape = lstm_forward(params, x, lengths=[5, 0, 3, 1])
    >>> output.shape, h_n.shape, c_n.shape
    ((5, 4, 2), (1, 4, 2), (1, 4, 2))
    >>> bool((h_n[0, 2] == output[2, 2]).all()), output[3, 2]
    (True, array([0., 0.]))
    >>> grads = lstm_backward(tape, d_output=output)  # of the loss 0.5 * sum(output**2)
    >>> grads.x.shape, sorted(grads.params)
    ((5, 4, 3), ['weight_hh_l0', 'weight_ih_l0'])
    """
    call = read_call(
        CELL,
        params,
        x,
        state,
        lengths=lengths,
        reverse=reverse,
        masks=masks,
        merge=merge,
        step_masks={"h": h_masks, "keep_h": keep_h, "keep_c": keep_c},
        options={"options": options},
    )
    output, (h_n, c_n), tape = forward(call, LSTMTape)
    return output, (h_n, c_n), tape


def lstm_backward(
    tape: LSTMTape,
    d_output: npt.ArrayLike | None = None,
    d_state: Sequence[npt.ArrayLike] | None = None,
) -> Gradients:
    """Compute the gradients of a loss with respect to everything that `lstm_forward` was given.

    Parameters
    ----------
    tape : LSTMTape
        From `lstm_forward`. It is not changed, so it can be used again.
    d_output : array_like, shape of the output, optional
        Gradient of the loss with respect to the output. Zeros by default. What it holds past a
        sequence's end is not read, as the output there is a constant.
    d_state : (d_h_n, d_c_n), optional
        Gradient of the loss with respect to the final state. Zeros by default.

    Returns
    -------
    Gradients
        ``x``, ``state`` as ``(d_h_0, d_c_0)``, and ``params`` by name.

    Raises
    ------
    ValueError
        A shape does not fit.

    Examples
    --------
    >>> params = {"weight_ih_l0": np.ones((4, 1)), "weight_hh_l0": np.zeros((4, 1))}
    >>> state = ([[[0.0]]], [[[1.0]]])
    >>> output, _, tape = lstm_forward(params, np.zeros((3, 1, 1)), state)
    >>> grads = lstm_backward(tape, d_state=([[[0.0]]], [[[1.0]]]))
    >>> grads.state[1]  # three forget gates of one half each: 0.5 ** 3
    array([[[0.125]]])
    """
    return backward(tape, d_output, d_state)
