"""Gradients by finite differences, to prove the reference with nothing but its forward pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt


def numerical_gradient(
    loss: Callable[[], float], array: npt.NDArray[np.float64], step: float = 1e-3
) -> npt.NDArray[np.float64]:
    """Return the gradient of `loss()` with respect to `array`, which it must read anew each time.

    Five points per element: the formula's error is step**4 / 30 times the fifth derivative, and
    rounding adds about 1e-16 / step times the loss. Both are near 1e-13 at the default step for a
    smooth loss of about 1.
    """
    gradient = np.empty_like(array)
    for index in np.ndindex(array.shape):
        direction = np.zeros_like(array)
        direction[index] = 1
        gradient[index] = _slope(loss, array, direction, step)
    return gradient


def slope_error(
    gradient: npt.NDArray[np.float64],
    loss: Callable[[], float],
    array: npt.NDArray[np.float64],
    step: float = 1e-3,
) -> float:
    """Return how far `gradient` is from the slopes of `loss()` along three random directions.

    As a part of the gradient's largest value, as :func:`relative_error` does it. Each direction has
    a part of every element, so a wrong element shows, for a dozen losses instead of four for each
    element. They have length one: no further from a corner of a function than one element's step.
    """
    if gradient.shape != array.shape:
        raise AssertionError(f"shape {gradient.shape}, expected {array.shape}")
    rng = np.random.default_rng(0)
    found, expected = np.empty((2, 3))
    for k in range(3):
        direction = rng.standard_normal(array.shape)
        direction /= np.linalg.norm(direction)
        found[k] = np.sum(gradient * direction)
        expected[k] = _slope(loss, array, direction, step)
    scale = np.max(np.abs(gradient), initial=0.1)
    return float(np.max(np.abs(found - expected)) / scale)


def _slope(
    loss: Callable[[], float],
    array: npt.NDArray[np.float64],
    direction: npt.NDArray[np.float64],
    step: float,
) -> float:
    original = array.copy()
    values = []
    for k in (-2, -1, 1, 2):
        array[...] = original + k * step * direction
        values.append(loss())
    array[...] = original
    before2, before1, after1, after2 = values
    return (before2 - 8 * before1 + 8 * after1 - after2) / (12 * step)


def relative_error(actual: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    """Return the largest difference as a part of the largest expected value.

    Where all expected values are below 0.1 it is a part of 0.1, as rounding in a loss of about 1
    leaves noise in a gradient that is zero.
    """
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape}, expected {expected.shape}")
    scale = np.max(np.abs(expected), initial=0.1)
    return float(np.max(np.abs(actual - expected), initial=0.0) / scale)
