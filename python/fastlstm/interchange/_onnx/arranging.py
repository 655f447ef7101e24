"""ONNX's operators that arrange numbers and change none: shapes, pieces, places, types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .call import Array, Call, Operator

_OF_A_VIEW = 100  # bytes of an array that has none of its own


def _identity(call: Call) -> Array:
    if call.kind == "Dropout" and (call.version < 7 or call.given(2) is not None):
        raise ValueError("Dropout: perhaps in training mode")
    return call[0]


def _reshaped(call: Call, array: Array, shape: Sequence[int]) -> Array:
    if not array.flags.c_contiguous:  # NumPy copies
        call.make(array.shape, array.dtype)
    return array.reshape(tuple(shape))


def _reshape(call: Call) -> Array:
    array, shape = call[0], call.integers("shape", 1)
    if not call.attributes.get("allowzero", 0):
        shape = [array.shape[k] if size == 0 else size for k, size in enumerate(shape)]
    return _reshaped(call, array, shape)


def _flatten(call: Call) -> Array:
    array, axis = call[0], call.attributes.get("axis", 1)
    first = math.prod(array.shape[: axis if axis >= 0 else axis + array.ndim])
    return _reshaped(call, array, (first, array.size // first if first else -1))


def _squeeze(call: Call) -> Array:
    axes = call.either("axes", 1)
    return np.squeeze(call[0], None if axes is None else tuple(axes))


def _unsqueeze(call: Call) -> Array:
    axes = call.integers("axes", 1)
    return np.expand_dims(call[0], tuple(axes))


def _transpose(call: Call) -> Array:
    return np.transpose(call[0], call.attributes.get("perm"))


def _slice(call: Call) -> Array:
    array = call[0]
    starts, ends = call.integers("starts", 1), call.integers("ends", 2)
    axes = call.either("axes", 3)
    steps = call.either("steps", 4)
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index: list[Any] = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = _piece(start, end, step, array.shape[axis])
    return np.asarray(array[tuple(index)])


def _piece(start: int, end: int, step: int, size: int) -> slice:
    """ONNX's start and end as Python's, which differ where steps go backwards."""
    start, end = (n + size if n < 0 else n for n in (start, end))
    if step > 0:
        return slice(min(max(start, 0), size), min(max(end, 0), size), step)
    end = min(max(end, -1), size - 1)
    return slice(min(max(start, 0), size - 1), None if end < 0 else end, step)


def _split(call: Call) -> list[Array]:
    array, axis = call[0], call.attributes.get("axis", 0)
    sizes, size = call.either("split", 1, call.outputs), array.shape[axis]
    call.room.take(_OF_A_VIEW * call.outputs)
    if sizes is None:
        count = call.outputs
        if call.attributes.get("num_outputs", count) != count or count > max(size, 1):
            raise ValueError(f"Split: expected {call.attributes.get('num_outputs')} outputs")
        each = -(-size // count)
        sizes = [each] * (count - 1) + [size - each * (count - 1)]
    if sum(sizes) != size or min(sizes, default=0) < 0 or len(sizes) != call.outputs:
        raise ValueError(f"Split: expected {call.outputs} sizes that sum up to {size}, got {sizes}")
    return np.split(array, np.cumsum(sizes[:-1]), axis)


def _concat(call: Call) -> Array:
    arrays = [call[k] for k in range(len(call.inputs))]
    call.room.take(sum(array.nbytes for array in arrays))
    return np.concatenate(arrays, call.attributes.get("axis", 1))


def _expand(call: Call) -> Array:
    array = call[0]
    shape = np.broadcast_shapes(array.shape, tuple(call.integers("shape", 1)))
    return np.broadcast_to(array, call.make(shape, array.dtype))


def _tile(call: Call) -> Array:
    array, repeats = call[0], call.integers("repeats", 1)
    if len(repeats) != array.ndim:
        raise ValueError(f"Tile: expected {array.ndim} repeats, got {len(repeats)}")
    call.make([n * r for n, r in zip(array.shape, repeats, strict=True)], array.dtype)
    return np.tile(array, repeats)


def _pad(call: Call) -> Array:
    array, pads = call[0], call.integers("pads", 1)
    axes = call.either("axes", 3)
    axes = list(range(array.ndim)) if axes is None else axes
    before, after = [0] * array.ndim, [0] * array.ndim
    for k, axis in enumerate(axes):
        before[axis], after[axis] = pads[k], pads[k + len(axes)]
    index = [  # what is cut off where there is less than nothing to add
        slice(max(-b, 0), max(n - max(-a, 0), 0))
        for b, a, n in zip(before, after, array.shape, strict=True)
    ]
    widths = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    shape = [n + b + a for n, (b, a) in zip(array[tuple(index)].shape, widths, strict=True)]
    call.make(shape, array.dtype)
    mode = call.attributes.get("mode", "constant")
    largest = max((size for width in widths for size in width), default=0)
    if mode not in ("constant", "edge") and (
        mode not in ("reflect", "wrap") or largest >= min(array.shape)
    ):
        raise ValueError(f"Pad: {mode!r} with {largest} values")
    given = call.given(2)
    value = call.attributes.get("value", 0.0) if given is None else given.ravel()[0]
    more = {"constant_values": array.dtype.type(value)} if mode == "constant" else {}
    return np.asarray(np.pad(array[tuple(index)], widths, mode, **more))


def _constant_of_shape(call: Call) -> Array:
    value = call.attributes.get("value", np.zeros(1, np.float32)).reshape(())
    return np.broadcast_to(value, call.make(call.integers("shape", 0), value.dtype))


def _range(call: Call) -> Array:
    start, limit, delta = (call[k].reshape(()) for k in range(3))
    if delta == 0:
        raise ValueError("Range: expected steps other than 0")
    count = math.ceil((limit.item() - start.item()) / delta.item())
    call.make((max(count, 0),), np.float64)
    return np.asarray(start + np.arange(max(count, 0)) * delta, start.dtype)


def _gather(call: Call) -> Array:
    array, indices, axis = call[0], call[1], call.attributes.get("axis", 0)
    rest = array.size // max(array.shape[axis], 1)
    call.make((indices.size, rest), array.dtype)
    return np.take(array, indices, axis)


def _gather_elements(call: Call) -> Array:
    array, indices, axis = call[0], call[1], call.attributes.get("axis", 0)
    call.make(indices.shape, np.int64)
    return np.take_along_axis(_beside(call, array, indices, axis), indices, axis)


def _beside(call: Call, array: Array, indices: Array, axis: int) -> Array:
    """The part of an array that indices along an axis are for: they may be fewer."""
    sizes = list(array.shape)
    sizes[axis] = indices.shape[axis] if indices.ndim == array.ndim else 0
    if indices.ndim != array.ndim or any(np.greater(indices.shape, sizes)):
        raise ValueError(f"{call.kind}: expected indices {tuple(sizes)}, got {indices.shape}")
    index = [slice(size) for size in indices.shape]
    index[axis] = slice(None)
    return np.asarray(array[tuple(index)])


def _gather_nd(call: Call) -> Array:
    array, indices = call[0], call[1]
    if call.attributes.get("batch_dims", 0):
        raise ValueError("GatherND: expected no batch_dims")
    depth = indices.shape[-1]
    call.make((*indices.shape[:-1], *array.shape[depth:]), array.dtype)
    return np.asarray(array[tuple(np.moveaxis(indices, -1, 0))])


def _scatter_nd(call: Call) -> Array:
    array, indices, updates = call[0], call[1], call[2]
    if call.attributes.get("reduction", "none") != "none":
        raise ValueError("ScatterND: expected no reduction")
    call.make(array.shape, array.dtype)
    changed = array.copy()
    changed[tuple(np.moveaxis(indices, -1, 0))] = updates
    return changed


def _scatter_elements(call: Call) -> Array:
    array, indices, axis = call[0], call[1], call.attributes.get("axis", 0)
    if call.attributes.get("reduction", "none") != "none" or indices.shape != call[2].shape:
        raise ValueError("ScatterElements: expected updates of the shape of indices, no reduction")
    call.make(array.shape, array.dtype)
    changed = array.copy()
    np.put_along_axis(_beside(call, changed, indices, axis), indices, call[2], axis)
    return changed


def _non_zero(call: Call) -> Array:
    call.make((call[0].ndim, *call[0].shape), np.int64)
    return np.array(np.nonzero(call[0]), np.int64)


def _compress(call: Call) -> Array:
    call.make(call[0].shape, call[0].dtype)
    return np.compress(call[1], call[0], call.attributes.get("axis"))


def _one_hot(call: Call) -> Array:
    indices, depth, values = call[0], int(call[1].ravel()[0]), call[2].reshape(2)
    axis = call.attributes.get("axis", -1)
    call.make((*indices.shape, depth), np.int64)
    places = np.where(indices < 0, indices + depth, indices)
    hot = np.expand_dims(places, axis) == np.arange(depth).reshape(
        [depth if k == axis % (indices.ndim + 1) else 1 for k in range(indices.ndim + 1)]
    )
    return np.asarray(np.where(hot, values[1], values[0]))


def _cast(call: Call) -> Array:
    from onnx import helper

    array, to = call[0], call.attributes.get("to")
    dtype = helper.tensor_dtype_to_np_dtype(int(to)) if to is not None else call[1].dtype
    if dtype.kind not in "fiub" and dtype.name != "bfloat16":
        raise ValueError(f"{call.kind}: expected a type of numbers, got {dtype}")
    call.make(array.shape, dtype)
    return array.astype(dtype)


ARRANGING: dict[str, Operator] = {
    **dict.fromkeys(("Identity", "Dropout"), _identity),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "NonZero": _non_zero,
    "Compress": _compress,
    "OneHot": _one_hot,
    **dict.fromkeys(("Cast", "CastLike"), _cast),
}
