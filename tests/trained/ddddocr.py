"""ddddocr (MIT; sml2h3) reads short texts in pictures that are hard to read.

Convolutions look at the picture, an LSTM of 512 units for each direction reads their columns, and a
linear layer names a character for each, or none. Here it reads words of the CMU dictionary, drawn
in the font of the package captcha (Droid Sans Mono, Apache 2.0), letter by letter at other angles,
in noise.
"""

from __future__ import annotations

import ast
import io
import re
from typing import Any

import fastlstm
import numpy as np
import onnx
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

from . import Quantize, Result, data
from .g2p import distance

PACKAGE = data.Package(
    "ddddocr==1.6.1",
    "ddddocr-1.6.1-py3-none-any.whl",
    "c7c70f4ae2d0335440ae8b272eea48c9f6888ecef46785fe2311f0c97a133935",
)
FONT = data.Package(
    "captcha==0.7.1",
    "captcha-0.7.1-py3-none-any.whl",
    "8b73b5aba841ad1e5bdb856205bf5f09560b728ee890eb9dae42901219c8c599",
)
WORDS, HEIGHT, SIZE = 500, 64, 40
LETTERS = "abcdefghijklmnopqrstuvwxyz"  # which the package can be told to read alone
ANGLE, NOISE = 25, 100  # degrees; standard deviation, where black to white is 255


class Reader:
    title = "ddddocr: letters that are right, %"

    def __init__(self) -> None:
        model = onnx.load_from_string(data.read(PACKAGE, "ddddocr/common.onnx"))
        self.layer = fastlstm.from_onnx(model)
        self.words = _words()
        columns = _columns(model, [_picture(word, k) for k, word in enumerate(self.words)])
        self.lengths = np.array([len(x) for x in columns])
        self.x = np.zeros((self.lengths.max(), len(columns), columns[0].shape[1]), np.float32)
        for k, x in enumerate(columns):
            self.x[: len(x), k] = x
        tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        (last,) = (node for node in model.graph.node if node.op_type == "Gemm")
        characters = _characters(data.read(PACKAGE, "ddddocr/charsets.py").decode())
        rows = [0, *map(characters.index, LETTERS)]  # the first is of no character
        self.weight, self.bias = (tensors[name][rows] for name in last.input[1:])

    def measure(self, quantize: Quantize) -> Result:
        """Letters less those put in, taken out or replaced."""
        output, _ = quantize(self.layer)(self.x, lengths=self.lengths)
        best = (output @ self.weight.T + self.bias).argmax(axis=2).T
        read = [text_of(row[:T]) for row, T in zip(best, self.lengths, strict=True)]
        wrong = sum(map(distance, read, self.words))
        return Result(100 * (1 - wrong / sum(map(len, self.words))), read)


def _words() -> list[str]:
    words = [entry.letters for entry in data.pronunciations() if 4 <= len(entry.letters) <= 10]
    chosen = np.random.default_rng(1).choice(len(words), WORDS, replace=False)
    return [words[k] for k in chosen]


def _picture(word: str, seed: int) -> Any:
    """(HEIGHT, width), from 0 to 1."""
    rng = np.random.default_rng(seed)
    font = ImageFont.truetype(io.BytesIO(data.read(FONT, "captcha/data/DroidSansMono.ttf")), SIZE)
    paper, x = Image.new("L", (30 * len(word) + 30, HEIGHT), 255), 10
    for letter in word:
        mask = Image.new("L", (48, 56), 0)
        ImageDraw.Draw(mask).text((10, 2), letter, font=font, fill=255)
        mask = mask.rotate(rng.uniform(-ANGLE, ANGLE), Image.Resampling.BILINEAR)
        paper.paste(0, (x - 8, 4), mask)
        x += int(rng.integers(20, 27))
    pixels = np.asarray(paper.crop((0, 0, x + 20, HEIGHT)), np.float32)
    noisy = pixels + rng.normal(0, NOISE, pixels.shape)
    return np.clip(noisy, 0, 255).astype(np.float32) / 255


def _columns(model: Any, pictures: list[Any]) -> list[Any]:
    """What the LSTM reads of each picture: (T, features)."""
    (read,) = (node.input[0] for node in model.graph.node if node.op_type == "LSTM")
    model.graph.output.append(onnx.helper.make_tensor_value_info(read, 1, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings of what it finds in the model
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [session.run([read], {"input1": p[None, None]})[0][:, 0] for p in pictures]


def _characters(source: str) -> list[str]:
    """What each output stands for, which a module of the package writes out."""
    found = re.search(r"CHARSET_BETA = (\[.*?\])\r?\n", source, re.DOTALL)
    if found is None:
        raise SystemExit("ddddocr has no list of characters where it is expected")
    characters: list[str] = ast.literal_eval(found[1])
    return characters


def text_of(best: Any) -> str:
    """The letters of columns: those that go on are one."""
    new = np.concatenate([[True], best[1:] != best[:-1]])
    return "".join(LETTERS[k - 1] for k in best[new & (best > 0)])
