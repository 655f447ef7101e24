"""Shapes of values that only a run of an ONNX model knows, as far as the model says them.

The rules know what usually stands between a model's inputs and a recurrent node. What they do not
know costs an answer, never a right one: a size that nothing says stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Dim: TypeAlias = "int | Hashable"
"""A size, or something that stands for one: equal things stand for the same size."""

Shape: TypeAlias = "tuple[Dim, ...]"

ITS_OWN = object()
"""In what a rule returns: a size that it does not know."""

_LARGEST_SIZE = (1 << 31) - 2  # exporters write one more, or 2 ** 63 - 1, for an end

MOST_AXES = 64  # NumPy's; rules may double their number


@dataclass(frozen=True)
class Inputs:
    """What a rule goes by."""

    shapes: list[Shape | None]
    numbers: list[Any]
    """The values of the other inputs, for those of :data:`TAKE_NUMBERS`; None: it is left out."""
    attributes: Mapping[str, Any]

    @property
    def second(self) -> Any:
        """The value of the second input."""
        return self.numbers[0] if self.numbers else None

    def integers(self, name: str, k: int) -> list[int] | None:
        """Integers that are an attribute in old versions and the input k in new ones."""
        given = self.numbers[k - 1] if len(self.numbers) >= k else None
        given = self.attributes.get(name) if given is None else given
        if given is None or np.size(given) > 2 * MOST_AXES:
            return None
        return [int(n) for n in np.ravel(given)]

    def axes(self, rank: int) -> list[int] | None:
        """Axes, which are an attribute in old versions and an input in new ones."""
        given = self.attributes.get("axes") if self.second is None else self.second
        if given is None or np.size(given) > MOST_AXES:
            return None
        return [int(k) % rank for k in np.ravel(given)]


# Operators whose other inputs say what becomes of the first one's shape.
_REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"),
    *("ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)
TAKE_NUMBERS = frozenset({"Squeeze", "Unsqueeze", "Reshape", "Slice", "Pad", *_REDUCTIONS})


def shape_of_type(declared: Any, name: str) -> Shape | None:
    """Return the shape in a TypeProto, or None where it has none."""
    kind = declared.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.dim_value > 0 else dim.dim_param or (name, k)
        for k, dim in enumerate(kind.shape.dim)
    )


def shape_after(kind: str, inputs: Inputs) -> Shape | None:
    """Return the shape of an operator's first output, or None where it is not known."""
    rule = _RULES.get(kind)
    shape = inputs.shapes[0] if rule and inputs.shapes else None
    return None if rule is None or shape is None else rule(shape, inputs)


def has_rule(kind: str) -> bool:
    """Whether there is a rule for an operator."""
    return kind in _RULES


def _same(shape: Shape, _: Inputs) -> Shape | None:
    return shape


def _broadcast(_: Shape, inputs: Inputs) -> Shape | None:
    known = [shape for shape in inputs.shapes if shape is not None]
    if len(known) < len(inputs.shapes):
        return None
    result: list[Dim] = [1] * max(map(len, known))
    for shape in known:
        for k, dim in enumerate(reversed(shape), 1):
            if result[-k] == 1:
                result[-k] = dim
    return tuple(result)


def _transpose(shape: Shape, inputs: Inputs) -> Shape | None:
    perm = inputs.attributes.get("perm", range(len(shape))[::-1])
    return tuple(shape[k] for k in perm)


def _squeeze(shape: Shape, inputs: Inputs) -> Shape | None:
    axes = inputs.axes(len(shape))
    return None if axes is None else tuple(d for k, d in enumerate(shape) if k not in axes)


def _unsqueeze(shape: Shape, inputs: Inputs) -> Shape | None:
    count = len(inputs.axes(1) or ())
    axes = inputs.axes(len(shape) + count)
    rest = iter(shape)
    if not axes:
        return None
    return tuple(1 if k in axes else next(rest) for k in range(len(shape) + count))


def _gather(shape: Shape, inputs: Inputs) -> Shape | None:
    axis, indices = inputs.attributes.get("axis", 0) % len(shape), inputs.shapes[1]
    return None if indices is None else (*shape[:axis], *indices, *shape[axis + 1 :])


def _matmul(shape: Shape, inputs: Inputs) -> Shape | None:
    other = inputs.shapes[1]
    return (*shape[:-1], other[1]) if other is not None and len(other) == 2 else None


def _reshape(shape: Shape, inputs: Inputs) -> Shape | None:
    wanted = inputs.second
    if wanted is None or wanted.size > MOST_AXES or inputs.attributes.get("allowzero", 0):
        return None
    return tuple(
        shape[k] if size == 0 else int(size) if size > 0 else ITS_OWN
        for k, size in enumerate(wanted.ravel())
    )


def _slice(shape: Shape, inputs: Inputs) -> Shape | None:
    starts, ends = inputs.integers("starts", 1), inputs.integers("ends", 2)
    if starts is None or ends is None:
        return None
    axes = inputs.integers("axes", 3) or range(len(starts))
    steps = inputs.integers("steps", 4) or [1] * len(starts)
    result = list(shape)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        result[axis] = _piece(result[axis], start, end, step)
    return tuple(result)


def _piece(size: Dim, start: int, end: int, step: int) -> Dim:
    if (start == 0 and end > _LARGEST_SIZE and step == 1) or (
        start == -1 and end < -_LARGEST_SIZE and step == -1
    ):
        return size
    if step > 0 and isinstance(size, int):
        return len(range(size)[start:end:step])
    first_or_last = (start, end) == (0, 1) or (start == -1 and end > _LARGEST_SIZE)
    return 1 if step > 0 and first_or_last else ITS_OWN


