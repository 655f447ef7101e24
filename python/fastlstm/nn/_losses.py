"""Losses: each returns its value and the gradient of what was predicted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._checks import (
    FloatArray,
    IndexArray,
    as_bool,
    as_float_array,
    as_int,
    as_lengths,
    as_real,
    check_shape,
)

from ._block import Gradients, as_accumulated, as_floats, as_needs
from ._linear import Linear, LinearTape, as_rows, weights_of
from ._sequences import as_indices, as_reduction

Float64Array = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
# Of the logits that linear_cross_entropy has at once.
_LOGITS = 1 << 22


# --- what counts ----------------------------------------------------------------------------------


def _inside(shape: tuple[int, ...], lengths: Any, batch_first: bool) -> BoolArray | None:
    """Of (T, B, ...) values, or (B, T, ...): which steps are before their sequence's end."""
    batch_first = as_bool("batch_first", batch_first)
    if lengths is None:
        return None
    if len(shape) < 2:
        raise ValueError(f"lengths: expected None for values of shape {shape}")
    T, B = (shape[1], shape[0]) if batch_first else shape[:2]
    inside = np.arange(T)[:, None] < as_lengths(lengths, B, T)
    return inside.T if batch_first else inside


def _spread(inside: BoolArray | None, shape: tuple[int, ...]) -> BoolArray | None:
    """The same for each value."""
    if inside is None:
        return None
    return np.broadcast_to(inside.reshape(*inside.shape, *[1] * (len(shape) - 2)), shape)


class _Elements:
    """Values that are predicted one by one: those that count, in float64, and the way back."""

    def __init__(
        self, name: str, prediction: Any, y: Any, lengths: Any, batch_first: bool, reduction: str
    ) -> None:
        self._prediction = as_floats(name, prediction)
        self.shape, self._dtype = self._prediction.shape, self._prediction.dtype
        self._kept = _spread(_inside(self.shape, lengths, batch_first), self.shape)
        self._mean = as_reduction(reduction) == "mean"
        self.x = self.taken(self._prediction)
        target = as_float_array("y", y, np.dtype(np.float64))
        check_shape("y", target, self.shape)
        self.y = self.taken(target)

    def taken(self, array: FloatArray) -> Float64Array:
        """The values that count."""
        some = array if self._kept is None else array[self._kept]
        return some.astype(np.float64, copy=False)

    def loss(self, losses: Float64Array) -> float:
        """Their mean, zero if there are none, or their sum."""
        return float(losses.sum() / self._count)

    def gradient(self, d: Float64Array) -> FloatArray:
        """The gradient of all values from that of those that count."""
        d = d / self._count
        if self._kept is None:
            return d.astype(self._dtype)
        gradient = np.zeros(self.shape, self._dtype)
        gradient[self._kept] = d
        return gradient

    @property
    def _count(self) -> int:
        return max(self.x.size, 1) if self._mean else 1


# --- classes --------------------------------------------------------------------------------------


class _Classes:
    """The options of a cross-entropy, and the classes of rows: -1 where a row does not count."""

    def __init__(
        self,
        shape: tuple[int, ...],
        y: Any,
        lengths: Any,
        batch_first: bool,
        class_weights: Any,
        label_smoothing: Any,
        ignore_index: Any,
        reduction: Any,
    ) -> None:
        *steps, V = shape
        classes = as_indices("y", y)
        check_shape("y", classes, tuple(steps))
        counts = _inside(tuple(steps), lengths, batch_first)
        if ignore_index is not None:
            others = classes != as_int("ignore_index", ignore_index, -(2**63), 2**63 - 1)
            counts = others if counts is None else counts & others
        counted = classes if counts is None else classes[counts]
        if counted.size and not 0 <= counted.min() <= counted.max() < V:
            raise ValueError(
                f"y: expected classes from 0 to {V - 1}, got {counted.min()} to {counted.max()}"
            )
        if counts is not None:
            classes = np.where(counts, classes, -1)
        self.classes: IndexArray = classes.ravel()
        self.weights = None if class_weights is None else _as_weights(class_weights, V)
        self.smoothing = as_real("label_smoothing", label_smoothing, 0.0, 1.0)
        total = float(counted.size if self.weights is None else self.weights[counted].sum())
        # Of nothing the mean is zero, and so are the gradients.
        self.factor = 1 / total if as_reduction(reduction) == "mean" and total > 0 else 1.0

    def losses(
        self, rows: IndexArray | slice, logits: FloatArray, d_logits: FloatArray
    ) -> Float64Array:
        """The losses of some rows, and their gradients, which may take the place of the logits."""
        losses = np.empty(len(logits), np.float64)
        _core.cross_entropy(
            logits, self.classes[rows], self.weights, self.smoothing, self.factor, losses, d_logits
        )
        return losses


