"""The model: an LSTM that reads a window, and a linear head that makes a forecast of its last h."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

import fastlstm
from fastlstm._saving import write_safetensors

from .data import INPUT_SIZE, Climate, Series, windows

Array = npt.NDArray[Any]


class Linear:
    """The layer y = W h + b, in NumPy.

    Parameters
    ----------
    W : ndarray, shape (O, H)
        Weights.
    b : ndarray, shape (O,)
        Biases.
    """

    def __init__(self, W: Array, b: Array) -> None:
        self.W = W
        self.b = b

    def __call__(self, h: Array) -> Array:
        """(B, H) -> (B, O)."""
        y: Array = h @ self.W.T + self.b
        return y

    def backward(self, h: Array, d_y: Array) -> tuple[Array, Array, Array]:
        """Return the gradients of h, W and b, given that of y, (B, O)."""
        return d_y @ self.W, d_y.T @ h, d_y.sum(axis=0)


class Forecaster:
    """Forecasts next month's temperature from the T months before.

    Parameters
    ----------
    lstm : fastlstm.LSTM
        Reads ``(T, B, 3)`` windows of `fastlstm.demo.data.windows`.
    head : Linear
        Makes of the last h the change of the anomaly, so that a head of zeros would forecast that
        the anomaly stays as it is.
    climate : Climate
        Takes temperatures to anomalies and back.
    """

    def __init__(self, lstm: fastlstm.LSTM, head: Linear, climate: Climate) -> None:
        self.lstm = lstm
        self.head = head
        self.climate = climate

    @classmethod
    def new(cls, hidden_size: int, climate: Climate, seed: int) -> Forecaster:
        """Make a forecaster with random weights, uniform in ±1/sqrt(H) as in PyTorch."""
        lstm = fastlstm.LSTM(INPUT_SIZE, hidden_size, seed=seed)
        bound = hidden_size**-0.5
        W = np.random.default_rng(seed).uniform(-bound, bound, (1, hidden_size))
        return cls(lstm, Linear(W.astype(np.float32), np.zeros(1, np.float32)), climate)

    @property
    def params(self) -> dict[str, Array]:
        """All that is trained, by name: the parameters of the LSTM and of the head."""
        return {**self.lstm.params, "head.W": self.head.W, "head.b": self.head.b}

    def update(self, params: dict[str, Array]) -> None:
        """Replace all parameters."""
        self.lstm.update({name: params[name] for name in self.lstm.params})
        self.head = Linear(params["head.W"], params["head.b"])

    def __call__(self, x: Array) -> Array:
        """Windows (T, B, 3) -> change of the anomaly (B,)."""
        output, _ = self.lstm(x)  # (T, B, H)
        return self.head(output[-1])[:, 0]

    def loss_and_grads(self, x: Array, y: Array) -> tuple[float, dict[str, Array]]:
        """Compute the mean squared error of a batch and its gradients.

        Parameters
        ----------
        x : ndarray, shape (T, B, 3)
            Windows.
        y : ndarray, shape (B,)
            Changes of the anomaly to be forecast.

        Returns
        -------
        loss : float
            Mean squared error.
        grads : dict of str to ndarray
            Its gradient for each of `params`.
        """
        # Forward: the tape keeps what the way back needs.
        output, _, tape = self.lstm.forward(x)  # (T, B, H)
        h = output[-1]  # (B, H)
        error = self.head(h)[:, 0] - y  # (B,)

        # Backward: from the loss through the head into the last h. No other h is in the loss.
        d_error = 2 * error / len(error)  # (B,)
        d_h, d_W, d_b = self.head.backward(h, d_error[:, np.newaxis])
        d_output = np.zeros_like(output)
        d_output[-1] = d_h
        grads = tape.backward(d_output)
        return float(np.mean(error**2)), {**grads.params, "head.W": d_W, "head.b": d_b}

    def forecast(self, series: Series, targets: Array, T: int) -> Array:
        """Forecast each target month from the T true months before it.

        Parameters
        ----------
        series : Series
            Temperatures.
        targets : ndarray of int, shape (B,)
            Months to be forecast. Their own temperatures are not used.
        T : int
            Length of a window.

        Returns
        -------
        ndarray, shape (B,)
            Temperatures in °C.
        """
        x, _ = windows(series, self.climate, targets, T)
        anomaly = x[-1, :, 0] + self(x)
        return self.climate.temperature(anomaly, series.month[targets])

    def save(self, folder: Path) -> None:
        """Write ``lstm.safetensors`` and ``head.safetensors`` (the head and the climate)."""
        self.lstm.save(folder / "lstm.safetensors")
        rest = {
            "W": self.head.W,
            "b": self.head.b,
            "normal": self.climate.normal,
            "scale": np.array(self.climate.scale),
        }
        write_safetensors(folder / "head.safetensors", rest, {})

    @classmethod
    def load(cls, folder: Path) -> Forecaster:
        """Read what `save` wrote."""
        lstm = fastlstm.load(folder / "lstm.safetensors")
        rest = load_file(folder / "head.safetensors")
        climate = Climate(rest["normal"], float(rest["scale"]))
        return cls(lstm, Linear(rest["W"], rest["b"]), climate)
