"""The plots show the numbers of the trace; and an RNN's gradients vanish where an LSTM's do not."""

from __future__ import annotations

import fastlstm
import numpy as np
import pytest

pytest.importorskip("matplotlib")

from fastlstm import plot


def trace_of(layer: fastlstm.LSTM | fastlstm.GRU | fastlstm.RNN, T: int = 60) -> object:
    """A trace with the gradient of the last output's sum."""
    x = np.random.default_rng(0).standard_normal((T, 2, 3)).astype(np.float32)
    d_output = np.zeros((T, 2, 16), np.float32)
    d_output[-1] = 1
    ((trace,),) = layer.trace(x, d_output=d_output)
    return trace


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_heat_maps_hold_the_values(cell: str) -> None:
    trace = trace_of(getattr(fastlstm, cell)(3, 16, seed=0))
    figure = plot.gates(trace, row=1)
    panels = [axes for axes in figure.axes if axes.images]
    names = [name for name in trace._fields if not name.startswith("d_")]
    assert [axes.get_title() for axes in panels] == names
    for axes in panels:
        shown = np.asarray(axes.images[0].get_array())
        assert np.array_equal(shown, getattr(trace, axes.get_title())[:, 1].T)


def test_gradients_vanish_in_an_rnn_and_flow_through_an_lstm() -> None:
    traces = {
        "LSTM": trace_of(fastlstm.LSTM(3, 16, seed=0, forget_bias=4.0)),
        "RNN": trace_of(fastlstm.RNN(3, 16, seed=0)),
    }
    (axes,) = plot.gradient_flow(traces).axes
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert list(lines) == ["LSTM: d_h", "LSTM: d_c", "RNN: d_h"]
    want = np.linalg.norm(traces["RNN"].d_h[:, 0].astype(np.float64), axis=1)
    assert np.array_equal(lines["RNN: d_h"][:-1], want[:-1])
    kept = {name: line[5] / line[-2] for name, line in lines.items()}
    assert kept["LSTM: d_c"] > 0.05
    assert kept["RNN: d_h"] < 1e-6


def test_norms_of_small_gradients_are_not_zero() -> None:
    trace = trace_of(fastlstm.RNN(3, 16, seed=0))
    trace = trace._replace(d_h=np.full_like(trace.d_h, 1e-30))
    (axes,) = plot.gradient_flow({"RNN": trace}).axes
    np.testing.assert_allclose(axes.lines[0].get_ydata(), 4e-30, rtol=1e-6)


def test_batch_first_and_no_batch_axis() -> None:
    layer = fastlstm.LSTM(3, 4, batch_first=True, seed=0)
    ((trace,),) = layer.trace(np.ones((2, 9, 3), np.float32))
    assert plot.gates(trace, 1, batch_first=True).axes[0].images[0].get_array().shape == (4, 9)
    ((trace,),) = layer.trace(np.ones((9, 3), np.float32))
    assert plot.gates(trace).axes[0].images[0].get_array().shape == (4, 9)


def test_a_trace_without_gradients_is_refused() -> None:
    ((trace,),) = fastlstm.LSTM(3, 4).trace(np.ones((9, 1, 3), np.float32))
    with pytest.raises(ValueError, match=r"traces\['LSTM'\]: expected one with gradients"):
        plot.gradient_flow({"LSTM": trace})


def test_what_is_no_trace() -> None:
    layer = fastlstm.LSTM(3, 16)
    traces = layer.trace(np.ones((4, 2, 3), np.float32))
    with pytest.raises(TypeError, match=r"trace: .* as layer.trace\(x\)\[0\]\[0\], got list"):
        plot.gates(traces[0])
    with pytest.raises(ValueError, match="row: expected an integer from -2 to 1, got 2"):
        plot.gates(traces[0][0], row=2)
    with pytest.raises(TypeError, match="traces: expected a mapping, got list"):
        plot.gradient_flow(traces)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"traces\['a'\]: expected that of one layer"):
        plot.gradient_flow({"a": traces})


def test_attention() -> None:
    weights = np.arange(6.0).reshape(2, 3) / 6
    (axes,) = plot.attention(weights, "abc", ["A", 7]).axes
    assert np.array_equal(np.asarray(axes.images[0].get_array()), weights)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "c"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "7"]
    with pytest.raises(ValueError, match=r"weights: expected \(3, 2\), got \(2, 3\)"):
        plot.attention(weights, "ab", "abc")
