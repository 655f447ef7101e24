"""What a layer is compared with: PyTorch, Keras and ONNX Runtime behind one call each.

Every source takes inputs and gives results as a layer of fastlstm does (:mod:`._results`), with
what its own framework computes. The readers of ``fastlstm.interchange`` only say which layer of a
model is meant.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fastlstm.interchange._description import Description

from ._keras_source import KerasSource
from ._onnx_source import OnnxSource
from ._results import Inputs, Results
from ._torch_source import TorchSource


class Source(Protocol):
    """A recurrent layer of another framework."""

    title: str
    """What it is, with the framework's version."""
    takes_lengths: bool
    ulps: int
    """How exact a step is: its functions and sums, in ULP of the largest value."""
    dtype: np.dtype[Any]
    """What it computes in."""
    not_looked_at: tuple[str, ...]
    """What of the source does not run here: a line for each thing, without a full stop."""

    def __call__(self, inputs: Inputs) -> Results:
        """Run it."""

    def describe(self) -> Description:
        """What the reader of fastlstm makes of it."""

    def in_place(self, seed: int) -> Iterable[tuple[Inputs, Results]]:
        """Run the whole of which it is a part, and give what it takes and gives there."""


def find_source(source: Any, which: str | None, nonlinearity: str | None) -> Source:
    """Recognise what a source is.

    Raises
    ------
    ModuleNotFoundError
        Its framework is not installed.
    ValueError, TypeError
        As the readers' (``from_torch``, ``from_keras``, ``from_onnx``).
    """
    kind = kind_of(source)
    if kind != "torch" and nonlinearity is not None:
        raise ValueError("nonlinearity: expected None, as the source says it")
    if kind == "onnx":
        return OnnxSource(source, which)
    if kind == "keras":
        return KerasSource(source, which)
    return TorchSource(source, which, nonlinearity)


def kind_of(source: Any) -> str:
    """Return ``"torch"``, ``"keras"`` or ``"onnx"``."""
    if isinstance(source, (str, os.PathLike)):
        suffix = Path(source).suffix.lower()
        if suffix == ".onnx":
            return "onnx"
        return "keras" if suffix in (".keras", ".h5", ".hdf5") else "torch"
    if isinstance(source, (Mapping, list, tuple)):
        return "torch"
    if hasattr(source, "graph") and hasattr(source, "opset_import"):
        return "onnx"
    if hasattr(source, "get_config"):
        return "keras"
    if hasattr(source, "named_modules"):
        return "torch"
    raise TypeError(
        "source: expected a module or state_dict of PyTorch, a layer or model of Keras, a model of "
        f"ONNX, or a path, got {type(source).__name__}"
    )
