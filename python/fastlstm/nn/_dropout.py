"""Dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import _core
from fastlstm._checks import FloatArray, as_float_array, check_shape
from fastlstm.layers.options import Option, as_probability

from ._block import Block, Gradients, as_floats, draw_seed, random_of


class DropoutTape:
    """What :meth:`Dropout.forward` saved: the seed, of which the mask is drawn again."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], p: float, seed: int) -> None:
        self._shape = shape
        self._dtype = dtype
        self._p = p
        self._seed = seed

    def backward(self, d_y: Any) -> Gradients:
        """Return the gradient of the input, as ``x``.

        Parameters
        ----------
        d_y : array_like
            The gradient with respect to the result, in its shape.

        Raises
        ------
        ValueError, TypeError
            `d_y` has another shape or type than stated.
        """
        array = as_float_array("d_y", d_y, self._dtype)
        check_shape("d_y", array, self._shape)
        return Gradients(_dropped(array, self._p, self._seed), {})


class Dropout(Block):
    """Dropout: in training a part of the values becomes zero, and the others 1 / (1 - p) as large.

    The mask follows from the seed, and from the row and column of a value, by the generator of the
    layers' dropout (Philox; docs/regularisation.md): it is the same for any number of threads, and
    is not stored.

    Parameters
    ----------
    p : float
        The part that becomes zero, from 0 to 1.
    seed : int, optional
        Of the block's own random numbers, from which each call takes its seed.

    Attributes
    ----------
    training : bool
        Whether :meth:`forward` drops values; True at first. :meth:`Module.eval` sets it to False.

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated.

    Examples
    --------
    >>> dropout = fastlstm.nn.Dropout(0.5, seed=0)
    >>> y, tape = dropout.forward(np.ones((2, 4)))
    >>> bool(np.isin(y, [0, 2]).all()), np.array_equal(tape.backward(np.ones((2, 4))).x, y)
    (True, True)
    >>> dropout(np.ones(3))  # inference
    array([1., 1., 1.])
    """

    p = Option[float](as_probability, "The part that becomes zero.")
    training = True

    def __init__(self, p: float, *, seed: int | None = None) -> None:
        super().__init__(locals(), {})
        self._random = random_of(seed)

    def __call__(self, x: Any) -> FloatArray:
        """Return `x`, as there is no dropout in inference."""
        return as_floats("x", x)

    def forward(self, x: Any, *, seed: int | None = None) -> tuple[FloatArray, DropoutTape]:
        """Drop values, and return a tape for the backward pass.

        Parameters
        ----------
        x : array_like
            Any shape.
        seed : int, optional
            Of the mask; by default the next of the block's own random numbers.

        Returns
        -------
        y : ndarray
            Like `x`.
        tape : DropoutTape

        Raises
        ------
        ValueError, TypeError
            An argument has another value or type than stated.
        """
        array = as_floats("x", x)
        p = self.p if self.training else 0.0
        of_call = draw_seed(self._random, seed) if p > 0 else 0
        return _dropped(array, p, of_call), DropoutTape(array.shape, array.dtype, p, of_call)


def _dropped(x: FloatArray, p: float, seed: int) -> FloatArray:
    if p == 0:
        return x
    y = np.empty(x.shape, x.dtype)
    width = x.shape[-1] if x.ndim and x.size else 1
    rows = (x.size // width, width)
    _core.drop(x.reshape(rows), seed, p, y.reshape(rows))
    return y
