"""A linear layer."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm import _core
from fastlstm._checks import (
    FloatArray,
    as_bool,
    as_float_array,
    check_apart,
    check_out,
    check_shape,
)
from fastlstm.layers.options import Option, as_size, table_of

from ._block import DTYPE, Block, Gradients, Shapes, as_accumulated, as_needs, random_of

_MATRICES: dict[str, Any] = {
    "float32": _core.PackedMatrixFloat32,
    "float64": _core.PackedMatrixFloat64,
}


class Weights:
    """The parameters of one moment: W of (n_out, n_in), packed once it is needed, and b."""

    def __init__(self, params: Mapping[str, FloatArray]) -> None:
        self.W = params["weight"]
        self.bias = params.get("bias")

    @functools.cached_property
    def _packed(self) -> Any:
        return _MATRICES[self.W.dtype.name].make(self.W)

    @functools.cached_property
    def _transposed(self) -> Any:
        return self._packed.transposed()

    def multiply(self, x: FloatArray, y: FloatArray | None = None) -> FloatArray:
        """x W^T + b of (n, n_in) rows; y: where it goes."""
        if y is None:
            y = np.empty((len(x), len(self.W)), x.dtype)
        self._packed.multiply(x, self.bias, y)
        return y

    def multiply_gradient(self, d_y: FloatArray, d_x: FloatArray) -> None:
        """d_x = d_y W."""
        self._transposed.multiply(d_y, None, d_x)


class LinearTape:
    """What :meth:`Linear.forward` saved: the parameters, and the input itself, which is not copied.

    Do not write into that array before :meth:`backward`.
    """

    def __init__(self, shape: tuple[int, ...], x: FloatArray, weights: Weights) -> None:
        self._shape = shape
        self._x = x
        self._weights = weights

    def backward(
        self,
        d_y: Any,
        *,
        needs: str | Iterable[str] = ("x", "params"),
        accumulate: Gradients | None = None,
    ) -> Gradients:
        """Return the gradients of the loss.

        Parameters
        ----------
        d_y : array_like
            (..., n_out), the gradient with respect to the result.
        needs : str or iterable of str
            What gradients are asked for: "x", "params", or names of single parameters.
        accumulate : Gradients, optional
            An earlier result: gradients of parameters are added into its arrays.

        Returns
        -------
        Gradients

        Raises
        ------
        ValueError, TypeError
            An argument has another shape, value or type than stated. Nothing has been added then.
        """
        W, bias = self._weights.W, self._weights.bias
        names = ["weight"] if bias is None else ["weight", "bias"]
        needs_x, asked = as_needs(needs, names)
        array = as_float_array("d_y", d_y, W.dtype)
        check_shape("d_y", array, (*self._shape[:-1], len(W)))
        rows = array.reshape(len(self._x), len(W))
        params = as_accumulated(accumulate, asked)
        for name in params:
            check_out(f"accumulate.params[{name!r}]", params[name], W.dtype, _shape_of(W, name))
        if params:
            labels = {f"accumulate.params[{name!r}]": value for name, value in params.items()}
            check_apart(labels, {"d_y": rows, "x": self._x})
        else:
            params = {name: np.zeros(_shape_of(W, name), W.dtype) for name in asked}
        if "weight" in asked:
            _core.add_products(rows, self._x, params["weight"])
        if "bias" in asked:
            _core.add_sums(rows, params["bias"])
        d_x: Any = None
        if needs_x:
            d_x = np.empty(self._x.shape, W.dtype)
            self._weights.multiply_gradient(rows, d_x)
            d_x = d_x.reshape(self._shape)
        return Gradients(d_x, params)


def _shape_of(W: FloatArray, name: str) -> tuple[int, ...]:
    """The shape of a parameter."""
    return W.shape if name == "weight" else W.shape[:1]


class Linear(Block):
    """A linear layer: y = x W^T + b on the last axis, whatever the others are.

    All rows are one product, on the library's own kernels and threads: the same bits for any number
    of threads, and for a row whatever rows are beside it. Parameters have the names and shapes of
    ``torch.nn.Linear``, and its initial values, uniform within 1 / sqrt(n_in).

    Parameters
    ----------
    n_in, n_out : int
        The features of x and of y.
    bias : bool
        Whether there is a b.
    dtype : "float32" or "float64"
        Of parameters, inputs and results.
    seed : int, optional
        Of the initial values.

    Raises
    ------
    ValueError, TypeError
        An argument has another value or type than stated.

    Examples
    --------
    >>> linear = fastlstm.nn.Linear(4, 2, seed=0)
    >>> x = np.ones((5, 3, 4), dtype=np.float32)
    >>> y, tape = linear.forward(x)
    >>> grads = tape.backward(np.ones_like(y))
    >>> y.shape, grads.x.shape, grads.params["weight"].shape
    ((5, 3, 2), (5, 3, 4), (2, 4))
    """

    dtype = DTYPE
    n_in = Option[int](as_size, "The number of features of an input.")
    n_out = Option[int](as_size, "The number of features of a result.")
    bias = Option[bool](as_bool, "Whether there is a bias.")
    _weights: Weights

    def __init__(
        self,
        n_in: int,
        n_out: int,
        bias: bool = True,
        *,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        options = table_of(Linear).checked(locals())
        bound, random = 1 / math.sqrt(options["n_in"]), random_of(seed)
        values = {
            name: random.uniform(-bound, bound, shape)
            for name, shape in self._shapes(options).items()
        }
        super().__init__(options, values)

    @classmethod
    def _shapes(cls, options: Mapping[str, Any]) -> Shapes:
        n_in, n_out = options["n_in"], options["n_out"]
        return {"weight": (n_out, n_in), **({"bias": (n_out,)} if options["bias"] else {})}

    def _derived(
        self, values: Mapping[str, FloatArray], params: Mapping[str, FloatArray]
    ) -> dict[str, Any]:
        return {"_weights": Weights(params)}

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        del state["_weights"]
        return state

    def __call__(self, x: Any) -> FloatArray:
        """Return x W^T + b.

        Parameters
        ----------
        x : array_like
            (..., n_in).

        Returns
        -------
        ndarray
            (..., n_out).

        Raises
        ------
        ValueError, TypeError
            `x` has another shape or type than stated.
        """
        shape, rows = as_rows(self, x)
        return self._weights.multiply(rows).reshape(*shape[:-1], self.n_out)

    def forward(self, x: Any) -> tuple[FloatArray, LinearTape]:
        """Return x W^T + b, and a tape for the backward pass.

        Parameters
        ----------
        x : array_like
            (..., n_in). The tape keeps the array, without a copy.

        Returns
        -------
        y : ndarray
            (..., n_out).
        tape : LinearTape

        Raises
        ------
        ValueError, TypeError
            `x` has another shape or type than stated.
        """
        weights = self._weights
        shape, rows = as_rows(self, x)
        y = weights.multiply(rows).reshape(*shape[:-1], self.n_out)
        return y, LinearTape(shape, rows, weights)


def weights_of(linear: Linear) -> Weights:
    """Return the parameters of this moment."""
    return linear._weights


def as_rows(linear: Linear, x: Any) -> tuple[tuple[int, ...], FloatArray]:
    """Check a layer's input, and return its shape and its rows."""
    array = as_float_array("x", x, linear.dtype)
    if array.ndim == 0 or array.shape[-1] != linear.n_in:
        check_shape("x", array, ("...", linear.n_in))
    return array.shape, array.reshape(math.prod(array.shape[:-1]), linear.n_in)
