"""Plots of what happens inside a layer. Needs matplotlib: ``pip install 'fastlstm[plot]'``.

>>> import matplotlib
>>> matplotlib.use("Agg")
>>> from fastlstm import plot
>>> lstm = fastlstm.LSTM(3, 8, seed=0)
>>> ((trace,),) = lstm.trace(np.ones((20, 1, 3), np.float32))
>>> figure = plot.gates(trace)
>>> [axes.get_title() for axes in figure.axes[:6]]
['i', 'f', 'g', 'o', 'c', 'h']
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_int, check_mapping
from ._extras import needs_extra

with needs_extra("fastlstm.plot", "plot"):
    from matplotlib.figure import Figure

__all__ = ["gates", "gradient_flow"]


def _of_sequence(array: npt.NDArray[Any], row: int, batch_first: bool) -> npt.NDArray[Any]:
    """(T, width) of one sequence."""
    if array.ndim == 2:
        return array
    B = array.shape[0 if batch_first else 1]
    row = as_int("row", row, -B, B - 1)
    return array[row] if batch_first else array[:, row]


def _check_trace(name: str, trace: Any) -> None:
    if not hasattr(trace, "_asdict"):
        raise TypeError(
            f"{name}: expected that of one layer and direction, as layer.trace(x)[0][0], "
            f"got {type(trace).__name__}"
        )


def gates(trace: Any, row: int = 0, *, batch_first: bool = False) -> Figure:
    """Draw every value of one sequence as heat maps: time to the right, units downwards.

    Parameters
    ----------
    trace : LSTMTrace, GRUTrace or RNNTrace
        One of those that ``layer.trace`` returns.
    row : int
        Which sequence of the batch.
    batch_first : bool
        Whether the layer has its batch axis first.

    Returns
    -------
    matplotlib.figure.Figure
        Gates from 0 to 1; all else by colours that are white at zero.

    Raises
    ------
    TypeError, ValueError
        The trace is none, or has no such row.
    """
    _check_trace("trace", trace)
    values = {
        name: _of_sequence(array, row, batch_first)
        for name, array in trace._asdict().items()
        if not name.startswith("d_")
    }
    figure = Figure(figsize=(8, 1.4 * len(values) + 0.6), layout="constrained")
    panels = figure.subplots(len(values), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, array) in zip(panels, values.items(), strict=True):
        if name in ("i", "f", "o", "r", "z"):
            scale: dict[str, Any] = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
        else:
            most = float(np.abs(array).max(initial=0)) or 1.0
            scale = {"vmin": -most, "vmax": most, "cmap": "RdBu_r"}
        image = axes.imshow(array.T, aspect="auto", interpolation="nearest", **scale)
        figure.colorbar(image, ax=axes)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel("unit")
    panels[-1].set_xlabel("time step")
    return figure


def gradient_flow(traces: Mapping[str, Any], row: int = 0, *, batch_first: bool = False) -> Figure:
    """Draw how much of a loss' gradient comes to the state after each step, in several layers.

    Parameters
    ----------
    traces : mapping of str to LSTMTrace, GRUTrace or RNNTrace
        By the name to be shown; from ``layer.trace`` with ``d_output`` or ``d_state``.
    row, batch_first
        As in :func:`gates`.

    Returns
    -------
    matplotlib.figure.Figure
        The Euclidean norm of d_h, and of d_c where there is one, over time.

    Raises
    ------
    TypeError, ValueError
        The traces are none, have no such row, or one has no gradients.

    References
    ----------
    Bengio, Simard and Frasconi 1994, "Learning long-term dependencies with gradient descent is
    difficult".
    """
    check_mapping("traces", traces)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, trace in traces.items():
        _check_trace(f"traces[{name!r}]", trace)
        if trace.d_h is None:
            raise ValueError(f"traces[{name!r}]: expected one with gradients: pass d_output")
        for key, style in (("d_h", "-"), ("d_c", "--")):
            gradient = getattr(trace, key, None)
            if gradient is not None:
                values = _of_sequence(gradient, row, batch_first).astype(np.float64)  # for squares
                norm = np.linalg.norm(values, axis=1)
                axes.plot(np.where(norm > 0, norm, np.nan), style, label=f"{name}: {key}")
    axes.set_yscale("log")
    axes.set_xlabel("time step")
    axes.set_ylabel("norm of the gradient")
    axes.legend()
    return figure
