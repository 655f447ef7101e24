"""Layers whose matrices, and what they are multiplied by, have few bits: bfloat16 and int8.

A recurrent layer spends its time on products of matrices, W x and R h, and on reading these
matrices from memory, at every step again. With fewer bits there is less to read, and processors
multiply more of them at once. All else stays as it is: biases, gates, c, and the h that is kept.

**bfloat16** is the upper half of a float32: its sign, its 8 bits of exponent, and 7 of its 23 bits
of fraction. The range is the same and a rounding error at most 2^-9 of the value, 0.2 %. A product
of two has 16 bits, so float32 holds it exactly.

**int8** are whole numbers from -127 to 127 and a scale, here one for each row of a matrix:

.. code-block:: text

    s_r    = max_k |w_rk| / 127
    q_rk   = round(w_rk / s_r)                 so that w_rk is about s_r q_rk

The error is at most s_r / 2, whatever the value: 0.4 % of the largest in its row. A row is what one
gate of one unit reads, so a unit with large weights makes no other coarse.

What a matrix is multiplied by may have few bits, too. In bfloat16 each value is rounded; in int8
each row of the batch gets a scale at each step, from its own values:

.. code-block:: text

    s_v    = max_k |v_k| / 127
    p_k    = round(127 v_k / max_k |v_k|)
    (W v)_r  is about  (sum_k q_rk p_k) s_r s_v

The sum is one of whole numbers, and exact. Since the scale depends on that row and step alone, a
sequence's results do not depend on the batch that it is in, nor on what comes after.

Where there is no such scale: a row of zeros, or of what is nearly zero, is zero; a row that has
infinity or NaN becomes NaN.

References
----------
D. Kalamkar et al.: A Study of BFLOAT16 for Deep Learning Training. arXiv:1905.12322, 2019.

B. Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference. CVPR 2018. Scales, whole numbers, and sums of their products.

Notes
-----
What a value is rounded to is decided in float32, as in the layers: of what is halfway between two,
or nearly so, float64 would make the other one. Sums are float64 here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._arrays import Array, as_it_is
from ._cell import Cell, State
from ._layers import Tape, forward, read_call

Rows = npt.NDArray[np.float32]

MATRICES = ("weight_ih", "weight_hh", "weight_hr")
"""The parameters that are stored in few bits: W, R and projections."""

# Rows are zero where what is divided by their largest value would leave the range of float32:
# weights by the smallest normal number, what they are multiplied by some way above it.
_SMALLEST_SCALE = np.float32(2.0**-126)
_SMALLEST_VALUE = np.float32(2.0**-100)


def to_bfloat16(values: npt.ArrayLike) -> Array:
    """Round to the nearest bfloat16, of two that are as near to the one with an even last bit.

    Parameters
    ----------
    values : array_like
        Numbers of float32, of any shape. What is beyond the largest bfloat16, 3.39e38, by half a
        step or more becomes infinite; infinity and NaN stay what they are.

    Returns
    -------
    ndarray of float64

    Examples
    --------
    >>> to_bfloat16([1.0, 1.00390625, 1.01171875, 3.4e38])  # two steps of 2^-8, then 3 * 2^-8
    array([1.      , 1.      , 1.015625,      inf])
    """
    single = np.asarray(values, dtype=np.float32)
    bits = single.view(np.uint32)
    # Half of the last bit that is kept; a little less where that bit is even, for the halfway case.
    half = np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    rounded = ((bits + half) & np.uint32(0xFFFF0000)).view(np.float32)
    return np.where(np.isnan(single), np.float32(np.nan), rounded).astype(np.float64)


def to_int8(matrix: npt.ArrayLike) -> tuple[npt.NDArray[np.int8], Rows]:
    """Make whole numbers of weights, with a scale for each row.

    Parameters
    ----------
    matrix : array_like, shape (rows, columns)
        Finite numbers of float32.

    Returns
    -------
    values : ndarray of int8, shape (rows, columns)
        From -127 to 127. Zero where the scale is.
    scales : ndarray of float32, shape (rows,)
        The weights are about ``scales[:, None] * values``.

    Raises
    ------
    ValueError
        There is infinity or NaN.

    Examples
    --------
    >>> values, scales = to_int8([[0.5, -1.27], [0.0, 0.0]])
    >>> values, scales
    (array([[  50, -127],
           [   0,    0]], dtype=int8), array([0.01, 0.  ], dtype=float32))
    """
    weights = np.asarray(matrix, dtype=np.float32)
    if not np.isfinite(weights).all():
        raise ValueError("matrix: expected finite values, got infinity or NaN")
    scales = np.max(np.abs(weights), axis=1, initial=0.0) / np.float32(127)
    scales = np.where(scales < _SMALLEST_SCALE, np.float32(0), scales).astype(np.float32)
    ratios = weights / np.where(scales == 0, np.float32(1), scales)[:, np.newaxis]
    values = np.where(scales[:, np.newaxis] == 0, 0, np.clip(np.rint(ratios), -127, 127))
    return values.astype(np.int8), scales


@np.errstate(over="ignore")
def read_bfloat16(rows: Array) -> Array:
    """Return rows (B, K) as matrices read them in bfloat16: denormal numbers are zero."""
    single = rows.astype(np.float32)
    return to_bfloat16(np.where(np.abs(single) < np.finfo(np.float32).tiny, 0, single))


@np.errstate(over="ignore", invalid="ignore")  # of rows that become NaN
def read_int8(rows: Array) -> Array:
    """Return rows (B, K) as matrices read them in int8, each with a scale of its own."""
    single = rows.astype(np.float32)
    largest = np.max(np.abs(single), axis=1, keepdims=True, initial=0.0)  # NaN where one is
    tiny = largest < _SMALLEST_VALUE
    safe = np.where(tiny, np.float32(1), largest)
    whole = np.rint(single * (np.float32(127) / safe)).astype(np.float64)
    read = np.where(tiny, 0.0, whole * (safe / np.float32(127)))
    return np.where(np.isfinite(largest), read, np.nan)


READ: dict[str, Callable[[Array], Array]] = {
    "float32": as_it_is,
    "bfloat16": read_bfloat16,
    "int8": read_int8,
}
"""By what a layer's activations are."""


