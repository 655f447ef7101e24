"""Writes the tables of docs/low_precision.md: errors of small layers, and of others', measured.

Each layer runs 1000 steps of 4 sequences; what is compared with is the float64 reference of the
exact weights.
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fastlstm
import numpy as np
from fastlstm import reference
from fastlstm.interchange.onnx_export import make_model

DOCUMENT = Path(__file__).parents[1] / "docs" / "low_precision.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"
T, B, I, H = 1000, 4, 64, 64

# Weights and activations.
OURS = (
    *(("bfloat16", "float32"), ("int8", "float32")),
    *(("bfloat16", "bfloat16"), ("int8", "int8")),
)
KINDS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: fastlstm.LSTM(I, H, seed=0),
    "LSTM, 2 layers, both directions": lambda: fastlstm.LSTM(I, H, 2, bidirectional=True, seed=0),
    "LSTM, projection to 32": lambda: fastlstm.LSTM(I, H, proj_size=32, seed=0),
    "GRU": lambda: fastlstm.GRU(I, H, seed=0),
    "GRU, reset before": lambda: fastlstm.GRU(I, H, reset_after=False, seed=0),
    "RNN": lambda: fastlstm.RNN(I, H, seed=0),
}


class Error(NamedTuple):
    """Of an output: root mean square over that of the exact output, and the largest difference."""

    rms: float
    most: float

    def __str__(self) -> str:
        return f"{100 * self.rms:.2g} %, {self.most:.1e}"


def error_of(output: Any, exact: Any) -> Error:
    apart = np.asarray(output, np.float64) - exact
    rms = np.sqrt(np.mean(apart**2) / np.mean(exact**2))
    return Error(float(rms), float(np.abs(apart).max()))


def exact_output(layer: Any, x: Any) -> Any:
    params = {name: value.astype(np.float64) for name, value in layer.params.items()}
    forward = getattr(reference, f"{type(layer).__name__.lower()}_forward")
    more = {} if getattr(layer, "reset_after", True) else {"reset_after": False}
    return forward(params, x, **more)[0]


def of_pytorch(layer: Any, x: Any, dtype: str) -> Any:
    """The output of PyTorch's own small layer; None: it has none."""
    import torch

    kind = getattr(torch.nn, type(layer).__name__)
    if not getattr(layer, "reset_after", True):
        return None
    options = {
        name: getattr(layer, name)
        for name in ("num_layers", "bidirectional", "proj_size")
        if hasattr(layer, name)
    }
    module = kind(layer.input_size, layer.hidden_size, **options)
    module.load_state_dict({n: torch.from_numpy(v.copy()) for n, v in layer.params.items()})
    tensor = torch.from_numpy(x)
    with torch.inference_mode():
        if dtype == "bfloat16":
            return module.bfloat16()(tensor.bfloat16())[0].float().numpy()
        if kind is torch.nn.RNN or options.get("proj_size"):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize = torch.ao.quantization.quantize_dynamic
            small = quantize(torch.nn.ModuleList([module]), {kind}, dtype=torch.qint8)
        return small[0](tensor)[0].numpy()


def of_onnx_runtime(layer: Any, x: Any) -> Any:
    """The output of its DynamicQuantizeLSTM; None: it has none."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    if not isinstance(layer, fastlstm.LSTM) or layer.proj_size:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        model = make_model(layer, lengths=False, states=False)
        quantize_dynamic(model, path, op_types_to_quantize=["LSTM"], weight_type=QuantType.QInt8)
        small = onnx.load(path)
    session = onnxruntime.InferenceSession(
        small.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["output"], {"x": x})[0]


def row(layer: Any, x: Any) -> list[str]:
    """The errors of all on one layer."""
    exact = exact_output(layer, x)
    outputs = [layer.quantize(*pair)(x)[0] for pair in OURS]
    outputs += [of_pytorch(layer, x, dtype) for dtype in ("bfloat16", "int8")]
    outputs.append(of_onnx_runtime(layer, x))
    return ["-" if output is None else str(error_of(output, exact)) for output in outputs]


def table() -> str:
    """All layers, new and with weights three times as large, as Markdown."""
    head = [
        "Layer",
        *(f"{w}, {'exact inputs' if a == 'float32' else f'{a} inputs'}" for w, a in OURS),
        "PyTorch bfloat16",
        "PyTorch int8",
        "ONNX Runtime int8",
    ]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    x = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
    for name, make in KINDS.items():
        for times in (1, 3):
            layer = make()
            layer.update({n: np.float32(times) * v for n, v in layer.params.items()})
            title = name if times == 1 else f"the same, {times} times the weights"
            lines.append(f"| {title} | {' | '.join(row(layer, x))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.low_precision_table", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help=f"put it into docs/{DOCUMENT.name}")
    options = parser.parse_args()
    text = table()
    print(text)
    if options.write:
        import onnxruntime
        import torch

        before, rest = DOCUMENT.read_text().split(BEGIN)
        _, after = rest.split(END)
        versions = f"PyTorch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}"
        where = (
            f"Measured on {platform.machine()} ({fastlstm.isa()}) with {versions}. Of each output "
            "the root mean square of the error in percent of that of the values, and the largest "
            "error:"
        )
        DOCUMENT.write_text(f"{before}{BEGIN}\n{where}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
