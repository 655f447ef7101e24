"""What ``Embeddings.save`` writes: a safetensors file whose vectors can be mapped into memory."""

from __future__ import annotations

import itertools
import json
import mmap
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastlstm._checks import FloatArray, check_shape
from fastlstm._saving import write_safetensors

# The metadata's entry, and the version of its meaning: words (UTF-8, one after the other), where
# each of them ends, and vectors (V, dim).
_KEY = "fastlstm.embeddings"
_FORMAT = "1"
_TYPES = {"F32": "<f4", "F64": "<f8"}
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
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:  # checks the header
            if (file.metadata() or {}).get(_KEY) != _FORMAT:
                raise ValueError("a safetensors file, but none that Embeddings.save wrote")
            if set(file.keys()) != {"vectors", "word_ends", "words"}:
                raise ValueError("expected the tensors vectors, word_ends and words")
            ends, text = file.get_tensor("word_ends"), file.get_tensor("words")
    except safetensors.SafetensorError as error:
        raise ValueError(f"not a safetensors file that can be read: {error}") from error
    with open(path, "rb") as raw:
        data = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    start = 8 + int.from_bytes(data[:8], "little")
    tensor = json.loads(data[8:start])["vectors"]
    shape = tensor["shape"]
    if tensor["dtype"] not in _TYPES or len(shape) != 2 or ends.dtype != np.int64:
        raise ValueError("its tensors are of other types than those of Embeddings.save")
    check_shape("word_ends", ends, (shape[0],))
    sizes = np.diff(ends, prepend=0)
    if sizes.min(initial=0) < 0 or (ends[-1] if len(ends) else 0) != text.nbytes:
        raise ValueError("word_ends: expected the words' ends, one after the other")
    joined = text.tobytes()
    bounds = [0, *ends[:limit].tolist()]
    words = [
        joined[begin:end].decode("utf-8", "surrogatepass")
        for begin, end in itertools.pairwise(bounds)
    ]
    offset = start + tensor["data_offsets"][0]
    vectors = np.frombuffer(data, _TYPES[tensor["dtype"]], shape[0] * shape[1], offset)
    return words, vectors.reshape(shape)[:limit].astype(dtype, copy=False)
