"""A fast LSTM runtime for CPUs: PyTorch's parameters and semantics, no framework."""

from . import optim, reference
from ._files import load
from ._lstm import LSTM, CellTrace, Gradients, Stream, Tape
from ._runtime import (
    available_isas,
    get_num_threads,
    isa,
    num_threads,
    set_num_threads,
    show_config,
)
from ._version import __version__

__all__ = [
    "LSTM",
    "CellTrace",
    "Gradients",
    "Stream",
    "Tape",
    "__version__",
    "available_isas",
    "get_num_threads",
    "isa",
    "load",
    "num_threads",
    "optim",
    "reference",
    "set_num_threads",
    "show_config",
]
