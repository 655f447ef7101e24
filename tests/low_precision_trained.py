"""Writes a table of docs/low_precision.md: what small weights cost trained models.

The models are those of tests/trained, each by its own measure. Needs onnx, onnxruntime and Pillow,
and a network the first time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .trained import Quantize, Result
from .trained.ddddocr import Reader
from .trained.g2p import Speller
from .trained.nsnet import Denoiser
from .trained.silero import Detector

DOCUMENT = Path(__file__).parents[1] / "docs" / "low_precision.md"
BEGIN, END = "<!-- trained -->", "<!-- end of trained -->"
WAYS: tuple[tuple[str, str], ...] = (
    *(("bfloat16", "float32"), ("int8", "float32")),
    *(("bfloat16", "bfloat16"), ("int8", "int8")),
)
MODELS = {"g2p-en": Speller, "silero-vad": Detector, "ddddocr": Reader, "nsnet": Denoiser}


def quantizer(way: tuple[str, str]) -> Quantize:
    return lambda layer: layer.quantize(*way)


def cell(result: Result, exact: Result) -> str:
    """The change of the measure in percent of it, and the answers that are others."""
    change = f"{100 * (result.value / exact.value - 1):+.2f} %"
    if not exact.answers:
        return change
    pairs = zip(result.answers, exact.answers, strict=True)
    others = sum(ours != theirs for ours, theirs in pairs) / len(exact.answers)
    return f"{change}, {100 * others:.2f} %"


def row(model: Any) -> list[str]:
    exact = model.measure(lambda layer: layer)
    cells = [cell(model.measure(quantizer(way)), exact) for way in WAYS]
    return [model.title, f"{exact.value:.2f}", *cells]


def table(names: list[str]) -> str:
    """A row for each model, as Markdown."""
    ways = [f"{w}, {'exact' if a == 'float32' else a} inputs" for w, a in WAYS]
    head = ["Model and measure", "float32", *ways]
    rows = (row(MODELS[name]()) for name in names)
    top, *lines = (f"| {' | '.join(cells)} |" for cells in [head, *rows])
    return "\n".join([top, f"|{'---|' * len(head)}", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.low_precision_trained", description=__doc__
    )
    parser.add_argument("--model", choices=MODELS, action="append", help="only this (repeatable)")
    parser.add_argument("--write", action="store_true", help=f"put it into docs/{DOCUMENT.name}")
    options = parser.parse_args()
    if options.write and options.model:
        parser.error("--write takes all models")
    text = table(options.model or [*MODELS])
    print(text)
    if options.write:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        _, after = rest.split(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
