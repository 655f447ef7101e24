"""Plots of what happens inside a layer, and of estimators.

They need matplotlib: ``pip install 'fastlstm[plot]'``.

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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ._checks import as_bool, as_float_array, as_int, check_mapping, check_shape
from ._extras import needs_extra

with needs_extra("fastlstm.plot", "plot"):
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

__all__ = ["attention", "confusion", "forecast", "gates", "gradient_flow", "training"]


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
        One of those that ``layer.trace`` returns, and the ``trace`` of an estimator.
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


def attention(weights: npt.ArrayLike, states: Sequence[Any], tokens: Sequence[Any]) -> Figure:
    """Draw where a decoder looks: what it reads to the right, what it says downwards.

    Parameters
    ----------
    weights : array_like
        (U, T), of one sequence: ``tape.weights[:, 0]`` of :class:`fastlstm.nn.AttentionDecoder`.
    states, tokens : sequence
        What to write at the T states and at the U tokens: a text is its characters.

    Returns
    -------
    matplotlib.figure.Figure
        Weights from 0, which is white, to 1.

    Raises
    ------
    ValueError, TypeError
        The weights are no numbers, or are not as many as there are states and tokens.
    """
    array = as_float_array("weights", weights, np.dtype(np.float64))
    check_shape("weights", array, (len(tokens), len(states)))
    size = (0.3 * len(states) + 1.2, 0.3 * len(tokens) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(array, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(np.arange(len(states)), [str(state) for state in states])
    axes.set_yticks(np.arange(len(tokens)), [str(token) for token in tokens])
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    return figure


# --- estimators -----------------------------------------------------------------------------------


def training(estimator: Any) -> Figure:
    """Draw how the loss fell while an estimator was fitted.

    Parameters
    ----------
    estimator : fastlstm.sklearn estimator
        A fitted one.

    Returns
    -------
    matplotlib.figure.Figure
        The losses of training and of what was held out, by epoch; a vertical line at the epoch
        whose parameters were kept. Of a forecaster also the loss of the simple forecast that it
        corrects.

    Raises
    ------
    TypeError
        It is no estimator of :mod:`fastlstm.sklearn`.
    sklearn.exceptions.NotFittedError
        There was no ``fit``.
    """
    _check_estimator(estimator, "loss_curve_")
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name, losses in (
        ("training", estimator.loss_curve_),
        ("held out", estimator.validation_loss_curve_),
    ):
        if losses:
            axes.plot(np.arange(1, len(losses) + 1), losses, marker=".", label=name)
    baseline = getattr(estimator, "baseline_loss_", np.nan)
    if np.isfinite(baseline):
        axes.axhline(baseline, color="grey", linestyle=":", label="simple forecast, held out")
    if estimator.validation_loss_curve_:
        axes.axvline(estimator.best_epoch_, color="grey", linewidth=1, label="kept")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss")
    axes.legend()
    return figure


def confusion(estimator: Any, X: Any, y: Any, *, normalize: bool = False) -> Figure:
    """Draw which labels an estimator takes for which.

    Parameters
    ----------
    estimator : SequenceClassifier or SequenceTagger
        A fitted one.
    X, y
        Sequences, and their true labels: one of each, or one of each step.
    normalize : bool
        Whether to show parts of each true label instead of counts.

    Returns
    -------
    matplotlib.figure.Figure
        True labels downwards, predicted ones to the right.

    Raises
    ------
    TypeError, ValueError
        It is no such estimator, or X and y are not as it expects them.
    sklearn.exceptions.NotFittedError
        There was no ``fit``.
    """
    _check_estimator(estimator, "classes_")
    _check_estimator(estimator, "predict_proba")  # a transcriber has labels, but none of a step
    normalize = as_bool("normalize", normalize)
    predicted, true = estimator.predict(X), y
    if len(predicted) != len(true):
        raise ValueError(f"y: expected {len(predicted)} labels, as of X, got {len(true)}")
    if isinstance(predicted, list):  # of steps
        if [*map(len, predicted)] != [*map(len, y)]:
            steps = sum(map(len, predicted))
            raise ValueError(f"y: expected a label for each of {steps} steps of X")
        predicted, true = (
            np.concatenate([np.asarray(of) for of in all_]) for all_ in (predicted, y)
        )
    labels, places = np.unique(
        np.concatenate([estimator.classes_, np.asarray(true), predicted]), return_inverse=True
    )
    of_true, of_predicted = np.split(places[len(estimator.classes_) :], 2)
    counts = np.zeros((len(labels), len(labels)))
    np.add.at(counts, (of_true, of_predicted), 1)
    if normalize:
        counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = max(4.0, 0.5 * len(labels) + 2)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(counts, cmap="Blues", vmin=0, vmax=1 if normalize else None)
    figure.colorbar(image, ax=axes)
    if len(labels) <= _MOST_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if count > counts.max() / 2 else "black"
            text = f"{count:.2f}" if normalize else f"{count:.0f}"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=9)
    axes.set_xticks(np.arange(len(labels)), labels, rotation=90)
    axes.set_yticks(np.arange(len(labels)), labels)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    return figure


def forecast(
    forecaster: Any,
    y: Any,
    exog: Any = None,
    future_exog: Any = None,
    *,
    actual: Any = None,
    past: int | None = None,
) -> Figure:
    """Draw a forecast after the end of a series, with its intervals.

    Parameters
    ----------
    forecaster : Forecaster
        A fitted one.
    y, exog, future_exog
        One series, as of :meth:`fastlstm.sklearn.Forecaster.predict`.
    actual : array_like, Series or DataFrame, optional
        What came, of the first steps that are forecast or all.
    past : int, optional
        How many of the last values of y to show; by default four horizons.

    Returns
    -------
    matplotlib.figure.Figure
        A panel for each column of y. Pairs of quantiles are bands.

    Raises
    ------
    TypeError, ValueError
        It is no forecaster, or another argument is not as stated.
    sklearn.exceptions.NotFittedError
        There was no ``fit``.
    """
    _check_estimator(forecaster, "horizon")
    quantiles = [0.5] if forecaster.quantiles is None else list(forecaster.quantiles)
    one = forecaster.quantiles is None
    found = (forecaster.predict if one else forecaster.predict_quantiles)(y, exog, future_exog)
    if isinstance(found, list):
        raise ValueError("y: expected one series, got a list")
    H = forecaster.horizon
    past = min(4 * H if past is None else as_int("past", past, 1, 2**31), len(y))
    before, times = _times(y, found, past)
    values = _columns(y)[-past:]
    S = values.shape[1]
    bands = np.asarray(found).reshape(H, S, len(quantiles))
    middle = bands[..., quantiles.index(0.5)]
    came = np.empty((0, S)) if actual is None else _columns(actual)
    if came.shape[1] != S or len(came) > H:
        raise ValueError(f"actual: expected (n, {S}) with n of at most {H}, got {came.shape}")
    figure = Figure(figsize=(8, 2.4 * S + 1), layout="constrained")
    panels = figure.subplots(S, 1, sharex=True, squeeze=False)[:, 0]
    names = getattr(y, "columns", [getattr(y, "name", None)] * S)
    for s, (axes, name) in enumerate(zip(panels, names, strict=True)):
        axes.plot(before, values[:, s], color="black", label="past")
        for q in range(bands.shape[2] // 2):
            label = " to ".join(f"{quantiles[k]:g}" for k in (q, -1 - q))
            lower, upper = bands[:, s, q], bands[:, s, -1 - q]
            axes.fill_between(
                times, lower, upper, color="C0", alpha=0.15 * (q + 1), linewidth=0, label=label
            )
        axes.plot(times, middle[:, s], color="C0", marker=".", label="forecast")
        if len(came):
            axes.plot(times[: len(came)], came[:, s], color="C1", label="actual")
        if name is not None:
            axes.set_ylabel(str(name))
    panels[0].legend()
    figure.autofmt_xdate()
    return figure


# With more labels numbers would not fit into the fields.
_MOST_NUMBERS = 20


def _check_estimator(estimator: Any, attribute: str) -> None:
    if not any(cls.__module__.startswith("fastlstm.sklearn") for cls in type(estimator).__mro__):
        raise TypeError(
            f"estimator: expected one of fastlstm.sklearn, got {type(estimator).__name__}"
        )
    from sklearn.utils.validation import check_is_fitted

    check_is_fitted(estimator)
    if not hasattr(estimator, attribute):
        raise TypeError(f"estimator: {type(estimator).__name__} has no {attribute}")


def _columns(values: Any) -> npt.NDArray[Any]:
    """(n, S) of (n,) or (n, S)."""
    array = np.asarray(values)
    return array.reshape(len(array), -1)


def _times(y: Any, found: Any, past: int) -> tuple[Any, Any]:
    """Where values of the past and of a forecast are drawn."""
    if not hasattr(found, "index"):
        return np.arange(len(y) - past, len(y)), np.arange(len(y), len(y) + len(found))
    return tuple(
        index.to_timestamp() if hasattr(index, "to_timestamp") else index
        for index in (y.index[-past:], found.index)
    )
