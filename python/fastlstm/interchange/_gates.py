"""The order of gates in weights, ours and others', and the way from one to another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastlstm._checks import FloatArray

# The gates whose blocks of H rows W, R and biases stack. Ours are PyTorch's.
GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("r", "z", "n"), "RNN": ("h",)}
KERAS_GATES = {"LSTM": ("i", "f", "g", "o"), "GRU": ("z", "r", "n"), "RNN": ("h",)}
ONNX_GATES = {"LSTM": ("i", "o", "f", "g"), "GRU": ("z", "r", "n"), "RNN": ("h",)}
# Those of peepholes.
PEEPHOLES, ONNX_PEEPHOLES = ("i", "f", "o"), ("i", "o", "f")


def cell_of_rows(rows: int, H: int) -> str | None:
    """Return the cell whose gates have this many rows in all, or None where there is no such."""
    return next((cell for cell, gates in GATES.items() if H and len(gates) * H == rows), None)


def reordered(array: FloatArray, gates: Sequence[str], wanted: Sequence[str]) -> FloatArray:
    """Return a new array with the blocks of gates, along the first axis, in another order."""
    new = np.empty(array.shape, array.dtype)
    rows = len(array) // len(gates)
    for k, gate in enumerate(wanted):
        first = gates.index(gate) * rows
        new[k * rows : (k + 1) * rows] = array[first : first + rows]
    return new
