"""A fast LSTM runtime for CPUs: PyTorch's parameters and semantics, no framework."""

import importlib
from typing import TYPE_CHECKING, Any

from ._runtime import (
    available_isas,
    get_num_threads,
    isa,
    num_threads,
    set_num_threads,
    show_config,
)
from ._version import __version__
from .layers import (
    GRU,
    LSTM,
    RNN,
    Chunk,
    Gradients,
    GRUTrace,
    LSTMTrace,
    Plan,
    Quantization,
    RNNTrace,
    Stream,
    Tape,
    TrainingMemory,
    load,
    truncated_bptt,
)

if TYPE_CHECKING:
    from . import embeddings, interchange, nn, optim, reference
    from .interchange import from_keras, from_onnx, from_torch, to_onnx
    from .verification import compare_layers, verify

# Imported when first used: they would add a third to the time that importing fastlstm takes.
_LATER = {
    "embeddings": "embeddings",
    "interchange": "interchange",
    "nn": "nn",
    "optim": "optim",
    "reference": "reference",
    "compare_layers": "verification",
    "from_keras": "interchange",
    "from_onnx": "interchange",
    "from_torch": "interchange",
    "to_onnx": "interchange",
    "verify": "verification",
}

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Chunk",
    "GRUTrace",
    "Gradients",
    "LSTMTrace",
    "Plan",
    "Quantization",
    "RNNTrace",
    "Stream",
    "Tape",
    "TrainingMemory",
    "__version__",
    "available_isas",
    "compare_layers",
    "embeddings",
    "from_keras",
    "from_onnx",
    "from_torch",
    "get_num_threads",
    "interchange",
    "isa",
    "load",
    "nn",
    "num_threads",
    "optim",
    "reference",
    "set_num_threads",
    "show_config",
    "to_onnx",
    "truncated_bptt",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_LATER[name]}", __name__)
    return module if name == _LATER[name] else getattr(module, name)


def __dir__() -> list[str]:
    return [*globals(), *_LATER]
