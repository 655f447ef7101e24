"""ONNX's operators that compute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from .call import Array, Call, Operator
from .file import elements


def _each(function: Callable[..., Any]) -> Operator:
    """An operator on each element of its inputs, which are broadcast."""

    def operator(call: Call) -> Array:
        arrays = [call[k] for k in range(len(call.inputs))]
        if call.attributes:  # old versions have a broadcasting of their own
            raise ValueError(f"{call.kind}: expected no attributes, got {[*call.attributes]}")
        call.make(np.broadcast_shapes(*(a.shape for a in arrays)), _widest(arrays))
        return np.asarray(function(*arrays))

    return operator


def _widest(arrays: Sequence[Array]) -> Any:
    return max((a.dtype for a in arrays), key=lambda dtype: dtype.itemsize)


def _folded(function: Callable[..., Any]) -> Operator:
    """An operator that takes any number of inputs, two at a time."""

    def operator(call: Call) -> Array:
        def both(a: Array, b: Array) -> Array:
            call.make(np.broadcast_shapes(a.shape, b.shape), _widest((a, b)))
            return np.asarray(function(a, b))

        return reduce(both, (call[k] for k in range(len(call.inputs))))

    return operator


def _mean(call: Call) -> Array:
    total = np.asarray(_folded(np.add)(call))
    return np.asarray(total / total.dtype.type(len(call.inputs)))


def _divided(a: Array, b: Array) -> Array:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    quotient = np.abs(a) // np.abs(b)  # towards zero, as in C
    return np.asarray(np.where((a < 0) != (b < 0), -quotient, quotient), a.dtype)


def _mod(call: Call) -> Array:
    a, b = call[0], call[1]
    call.make(np.broadcast_shapes(a.shape, b.shape), _widest((a, b)))
    return np.asarray(np.fmod(a, b) if call.attributes.get("fmod", 0) else np.mod(a, b))


def _power(a: Array, b: Array) -> Array:
    return np.power(a, b).astype(a.dtype)


def _clip(call: Call) -> Array:
    array = call[0]
    call.make(array.shape, array.dtype)
    for name, k, function in (("min", 1, np.maximum), ("max", 2, np.minimum)):
        bound = call.given(k)
        bound = call.attributes.get(name) if bound is None else bound
        if bound is not None:
            array = function(array, np.asarray(bound, array.dtype).reshape(()))
    return array


def _reduced(function: Callable[..., Any]) -> Operator:
    def operator(call: Call) -> Array:
        array, axes = call[0], call.either("axes", 1)
        if not axes and call.attributes.get("noop_with_empty_axes", 0):
            return array
        if array.size == 0:
            raise ValueError(f"{call.kind}: of nothing")
        call.make(array.shape, array.dtype)
        keep = bool(call.attributes.get("keepdims", 1))
        result = function(array, axis=tuple(axes) if axes else None, keepdims=keep)
        return np.asarray(result, array.dtype)

    return operator


def _of_squares(array: Array, **axes: Any) -> Any:
    return np.sum(np.square(array), **axes)


def _arg(function: Callable[..., Any]) -> Operator:
    def operator(call: Call) -> Array:
        if call.attributes.get("select_last_index", 0):
            raise ValueError(f"{call.kind}: expected no select_last_index")
        axis, keep = call.attributes.get("axis", 0), bool(call.attributes.get("keepdims", 1))
        array = call[0]
        call.make(array.shape, array.dtype)  # NumPy copies what is not contiguous
        call.make((array.size // max(array.shape[axis], 1),), np.int64)
        return np.asarray(function(array, axis=axis, keepdims=keep), np.int64)

    return operator


def _product(call: Call, a: Array, b: Array) -> Array:
    if a.dtype.kind != "f" or a.dtype != b.dtype or a.dtype.itemsize < 4:
        raise ValueError(f"{call.kind}: expected two matrices of floats, got {a.dtype}, {b.dtype}")
    rows = a.shape[-2] if a.ndim > 1 else 1
    columns = b.shape[-1] if b.ndim > 1 else 1
    stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    call.make((*stack, rows, columns), a.dtype)
    call.room.work(elements((*stack, rows, columns, a.shape[-1])) // 32)
    return np.asarray(np.matmul(a, b))


def _matmul(call: Call) -> Array:
    return _product(call, call[0], call[1])


def _gemm(call: Call) -> Array:
    a, b = (
        call[k].T if call.attributes.get(name, 0) else call[k]
        for k, name in ((0, "transA"), (1, "transB"))
    )
    alpha, beta = (a.dtype.type(call.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    product = alpha * _product(call, a, b)
    added = call.given(2)
    if added is not None:
        product = product + np.broadcast_to(beta * added, product.shape)
    return np.asarray(product)


def _lp_normalized(call: Call) -> Array:
    array, axis = call[0], call.attributes.get("axis", -1)
    call.make(array.shape, np.float64)
    norm = np.linalg.norm(array, call.attributes.get("p", 2), axis, keepdims=True)
    return np.asarray(array / np.where(norm == 0, 1, norm), array.dtype)


_OF_EACH: dict[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divided,
    "Pow": _power,
    "Neg": np.negative,
    "Abs": np.abs,
    "Sign": np.sign,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Sin": np.sin,
    "Cos": np.cos,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.rint,
    "Reciprocal": lambda a: (1 / a).astype(a.dtype),
    "Sigmoid": lambda a: (1 / (1 + np.exp(-a))).astype(a.dtype),
    "Tanh": np.tanh,
    "Relu": lambda a: np.maximum(a, 0),
    "Softplus": lambda a: np.logaddexp(a, a.dtype.type(0)),
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Where": np.where,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Not": np.logical_not,
    "IsNaN": np.isnan,
}
_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
    "ReduceProd": np.prod,
    "ReduceL1": lambda a, **axes: np.sum(np.abs(a), **axes),
    "ReduceL2": lambda a, **axes: np.sqrt(_of_squares(a, **axes)),
    "ReduceSumSquare": _of_squares,
    "ReduceLogSum": lambda a, **axes: np.log(np.sum(a, **axes)),
    "ReduceLogSumExp": lambda a, **axes: np.log(np.sum(np.exp(a), **axes)),
}

ARITHMETIC: dict[str, Operator] = {
    **{kind: _each(function) for kind, function in _OF_EACH.items()},
    **{kind: _reduced(function) for kind, function in _REDUCTIONS.items()},
    "Sum": _folded(np.add),
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mean": _mean,
    "Mod": _mod,
    "Clip": _clip,
    "ArgMax": _arg(np.argmax),
    "ArgMin": _arg(np.argmin),
    "MatMul": _matmul,
    "Gemm": _gemm,
    "LpNormalization": _lp_normalized,
}
