"""ONNX's operators between whole numbers of a few bits and the floats that they stand for."""

from __future__ import annotations

import numpy as np

from .call import Array, Call, Operator


def _along(call: Call, array: Array, values: Array) -> Array:
    """Scales or zero points, in a shape that goes with what they are for.

    One for all; or one for each place along an axis, since version 13; or one for each block of
    places, since 21.
    """
    axis = call.attributes.get("axis", 1)
    if values.size == 1 and values.ndim < 2:
        return values.reshape(())
    if call.version < 13:
        raise ValueError(f"{call.kind}: expected one scale, got {values.size}")
    size, block = array.shape[axis], call.attributes.get("block_size", 0)
    if block == 0:
        if values.shape != (size,):
            raise ValueError(f"{call.kind}: expected {size} scales, got {values.shape}")
        return values.reshape([size if k == axis % array.ndim else 1 for k in range(array.ndim)])
    expected = list(array.shape)
    expected[axis] = -(-size // block)
    if block < 0 or values.shape != tuple(expected):
        raise ValueError(f"{call.kind}: expected scales {tuple(expected)}, got {values.shape}")
    call.make(array.shape, values.dtype)
    places = np.arange(size) // block
    return np.asarray(np.take(values, places, axis))


def _dequantized(call: Call) -> Array:
    array, scale, zero = call[0], call[1], call.given(2)
    if scale.dtype.kind != "f" and scale.dtype.name != "bfloat16":
        raise ValueError(f"{call.kind}: expected a scale in floats, got {scale.dtype}")
    if zero is not None and zero.shape != scale.shape and zero.size != 1:
        raise ValueError(f"{call.kind}: expected zero points {scale.shape}, got {zero.shape}")
    if call.attributes.get("output_dtype", 0):
        raise ValueError(f"{call.kind}: expected no output_dtype")
    # Differences of 16-bit numbers are exact in float32, those of 32-bit ones in float64.
    exact = np.float32 if array.dtype.itemsize < 4 else np.float64
    call.make(array.shape, exact)
    values = array.astype(exact)
    if zero is not None:
        values = np.subtract(values, _along(call, array, zero).astype(exact), out=values)
    values = values.astype(np.float32, copy=False)
    values = np.multiply(values, _along(call, array, scale).astype(np.float32), out=values)
    return np.asarray(values.astype(scale.dtype, copy=False))


def _quantized(call: Call) -> Array:
    array, scale, zero = call[0], call[1], call.given(2)
    zero = np.zeros(scale.shape, np.uint8) if zero is None else zero
    if zero.dtype.kind not in "iu" or call.attributes.get("output_dtype", 0):
        raise ValueError(f"{call.kind}: expected a type of whole numbers, got {zero.dtype}")
    call.make(array.shape, np.float64)
    array = array.astype(np.float32) if array.dtype.kind in "iu" else array
    ratio = np.rint(array / _along(call, array, scale).astype(array.dtype))
    limits = np.iinfo(zero.dtype)
    moved = ratio + _along(call, array, zero)
    return np.asarray(np.clip(moved, limits.min, limits.max).astype(zero.dtype))


def _numbers(call: Call) -> Array:
    """The whole numbers of DequantizeLinear's result, without their scales and zero points."""
    if call[0].dtype not in (np.int8, np.uint8):
        raise ValueError(f"{call.kind}: expected whole numbers of 8 bits, got {call[0].dtype}")
    call.make(call[0].shape, np.int16)
    return call[0].astype(np.int16)


def _scales(call: Call) -> Array:
    """The scale of each."""
    return np.broadcast_to(_along(call, call[0], call[1]).astype(np.float32), call[0].shape)


def _zeros(call: Call) -> Array:
    """The zero point of each."""
    zero = call.given(2)
    if zero is None:
        return np.broadcast_to(np.int16(0), call[0].shape)
    return np.broadcast_to(_along(call, call[0], zero).astype(np.int16), call[0].shape)


PARTS: dict[str, Operator] = {"numbers": _numbers, "scales": _scales, "zeros": _zeros}
"""What DequantizeLinear's result is made of, each in its shape."""

QUANTISED: dict[str, Operator] = {
    "DequantizeLinear": _dequantized,
    "QuantizeLinear": _quantized,
}
