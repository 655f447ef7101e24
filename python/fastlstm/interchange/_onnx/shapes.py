"""Shapes of values that only a run of an ONNX model knows, as far as the model says them.

The rules know what usually stands between a model's inputs and a recurrent node. What they do not
know costs an answer, never a right one: a size that nothing says stands for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Dim: TypeAlias = "int | Hashable"
"""A size, or something that stands for one: equal things stand for the same size."""

Shape: TypeAlias = "tuple[Dim, ...]"

MOST_AXES = 64  # NumPy's; rules may double their number


@dataclass(frozen=True)
class Inputs:
    """What a rule goes by."""

    shapes: list[Shape | None]
    second: Any
    """The value of the second input, for those of :data:`TAKE_NUMBERS`; None: there is none."""
    attributes: Mapping[str, Any]

    def axes(self, rank: int) -> list[int] | None:
        """Axes, which are an attribute in old versions and an input in new ones."""
        given = self.attributes.get("axes") if self.second is None else self.second
        if given is None or np.size(given) > MOST_AXES:
            return None
        return [int(k) % rank for k in np.ravel(given)]


# Operators whose second input says what becomes of the first one's shape.
TAKE_NUMBERS = frozenset({"Squeeze", "Unsqueeze", "Reshape"})


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
        shape[k] if size == 0 else int(size) if size > 0 else object()
        for k, size in enumerate(wanted.ravel())
    )


def _recurrent(x: Shape, inputs: Inputs) -> Shape | None:
    R = inputs.shapes[2]
    if R is None:
        return None
    layout = inputs.attributes.get("layout", 0)
    return (x[0], x[1], R[0], R[2]) if layout else (x[0], R[0], x[1], R[2])


_RULES: dict[str, Callable[[Shape, Inputs], Shape | None]] = {
    **dict.fromkeys(
        [
            *(
                "Identity",
                "Cast",
                "CastLike",
                "Dropout",
                "Clip",
                "Sqrt",
                "Relu",
                "LeakyRelu",
                "Elu",
            ),
            *("Gelu", "Erf", "Tanh", "Sigmoid", "Softmax", "LayerNormalization"),
            "BatchNormalization",
        ],
        _same,
    ),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Where"), _broadcast),
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gather": _gather,
    "MatMul": _matmul,
    "Reshape": _reshape,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
}
