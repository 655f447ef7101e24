"""Which of ONNX's operators are computed on constants, and how.

Those that stand between initialisers and weights are here in NumPy, in all their versions, as what
onnx's reference has of them depends on its own version. Every operator says how many bytes it makes
before it makes them; what is a view of its input makes none.
"""

from __future__ import annotations

import numpy as np

from .arithmetic import ARITHMETIC
from .arranging import ARRANGING
from .call import Array, Call, Operator
from .quantised import QUANTISED

_OPERATORS = {**ARRANGING, **ARITHMETIC, **QUANTISED}

# Computed by onnx's reference. None makes more than this many copies of its inputs, broadcast, or
# takes longer than NumPy does.
_AS_LARGE = frozenset(
    {"Softmax", "LogSoftmax", "Erf", "Elu", "Selu", "Celu", "LeakyRelu", "HardSigmoid", "Gelu"}
    | {"HardSwish", "Mish", "Softsign", "ThresholdedRelu", "PRelu", "Trilu", "CumSum"}
    | {"LayerNormalization", "Tan", "Sinh", "Cosh", "Atan", "Asin", "Acos", "EyeLike"}
)
_COPIES = 4
_SINCE = {"Softmax": 13, "LogSoftmax": 13}  # before, they took several axes for one


def operator_of(domain: str, kind: str) -> Operator | None:
    """Return how an operator is computed, or None for those that are not."""
    if domain == "" or (domain == "com.microsoft" and kind in QUANTISED):
        return _by_reference if kind in _AS_LARGE else _OPERATORS.get(kind)
    return None


def _by_reference(call: Call) -> Array:
    """What onnx's reference gives."""
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    if call.version < _SINCE.get(call.kind, 1):
        raise ValueError(f"{call.kind}: expected version {_SINCE[call.kind]} of the operators")
    arrays = {f"in{k}": call[k] for k in range(len(call.inputs)) if call.given(k) is not None}
    names = [f"in{k}" if f"in{k}" in arrays else "" for k in range(len(call.inputs))]
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    call.make((_COPIES, *shape), np.int64)
    node = helper.make_node(call.kind, names, ["out"], **call.attributes)
    inputs = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in arrays]
    output = helper.make_tensor_value_info("out", TensorProto.UNDEFINED, None)
    graph = helper.make_graph([node], "one node", inputs, [output])
    opset = helper.make_opsetid("", call.version)
    try:
        model = helper.make_model(graph, opset_imports=[opset])
        return np.asarray(ReferenceEvaluator(model).run(None, arrays)[0])
    except MemoryError:
        raise
    except Exception as error:  # its own classes, and what its operators stumble on
        raise ValueError(f"{call.kind}: {error}") from error
