"""silero-vad (MIT; Silero Team) says for each 32 ms whether somebody speaks.

A spectrum and four convolutions read each frame by itself, an LSTM of 128 units what they give. It
listens to speech in noise; a frame is spoken where the recording without noise is loud.
"""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import onnx

from . import Quantize, Result, data, speech

PACKAGE = data.Package(
    "silero-vad==6.2.3",
    "silero_vad-6.2.3-py3-none-any.whl",
    "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
)
CONTEXT = 64  # samples before a frame that it reads, too; and as many after it, mirrored
STRIDES = (1, 2, 2, 1)


class Detector:
    title = "silero-vad: area under its ROC curve, %"

    def __init__(self) -> None:
        weights = _weights()
        sound = speech.load()
        self.spoken = sound.spoken
        self.x = np.stack([_features(weights, samples) for samples in sound.noisy], axis=1)
        self.last = weights["decoder.decoder.2.weight"][0, :, 0]
        self.bias = weights["decoder.decoder.2.bias"]
        self.layer = fastlstm.LSTM(128, 128)
        self.layer.load_state_dict(
            {f"{name}_l0": weights[f"decoder.rnn.{name}"] for name in _PARAMETERS}
        )

    def measure(self, quantize: Quantize) -> Result:
        """How often a frame with speech has a higher score than one without, at all loudnesses."""
        output, _ = quantize(self.layer)(self.x)
        scores = np.maximum(output, 0) @ self.last + self.bias
        spoken = np.broadcast_to(self.spoken[:, None], scores.shape)
        area = area_under_roc(scores.ravel(), spoken.ravel())
        return Result(100 * area, (scores > 0).ravel().tolist())


def area_under_roc(scores: Any, positive: Any) -> float:
    """How often one of the positive has a higher score than one of the others; no two are equal."""
    ranks = scores.argsort().argsort() + 1
    yes, no = np.count_nonzero(positive), np.count_nonzero(~positive)
    return float((ranks[positive].sum() - yes * (yes + 1) / 2) / (yes * no))


_PARAMETERS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _weights() -> dict[str, Any]:
    """By the ends of their names. The package's safetensors file has those of another version."""
    model = onnx.load_from_string(
        data.read(PACKAGE, "silero_vad/data/silero_vad_openvino_16k.onnx")
    )
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    found |= {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    return {name.split("__")[-1]: onnx.numpy_helper.to_array(t) for name, t in found.items()}


def _features(weights: dict[str, Any], samples: Any) -> Any:
    """What the LSTM reads of each frame: (frames, 128)."""
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples])
    frames = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + speech.FRAME)
    frames = np.pad(frames[:: speech.FRAME], [(0, 0), (0, CONTEXT)], "reflect")
    spectra = _convolve(frames[:, None], weights["stft.forward_basis_buffer"], stride=128)
    re, im = np.split(spectra, 2, axis=1)
    x = np.hypot(re, im)
    for k, stride in enumerate(STRIDES):
        weight, bias = (weights[f"encoder.{k}.reparam_conv.{name}"] for name in ("weight", "bias"))
        x = np.pad(x, [(0, 0), (0, 0), (1, 1)])
        x = np.maximum(_convolve(x, weight, stride) + bias[:, None], 0)
    return x[:, :, 0]


def _convolve(x: Any, weight: Any, stride: int) -> Any:
    """(N, C, L) to (N, O, L'), by a weight (O, C, K)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2], axis=2)
    return np.einsum("nclk,ock->nol", windows[:, :, ::stride], weight, optimize=True)
