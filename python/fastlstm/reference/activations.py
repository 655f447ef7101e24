"""The activation functions of ONNX's recurrent layers, and their slopes.

.. code-block:: text

    Affine           alpha x + beta
    Relu             max(0, x)
    LeakyRelu        x where x >= 0, else alpha x
    ThresholdedRelu  x where x >= alpha, else 0
    Tanh             tanh(x)
    ScaledTanh       alpha tanh(beta x)
    Sigmoid          1 / (1 + exp(-x))
    HardSigmoid      alpha x + beta, but at least 0 and at most 1
    Elu              x where x >= 0, else alpha (exp(x) - 1)
    Softsign         x / (1 + abs(x))
    Softplus         log(1 + exp(x))

At a corner the slope is zero where the value is that of a constant piece, and that of the right
side otherwise.
"""

from __future__ import annotations

import numpy as np

from fastlstm._activations import Activation

from ._arrays import Array, sigmoid

SIGMOID, TANH = Activation("Sigmoid"), Activation("Tanh")


def activate(function: Activation, x: Array) -> Array:
    """Return the function's values.

    Examples
    --------
    >>> activate(Activation("HardSigmoid", 0.2, 0.5), np.array([-3.0, 0.0, 1.0, 3.0]))
    array([0. , 0.5, 0.7, 1. ])
    """
    name, alpha, beta = function
    if name == "Affine":
        return np.asarray(alpha * x + beta)
    if name == "Relu":
        return np.asarray(np.maximum(x, 0.0))
    if name == "LeakyRelu":
        return np.where(x < 0, alpha * x, x)
    if name == "ThresholdedRelu":
        return np.where(x < alpha, 0.0, x)
    if name == "Tanh":
        return np.tanh(x)
    if name == "ScaledTanh":
        return alpha * np.tanh(beta * x)
    if name == "Sigmoid":
        return sigmoid(x)
    if name == "HardSigmoid":
        return np.minimum(np.maximum(alpha * x + beta, 0.0), 1.0)
    if name == "Elu":
        return np.where(x < 0, alpha * np.expm1(np.minimum(x, 0.0)), x)
    if name == "Softsign":
        return np.asarray(x / (1 + np.abs(x)))
    if name == "Softplus":
        return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))
    raise ValueError(f"expected the name of an activation function, got {name!r}")


def clipped(function: Activation, a: Array, clip: float) -> Array:
    """Return function(clip(a))."""
    return activate(function, np.clip(a, -clip, clip))


def clipped_slope(function: Activation, a: Array, clip: float) -> Array:
    """Return the slope of `clipped`: none beyond the bounds."""
    return np.where(np.abs(a) <= clip, slope(function, np.clip(a, -clip, clip)), 0.0)


def slope(function: Activation, x: Array) -> Array:
    """Return the function's derivative.

    Examples
    --------
    >>> slope(Activation("HardSigmoid", 0.2, 0.5), np.array([-3.0, 0.0, 1.0, 3.0]))
    array([0. , 0.2, 0.2, 0. ])
    """
    name, alpha, beta = function
    one = np.ones_like(x)
    if name == "Affine":
        return alpha * one
    if name == "Relu":
        return np.where(x > 0, 1.0, 0.0)
    if name == "LeakyRelu":
        return np.where(x < 0, alpha, 1.0)
    if name == "ThresholdedRelu":
        return np.where(x < alpha, 0.0, 1.0)
    if name == "Tanh":
        return 1 - np.tanh(x) ** 2
    if name == "ScaledTanh":
        return alpha * beta * (1 - np.tanh(beta * x) ** 2)
    if name == "Sigmoid":
        return sigmoid(x) * (1 - sigmoid(x))
    if name == "HardSigmoid":
        inside = (alpha * x + beta > 0) & (alpha * x + beta < 1)
        return np.where(inside, alpha, 0.0)
    if name == "Elu":
        return np.where(x < 0, alpha * np.exp(np.minimum(x, 0.0)), 1.0)
    if name == "Softsign":
        return 1 / (1 + np.abs(x)) ** 2
    if name == "Softplus":
        return sigmoid(x)
    raise ValueError(f"expected the name of an activation function, got {name!r}")
