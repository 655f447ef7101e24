"""Draws the figures of docs/training.md and prints its table: python tools/training_figures.py."""

from __future__ import annotations

from pathlib import Path

import fastlstm
import numpy as np
from fastlstm import plot
from matplotlib.figure import Figure

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
I, H, B = 32, 64, 8


def least(layer: fastlstm.LSTM, T: int) -> int:
    """The least possible limit of memory, as the error tells it."""
    try:
        layer.training_memory(T, B, memory_limit=1)
    except ValueError as error:
        return int(str(error).partition("at least ")[2].split()[0])
    raise AssertionError("a byte was enough")


def memory() -> None:
    """The table: bytes by T; the figure: time over memory at one T."""
    layer = fastlstm.LSTM(I, H)
    for T in (1_000, 10_000, 100_000):
        whole, low = layer.training_memory(T, B).bytes, least(layer, T)
        print(f"| {T:,} | {whole / 1e6:,.0f} MB | {low / 1e6:,.0f} MB | {low / whole:.0%} |")
    T = 100_000
    whole, low = layer.training_memory(T, B).bytes, least(layer, T)
    limits = np.linspace(low, whole, 60).astype(int).tolist()
    times = [100 * layer.training_memory(T, B, memory_limit=n).extra_time for n in limits]
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(np.array(limits) / 1e6, times)
    axes.set_xlabel(f"memory_limit, MB (LSTM, I = {I}, H = {H}, B = {B}, T = {T:,})")
    axes.set_ylabel("extra time, %")
    axes.set_ylim(bottom=0)
    figure.savefig(IMAGES / "memory.png", dpi=100)


def inside() -> None:
    """Gates of an LSTM, and gradients that flow or vanish."""
    T = 100
    x = np.random.default_rng(0).standard_normal((T, 1, 3)).astype(np.float32)
    d_output = np.zeros((T, 1, 16), np.float32)
    d_output[-1] = 1
    layers = {
        "LSTM": fastlstm.LSTM(3, 16, seed=0, forget_bias=3.0),
        "RNN": fastlstm.RNN(3, 16, seed=0),
    }
    traces = {name: layer.trace(x, d_output=d_output)[0][0] for name, layer in layers.items()}
    plot.gates(traces["LSTM"]).savefig(IMAGES / "gates.png", dpi=80)
    plot.gradient_flow(traces).savefig(IMAGES / "gradient_flow.png", dpi=100)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    memory()
    inside()