def quantized_params(params: Mapping[str, npt.ArrayLike], weights: str) -> dict[str, Array]:
    """Return the parameters that a layer computes with whose weights are small.

    Parameters
    ----------
    params : mapping of str to array_like
        PyTorch's names, as of :func:`fastlstm.reference.lstm_forward`.
    weights : {"bfloat16", "int8"}
        What W, R and projections are stored in.
    """
    if weights not in ("bfloat16", "int8"):
        raise ValueError(f"weights: expected bfloat16 or int8, got {weights!r}")
    small: dict[str, Array] = {}
    for name, value in params.items():
        if not name.startswith(MATRICES):
            small[name] = np.asarray(value, dtype=np.float64)
        elif weights == "bfloat16":
            small[name] = to_bfloat16(value)
        else:
            values, scales = to_int8(value)
            small[name] = values * scales.astype(np.float64)[:, np.newaxis]
    return small


def quantized_forward(
    cell: Cell[Any],
    params: Mapping[str, npt.ArrayLike],
    x: npt.ArrayLike,
    state: Sequence[npt.ArrayLike] | None = None,
    *,
    activations: str = "float32",
    lengths: npt.ArrayLike | None = None,
    reverse: bool = False,
    merge: str = "concat",
    step_masks: Mapping[str, npt.ArrayLike | None] | None = None,
    **options: Any,
) -> tuple[Array, State, Tape[Any]]:
    """Run a batch of sequences through all layers, whose matrices read rounded values.

    Parameters
    ----------
    cell : Cell
        Of ``fastlstm.reference.CELLS``.
    params : mapping of str to array_like
        From :func:`quantized_params`.
    state : sequence of array_like, optional
        All parts of the initial state, for the LSTM ``(h_0, c_0)``.
    activations : {"float32", "bfloat16", "int8"}
        What x, h and the input of a projection are rounded to where a matrix reads them.
    x, lengths, reverse, merge
        As of :func:`fastlstm.reference.lstm_forward`.
    step_masks : mapping, optional
        Regularisation, by the fields of the cell's masks: ``keep_h`` and ``keep_c`` of zoneout.
    **options
        More arguments of the cell's step: ``options``, and ``reset_after`` of the GRU.

    Returns
    -------
    output, state, tape
        As of :func:`fastlstm.reference.lstm_forward`; the state is a tuple. There are no gradients.

    Examples
    --------
    >>> from fastlstm.reference import CELLS
    >>> params = {"weight_ih_l0": [[0.3]], "weight_hh_l0": [[0.0]]}
    >>> small = quantized_params(params, "bfloat16")
    >>> output, _, _ = quantized_forward(CELLS["RNN"], small, [[1.0], [2.0]])
    >>> np.arctanh(output.ravel())
    array([0.30078125, 0.6015625 ])
    """
    if activations not in READ:
        raise ValueError(f"activations: expected {', '.join(READ)}, got {activations!r}")
    call = read_call(
        cell,
        params,
        x,
        state,
        lengths=lengths,
        reverse=reverse,
        masks=None,
        merge=merge,
        step_masks=step_masks or {},
        options={**options, "read": READ[activations]},
    )
    return forward(call, Tape)
