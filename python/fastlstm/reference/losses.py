"""Losses and their gradients, as a textbook has them: sums over the rows that count."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._arrays import Array, sigmoid
from .blocks import softmax

Indices = npt.NDArray[np.int64]


def cross_entropy(
    logits: Array, y: Indices, class_weights: Array, smoothing: float = 0.0
) -> tuple[float, Array]:
    """-sum_c q_c log p_c with p = softmax(logits), of (n, V) logits and (n,) classes.

    q is 1 - smoothing at the class y, and smoothing / V more at every class, each times the
    weight of its class. (Szegedy et al.: Rethinking the inception architecture for computer
    vision, 2016.)
    """
    n, V = logits.shape
    q = np.full((n, V), smoothing / V)
    q[np.arange(n), y] += 1 - smoothing
    q *= class_weights
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return -float(np.sum(q * log_p)), q.sum(axis=1, keepdims=True) * softmax(logits) - q


def binary_cross_entropy(logits: Array, y: Array) -> tuple[float, Array]:
    """-(y log p + (1 - y) log(1 - p)) with p = sigmoid(logits)."""
    loss = np.logaddexp(0, logits) - y * logits
    return float(loss.sum()), sigmoid(logits) - y


def mse(x: Array, y: Array) -> tuple[float, Array]:
    """(x - y)**2."""
    return float(np.sum((x - y) ** 2)), 2 * (x - y)


def gaussian(mean: Array, log_std: Array, y: Array) -> tuple[float, Array, Array]:
    """-log of the density of a normal distribution, but for the constant log(2 pi) / 2."""
    z = (y - mean) / np.exp(log_std)
    return float(np.sum(log_std + z**2 / 2)), -z / np.exp(log_std), 1 - z**2


def quantile(x: Array, y: Array, quantiles: Array) -> tuple[float, Array]:
    """The loss whose minimum is at each quantile of y: (n, Q) predictions x of (n,) values.

    It is q (y - x) where y is above x, and (1 - q)(x - y) below. (Koenker and Bassett: Regression
    quantiles, 1978.)
    """
    above = y[:, np.newaxis] - x
    loss = np.maximum(quantiles * above, (quantiles - 1) * above)
    return float(loss.sum()), np.where(above > 0, -quantiles, np.where(above < 0, 1 - quantiles, 0))