def _as_weights(value: Any, V: int) -> Float64Array:
    weights = as_float_array("class_weights", value, np.dtype(np.float64)).astype(np.float64)
    check_shape("class_weights", weights, (V,))
    if not ((weights >= 0) & np.isfinite(weights)).all():
        raise ValueError("class_weights: expected finite numbers of at least 0")
    return weights


def cross_entropy(
    logits: Any,
    y: Any,
    lengths: Any = None,
    *,
    batch_first: bool = False,
    class_weights: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
) -> tuple[float, FloatArray]:
    """Cross-entropy of softmax(logits) and classes, as ``torch.nn.functional.cross_entropy``.

    Parameters
    ----------
    logits : array_like
        (..., V): of (B, V) a class for each sequence, of (T, B, V) one for each step. Float32 or
        float64; the loss is summed in float64.
    y : array_like of int
        (...): classes from 0 to V - 1. Past a sequence's end they are not looked at.
    lengths : array_like of int, optional
        (B,): the steps that each sequence of (T, B, V) has. The others do not count.
    batch_first : bool
        Whether sequences are (B, T, V).
    class_weights : array_like, optional
        (V,): how much a row counts, by its class. The mean is over these weights.
    label_smoothing : float
        The part of a target that is spread over all classes, from 0 to 1.
    ignore_index : int, optional
        A class that does not count, whatever its number.
    reduction : "mean" or "sum"
        Over the rows that count. Where there are none both are zero.

    Returns
    -------
    loss : float
    d_logits : ndarray
        The gradient, in the shape and dtype of the logits; zeros where rows do not count.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> loss, d_logits = fastlstm.nn.cross_entropy(np.zeros((2, 4)), [1, 3])
    >>> round(loss, 3), d_logits[0]
    (1.386, array([ 0.125, -0.375,  0.125,  0.125]))
    """
    array = as_floats("logits", logits)
    if array.ndim == 0 or array.shape[-1] == 0:
        check_shape("logits", array, ("...", "V"))
    classes = _Classes(
        array.shape,
        y,
        lengths,
        batch_first,
        class_weights,
        label_smoothing,
        ignore_index,
        reduction,
    )
    d_logits = np.empty(array.shape, array.dtype)
    by_row = (len(classes.classes), array.shape[-1])
    losses = classes.losses(slice(None), array.reshape(by_row), d_logits.reshape(by_row))
    return float(losses.sum() * classes.factor), d_logits


