"""Files of word vectors, in all formats that ``fastlstm.embeddings.load`` reads."""

from __future__ import annotations

import gzip
import pathlib
import random as randomness
import re
import struct
import warnings

import fastlstm
import numpy as np

WORDS = ["the", "cat", "naïve", "日本", ". . .", "don't"]
VECTORS = (np.arange(6 * 4, dtype=np.float32).reshape(6, 4) - 9) / 8
SEPARATORS = [b" ", b"\t", b"  ", b"\n", b"\r", b"\r\n", b"\0", b"\x0b", b"\xc2\xa0", b",", b""]
NUMBERS = [b"0", b"-1", b"4", b"65537", b"1099511627776", b"nan", b"-inf", b"1e39", b"0x1", b"1,5"]
INTEGERS = [-1, 0, 1, 2, 31, 2**16, 2**31 - 1, -(2**31)]
NUMBER = re.compile(rb"[-+.0-9e]+")
GZIP = b"\x1f\x8b"


def _text(separator: str = " ", after: str = "") -> str:
    rows = zip(WORDS, VECTORS, strict=True)
    return "".join(f"{word} {separator.join(map(str, row))}{after}\n" for word, row in rows)


def _fasttext(minn: int, maxn: int, buckets: int) -> bytes:
    matrix = np.ones((len(WORDS) + buckets, 4), np.float32)
    options = (4, 5, 5, 1, 5, 1, 2, 2, buckets, minn, maxn, 100, 1e-4)
    data = struct.pack("<2i12id", 793712314, 12, *options)
    data += struct.pack("<3i2q", len(WORDS) + 1, len(WORDS), 1, 99, -1)
    for word, is_label in [*((word, 0) for word in WORDS), ("__label__", 1)]:
        data += word.encode() + struct.pack("<bqb", 0, 3, is_label)
    data += struct.pack("<?2q", False, *matrix.shape) + matrix.tobytes()
    return data + struct.pack("<?2q", False, 1, 4) + bytes(16)


def originals(folder: pathlib.Path) -> None:
    """Write a small file in each format."""
    header = f"{len(WORDS)} 4\n"
    rows = zip(WORDS, VECTORS, strict=True)
    binary = [w.replace(" ", "_").encode() + b" " + row.tobytes() for w, row in rows]
    files = {
        "word2vec": (header + _text()).encode(),
        "fasttext": (header + _text(after=" ")).encode(),
        "glove": _text().encode(),
        "tabs": _text("\t").encode(),
        "mark": ("\ufeff" + _text()).encode(),
        "without an end": _text()[:-1].encode(),
        "compressed": gzip.compress((header + _text()).encode(), mtime=0),
        "binary": header.encode() + b"\n".join(binary),
        "binary, compressed": gzip.compress(header.encode() + b"".join(binary), mtime=0),
        "model": _fasttext(2, 4, 20),
        "model without subwords": _fasttext(0, 0, 0),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    fastlstm.embeddings.Embeddings(WORDS, VECTORS).save(folder / "saved")


def read(path: str) -> object:
    """Read all vectors, and look up words that are there and that are not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        embeddings = fastlstm.embeddings.load(path)
    x, lengths = embeddings.lookup([["the", "unknown", *embeddings.words[:9]]])
    return embeddings.vectors, x, lengths


def mutated(random: randomness.Random, data: bytes) -> bytes:
    """Change a number, a separator, a line, or an integer of a binary file."""
    if data.startswith(GZIP):
        return gzip.compress(mutated(random, gzip.decompress(data)), mtime=0)
    change = random.randrange(5)
    if change == 0 and (numbers := list(NUMBER.finditer(data))):
        begin, end = random.choice(numbers).span()
        return data[:begin] + random.choice(NUMBERS) + data[end:]
    if change == 1 and (places := [n for n, byte in enumerate(data) if byte in b" \t\n"]):
        at = random.choice(places)
        return data[:at] + random.choice(SEPARATORS) + data[at + 1 :]
    if change == 2:
        lines = data.split(b"\n")
        lines[random.randrange(len(lines))] *= random.choice([0, 2, 1000])
        random.shuffle(lines)
        return b"\n".join(lines)
    if change == 3:
        return random.choice([b"\xef\xbb\xbf", b"\xff\xfe", b"\n", b" ", b"\0"]) + data
    at = random.randrange(max(len(data) - 7, 1))
    integer = struct.pack(random.choice(["<i", "<q"]), random.choice(INTEGERS))
    return data[:at] + integer + data[at + len(integer) :]
