"""What several parts need: float64 arrays of a checked shape, sigmoid and logsumexp."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def as_array(name: str, value: npt.ArrayLike, shape: tuple[int | str, ...]) -> Array:
    """Return `value` in float64 after checking its shape.

    Parameters
    ----------
    name : str
        What the error message calls it.
    value : array_like
        A new array is made only where the dtype differs.
    shape : tuple of int or str
        An int is the size of that axis; a str names an axis of any size.

    Raises
    ------
    ValueError
        ``x: expected (T, B, 64), got (100, 32, 63)``.
    """
    array = np.asarray(value, dtype=np.float64)
    check_shape(name, array.shape, shape)
    return array


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int | str, ...]) -> None:
    """Do the check of `as_array`."""
    fits = len(shape) == len(expected) and all(
        isinstance(wanted, str) or wanted == size
        for wanted, size in zip(expected, shape, strict=True)
    )
    if not fits:  # written as Python writes a tuple, with the names of free axes unquoted
        text = f"({', '.join(map(str, expected))}{',' if len(expected) == 1 else ''})"
        raise ValueError(f"{name}: expected {text}, got {shape}")


def as_it_is(rows: Array) -> Array:
    """Return what is given."""
    return rows


def sigmoid(x: npt.ArrayLike) -> Array:
    """Return 1 / (1 + exp(-x)), the smooth switch from 0 (closed) to 1 (open).

    Only exp(-abs(x)) is computed. It cannot overflow, and for large negative `x`, where the sigmoid
    is about exp(x), no digits are lost either.

    Parameters
    ----------
    x : array_like
        Any shape.

    Returns
    -------
    ndarray of float64
        Shape of `x`, in [0, 1]. 0 at minus infinity, 1 at infinity, NaN at NaN.

    Examples
    --------
    >>> sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """
    x = np.asarray(x, dtype=np.float64)
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1.0 + e))


def logsumexp(x: Array, axis: int | None = None) -> Array:
    """Return log(sum(exp(x))) along an axis, or over all; -inf of nothing but -inf.

    The largest value is taken out of the sum, which then cannot overflow.
    """
    most = np.max(x, axis=axis, keepdims=True)
    most = np.where(np.isneginf(most), 0.0, most)
    with np.errstate(divide="ignore"):  # log(0)
        total = np.log(np.sum(np.exp(x - most), axis=axis))
    return np.asarray(total + np.squeeze(most, axis=axis))