def linear_cross_entropy(
    linear: Linear,
    x: Any,
    y: Any,
    lengths: Any = None,
    *,
    batch_first: bool = False,
    class_weights: Any = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
    reduction: str = "mean",
    needs: str | Iterable[str] = ("x", "params"),
    accumulate: Gradients | None = None,
) -> tuple[float, Gradients]:
    """Cross-entropy of a linear layer's results, forward and backward, for large vocabularies.

    The same as :func:`cross_entropy` of ``linear(x)`` and the backward pass of both, but the logits
    are in memory for some rows at a time (16 MB of float32), and rows that do not count cost
    nothing.

    Parameters
    ----------
    linear : Linear
        With V results.
    x : array_like
        (..., n_in), its input.
    y, lengths, batch_first, class_weights, label_smoothing, ignore_index, reduction
        As for :func:`cross_entropy` of (..., V) logits.
    needs, accumulate
        As for :meth:`LinearTape.backward`.

    Returns
    -------
    loss : float
    grads : Gradients
        ``x``, and ``params`` of the linear layer.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> linear = fastlstm.nn.Linear(8, 1000, seed=0)
    >>> x, y = np.ones((5, 3, 8), dtype=np.float32), np.zeros((5, 3), dtype=int)
    >>> loss, grads = fastlstm.nn.linear_cross_entropy(linear, x, y, lengths=[5, 1, 3])
    >>> grads.x.shape, grads.params["weight"].shape
    ((5, 3, 8), (1000, 8))
    """
    if not isinstance(linear, Linear):
        raise TypeError(f"linear: expected a Linear, got {type(linear).__name__}")
    shape, rows = as_rows(linear, x)
    V = linear.n_out
    classes = _Classes(
        (*shape[:-1], V),
        y,
        lengths,
        batch_first,
        class_weights,
        label_smoothing,
        ignore_index,
        reduction,
    )
    weights = weights_of(linear)
    needs_x, asked = as_needs(needs, linear.params)
    earlier = as_accumulated(accumulate, asked)
    empty: Any = np.zeros((0, V), linear.dtype)
    grads = LinearTape((0, linear.n_in), rows[:0], weights).backward(
        empty, needs=asked, accumulate=accumulate if earlier else None
    )
    d_x = np.zeros(rows.shape, linear.dtype) if needs_x else None
    counted = np.flatnonzero(classes.classes >= 0)
    at_once = max(_LOGITS // V, 1)
    room = np.empty((min(at_once, len(counted)), V), linear.dtype)
    total = 0.0
    for first in range(0, len(counted), at_once):
        some = counted[first : first + at_once]
        inputs = rows[some]
        logits = weights.multiply(inputs, room[: len(some)])
        total += float(classes.losses(some, logits, logits).sum())
        part = LinearTape(inputs.shape, inputs, weights).backward(
            logits, needs=[*(["x"] if needs_x else []), *asked], accumulate=grads
        )
        if d_x is not None:
            d_x[some] = part.x
    if d_x is not None:
        grads.x = d_x.reshape(shape)
    return total * classes.factor, grads


# --- numbers --------------------------------------------------------------------------------------


def binary_cross_entropy(
    logits: Any,
    y: Any,
    lengths: Any = None,
    *,
    batch_first: bool = False,
    reduction: str = "mean",
) -> tuple[float, FloatArray]:
    """Cross-entropy of sigmoid(logits) and targets from 0 to 1, for each value by itself.

    As ``torch.nn.functional.binary_cross_entropy_with_logits``. Computed in float64.

    Parameters
    ----------
    logits : array_like
        (...), or sequences (T, B, ...) with `lengths`.
    y : array_like
        Targets from 0 to 1, in the shape of the logits.
    lengths, batch_first, reduction
        As for :func:`mse`.

    Returns
    -------
    loss : float
    d_logits : ndarray
        The gradient, in the shape and dtype of the logits.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> fastlstm.nn.binary_cross_entropy([0.0, 0.0], [0, 1], reduction="sum")[1]
    array([ 0.5, -0.5])
    """
    e = _Elements("logits", logits, y, lengths, batch_first, reduction)
    if (e.y < 0).any() or (e.y > 1).any():
        raise ValueError("y: expected numbers from 0 to 1")
    small = np.exp(-np.abs(e.x))
    p = np.where(e.x >= 0, 1, small) / (1 + small)
    short = np.where(e.x >= 0, 1 - e.y, e.y)  # how far y is from what x leads to
    losses = np.multiply(short, np.abs(e.x), out=np.zeros_like(e.x), where=short != 0)
    losses += np.log1p(small)
    return e.loss(losses), e.gradient(p - e.y)


def mse(
    prediction: Any,
    y: Any,
    lengths: Any = None,
    *,
    batch_first: bool = False,
    reduction: str = "mean",
) -> tuple[float, FloatArray]:
    """Squared error, (prediction - y)**2. Computed in float64.

    Parameters
    ----------
    prediction : array_like
        (...), or sequences (T, B, ...) with `lengths`.
    y : array_like
        What should have been predicted, in the same shape.
    lengths : array_like of int, optional
        (B,): the steps that each sequence has. The others do not count, whatever stands there.
    batch_first : bool
        Whether sequences are (B, T, ...).
    reduction : "mean" or "sum"
        Over the values that count. Where there are none both are zero.

    Returns
    -------
    loss : float
    d_prediction : ndarray
        The gradient, in the shape and dtype of the prediction.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> fastlstm.nn.mse([1.0, 2.0], [0.0, 0.0])
    (2.5, array([1., 2.]))
    """
    e = _Elements("prediction", prediction, y, lengths, batch_first, reduction)
    difference = e.x - e.y
    return e.loss(difference**2), e.gradient(2 * difference)


def gaussian(
    mean: Any,
    log_std: Any,
    y: Any,
    lengths: Any = None,
    *,
    batch_first: bool = False,
    reduction: str = "mean",
) -> tuple[float, FloatArray, FloatArray]:
    """Negative log-likelihood of a normal distribution, log_std + ((y - mean) / std)**2 / 2.

    Without the constant log(2 pi) / 2. Computed in float64.

    Parameters
    ----------
    mean, log_std : array_like
        (...): the distribution's mean, and the logarithm of its standard deviation, which a linear
        layer can give as it is.
    y, lengths, batch_first, reduction
        As for :func:`mse`.

    Returns
    -------
    loss : float
    d_mean, d_log_std : ndarray
        Gradients, in the shape and dtype of the mean.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> fastlstm.nn.gaussian([1.0], [0.0], [3.0])
    (2.0, array([-2.]), array([-3.]))
    """
    e = _Elements("mean", mean, y, lengths, batch_first, reduction)
    deviation = as_float_array("log_std", log_std, np.dtype(np.float64))
    check_shape("log_std", deviation, e.shape)
    log = e.taken(deviation)
    inverse = np.exp(-log)
    z = (e.y - e.x) * inverse
    return e.loss(log + z**2 / 2), e.gradient(-z * inverse), e.gradient(1 - z**2)


def quantile(
    prediction: Any,
    y: Any,
    quantiles: Any,
    lengths: Any = None,
    *,
    batch_first: bool = False,
    reduction: str = "mean",
) -> tuple[float, FloatArray]:
    """Quantile loss: q (y - prediction) where y is above, (1 - q)(prediction - y) where below.

    Its minimum is at the q-quantile of y. Computed in float64.

    Parameters
    ----------
    prediction : array_like
        (..., Q), or sequences (T, B, ..., Q) with `lengths`: a value for each quantile.
    y : array_like
        (...): what should have been predicted.
    quantiles : array_like
        (Q,): numbers between 0 and 1, say 0.05, 0.5 and 0.95 for an interval and its middle.
    lengths, batch_first, reduction
        As for :func:`mse`.

    Returns
    -------
    loss : float
    d_prediction : ndarray
        The gradient, in the shape and dtype of the prediction; zero where both are equal.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, value or type than stated.

    Examples
    --------
    >>> fastlstm.nn.quantile([[1.0, 1.0]], [3.0], [0.5, 0.9], reduction="sum")
    (2.8, array([[-0.5, -0.9]]))
    """
    q = as_float_array("quantiles", quantiles, np.dtype(np.float64))
    check_shape("quantiles", q, ("Q",))
    if not ((q > 0) & (q < 1)).all():
        raise ValueError("quantiles: expected numbers between 0 and 1")
    array = as_floats("prediction", prediction)
    if array.ndim == 0 or array.shape[-1] != len(q):
        check_shape("prediction", array, ("...", len(q)))
    target = as_float_array("y", y, np.dtype(np.float64))
    check_shape("y", target, array.shape[:-1])
    if lengths is not None and array.ndim < 3:
        raise ValueError(f"lengths: expected None for predictions of shape {array.shape}")
    every_y = np.broadcast_to(target[..., None], array.shape)
    e = _Elements("prediction", array, every_y, lengths, batch_first, reduction)
    q = e.taken(np.broadcast_to(q, e.shape))
    above = e.y - e.x
    losses = np.maximum(q * above, (q - 1) * above)
    return e.loss(losses), e.gradient(
        np.where(above > 0, -q, np.where(above < 0, 1 - q, 0 * above))
    )