def _concat(shape: Shape, inputs: Inputs) -> Shape | None:
    axis = inputs.attributes.get("axis", 1)
    sizes = [None if other is None else other[axis] for other in inputs.shapes]
    whole = [size for size in sizes if isinstance(size, int)]
    result = list(shape)
    result[axis] = sum(whole) if len(whole) == len(sizes) else ITS_OWN
    return tuple(result)


def _pad(shape: Shape, inputs: Inputs) -> Shape | None:
    pads = inputs.integers("pads", 1)
    if pads is None:
        return None
    axes = inputs.integers("axes", 3) or range(len(shape))
    result = list(shape)
    for k, axis in enumerate(axes):
        result[axis] = _longer(result[axis], pads[k] + pads[k + len(axes)])
    return tuple(result)


def _longer(size: Dim, more: int) -> Dim:
    return size + more if isinstance(size, int) else size if more == 0 else ITS_OWN


def _split(shape: Shape, inputs: Inputs) -> Shape | None:
    axis = inputs.attributes.get("axis", 0) % len(shape)
    return tuple(ITS_OWN if k == axis else size for k, size in enumerate(shape))


def _reduced(shape: Shape, inputs: Inputs) -> Shape | None:
    axes = inputs.axes(len(shape))
    if not axes and inputs.attributes.get("noop_with_empty_axes", 0):
        return shape
    return _without(shape, axes or range(len(shape)), inputs)


def _arg(shape: Shape, inputs: Inputs) -> Shape | None:
    return _without(shape, [inputs.attributes.get("axis", 0) % len(shape)], inputs)


def _without(shape: Shape, axes: Iterable[int], inputs: Inputs) -> Shape:
    gone = {*axes}
    if inputs.attributes.get("keepdims", 1):
        return tuple(1 if k in gone else size for k, size in enumerate(shape))
    return tuple(size for k, size in enumerate(shape) if k not in gone)


def _flatten(shape: Shape, inputs: Inputs) -> Shape | None:
    return (shape[0] if inputs.attributes.get("axis", 1) == 1 else ITS_OWN, ITS_OWN)


def _conv(shape: Shape, inputs: Inputs) -> Shape | None:
    kernels = inputs.shapes[1]
    if kernels is None:
        return None
    return (shape[0], kernels[0], *_windows(shape[2:], kernels[2:], inputs.attributes))


def _pool(shape: Shape, inputs: Inputs) -> Shape | None:
    kernel = inputs.attributes.get("kernel_shape", ())
    return (*shape[:2], *_windows(shape[2:], kernel, inputs.attributes))


def _windows(sizes: Shape, kernel: Shape, attributes: Mapping[str, Any]) -> Iterator[Dim]:
    """Sizes after windows of a kernel's sizes went along them, with what they do not change."""
    count = len(sizes)
    ones = [1] * count
    strides, dilations = (attributes.get(name, ones) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * 2 * count)
    auto = attributes.get("auto_pad", "NOTSET")
    for k, (size, width) in enumerate(zip(sizes, kernel, strict=True)):
        same = auto.startswith("SAME") or (
            auto == "NOTSET"
            and isinstance(width, int)
            and pads[k] + pads[k + count] == dilations[k] * (width - 1)
        )
        yield size if same and strides[k] == 1 else ITS_OWN


def _recurrent(x: Shape, inputs: Inputs) -> Shape | None:
    R = inputs.shapes[2]
    if R is None:
        return None
    layout = inputs.attributes.get("layout", 0)
    return (x[0], x[1], R[0], R[2]) if layout else (x[0], R[0], x[1], R[2])


_RULES: dict[str, Callable[[Shape, Inputs], Shape | None]] = {
    **dict.fromkeys(
        [
            *("Identity", "Cast", "CastLike", "Dropout", "Clip", "Sqrt", "Relu", "LeakyRelu"),
            *("Elu", "Selu", "Celu", "Gelu", "Erf", "Tanh", "Sigmoid", "HardSigmoid", "HardSwish"),
            *("Mish", "Softplus", "Softsign", "ThresholdedRelu", "Shrink", "Softmax", "LogSoftmax"),
            *("Hardmax", "Neg", "Abs", "Sign", "Exp", "Log", "Sin", "Cos", "Tan", "Floor", "Ceil"),
            *("Round", "Reciprocal", "Not", "IsNaN", "IsInf", "CumSum", "Trilu"),
            *("BatchNormalization", "InstanceNormalization", "GroupNormalization"),
            *("LayerNormalization", "LpNormalization", "LRN", "MeanVarianceNormalization"),
            *("QuantizeLinear", "DequantizeLinear", "ReverseSequence"),
            *("ScatterND", "ScatterElements"),
        ],
        _same,
    ),
    **dict.fromkeys(
        [
            *("Add", "Sub", "Mul", "Div", "Pow", "Mod", "PRelu", "Where", "Max", "Min", "Sum"),
            *("Mean", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
            *("And", "Or", "Xor"),
        ],
        _broadcast,
    ),
    **dict.fromkeys(_REDUCTIONS, _reduced),
    **dict.fromkeys(("ArgMax", "ArgMin"), _arg),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _pool),
    "Conv": _conv,
    "Slice": _slice,
    "Concat": _concat,
    "Pad": _pad,
    "Split": _split,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "MatMul": _matmul,
    "Reshape": _reshape,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}
