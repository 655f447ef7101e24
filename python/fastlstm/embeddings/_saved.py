"""What ``Embeddings.save`` writes: a safetensors file whose vectors can be mapped into memory."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, check_shape
from fastlstm._safetensors import read_header
from fastlstm._saving import write_safetensors

from ._words import MOST_DIM

# The metadata's entry, and the version of its meaning: words (UTF-8, one after the other), where
# each of them ends, and vectors (V, dim).
_KEY = "fastlstm.embeddings"
_FORMAT = "1"
_TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "U8": "u1"}
_ALIGNMENT = 64


def is_one(head: bytes) -> bool:
    """Whether a file begins as safetensors files do."""
    return head[4:9] == b"\0\0\0\0{"


def save(words: Iterable[str], vectors: FloatArray, path: str | os.PathLike[str]) -> None:
    """Write embeddings to a file."""
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    tensors = {
        # First, as this needs the alignment.
        "vectors": vectors,
        "word_ends": np.cumsum([len(word) for word in encoded], dtype=np.int64),
        "words": np.frombuffer(b"".join(encoded), np.uint8),
    }
    write_safetensors(path, tensors, {_KEY: _FORMAT}, alignment=_ALIGNMENT)


def load(path: str, limit: int, dtype: np.dtype[Any]) -> tuple[list[str], FloatArray]:
    """Map a file: its words and vectors."""
    metadata, tensors = read_header(path)
    if metadata.get(_KEY) != _FORMAT:
        raise ValueError("a safetensors file, but none that Embeddings.save wrote")
    if tensors.keys() != {"vectors", "word_ends", "words"}:
        raise ValueError("expected the tensors vectors, word_ends and words")
    data = tensors["words"].file.mapped()

    def mapped(name: str, *types: str) -> npt.NDArray[Any]:
        tensor = tensors[name]
        if tensor.dtype not in types:
            raise ValueError(f"{name}: expected {' or '.join(types)}, got {tensor.dtype}")
        values = np.frombuffer(data, _TYPES[tensor.dtype], math.prod(tensor.shape), tensor.offset)
        return values.reshape(tensor.shape)

    vectors, ends = mapped("vectors", "F32", "F64"), mapped("word_ends", "I64")
    text = mapped("words", "U8")
    check_shape("vectors", vectors, ("words", "dim"))
    check_shape("word_ends", ends, (len(vectors),))
    if len(vectors) == 0 and vectors.shape[1] > MOST_DIM:  # a size that no data stands for
        raise ValueError(f"vectors: expected up to {MOST_DIM} dimensions, got {vectors.shape[1]}")
    sizes = np.diff(ends, prepend=0)
    if sizes.min(initial=0) < 0 or (ends[-1] if len(ends) else 0) != text.nbytes:
        raise ValueError("word_ends: expected the words' ends, one after the other")
    joined = text.tobytes()
    # Integers, but not all at once; an odd number of values before leaves them unaligned.
    aligned = np.require(ends[:limit], requirements="A")
    bounds = itertools.chain([0], memoryview(aligned.data))
    words = [
        joined[begin:end].decode("utf-8", "surrogatepass")
        for begin, end in itertools.pairwise(bounds)
    ]
    return words, vectors[:limit].astype(dtype, copy=False)
