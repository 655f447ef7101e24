"""Values of HDF5 datasets that are in chunks, compressed perhaps: a B-tree (version 1) has them."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .hdf5_format import NOWHERE, Bytes, Message

_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3
_FILTERS = {4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf", 32001: "blosc"}


def read_chunks(
    file: Bytes,
    layout: Message,
    filters: Message | None,
    shape: tuple[int, ...],
    stored: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Return the values of a dataset.

    Raises
    ------
    ValueError
        Some are missing; they are compressed by other means, or damaged.
    """
    start, rank = layout.start, len(shape)
    if file.integer(start, 1) != 3:
        raise ValueError("its values are in chunks of the form of libver='latest'")
    tree = file.integer(start + 3)
    sides = tuple(file.integer(start + 11 + 4 * k, 4) for k in range(rank))
    steps = [] if filters is None else _steps(file, filters)
    if file.integer(start + 2, 1) != rank + 1 or not rank or 0 in sides:
        raise ValueError("damaged: chunks of another shape than the dataset")
    size = math.prod(shape) * stored.itemsize
    counts = [-(-n // side) for n, side in zip(shape, sides, strict=True)]
    whole = math.prod(sides) * stored.itemsize
    # No chunk is read twice, so that this bounds what is decompressed, and how much at once.
    if math.prod(counts) * whole > 8 * size + (1 << 20) or whole > len(file.data) + (8 << 20):
        raise ValueError("its chunks are far larger than it")
    file.spend(size + 200 * math.prod(counts))
    values = np.empty(shape, stored)
    missing = set(itertools.product(*map(range, counts)))
    for at, length, skipped, corner in _chunks(file, tree, rank):
        place = tuple(n // side for n, side in zip(corner, sides, strict=True))
        if place not in missing:
            raise ValueError("damaged: a chunk is there twice, or outside")
        missing.remove(place)
        used = [step for k, step in enumerate(steps) if not skipped >> k & 1]
        chunk = np.frombuffer(_decoded(file, at, length, used, whole, stored), stored)
        here = tuple(slice(k * side, (k + 1) * side) for k, side in zip(place, sides, strict=True))
        room = values[here]
        room[...] = chunk.reshape(sides)[tuple(map(slice, room.shape))]
    if missing:
        raise ValueError("its values are missing")
    return values


def _steps(file: Bytes, message: Message) -> list[int]:
    """The filters that values went through when they were written."""
    version, count = file.integer(message.start, 1), file.integer(message.start + 1, 1)
    at = message.start + (8 if version == 1 else 2)
    found = []
    for _ in range(count):
        kind = file.integer(at, 2)
        if kind not in (_DEFLATE, _SHUFFLE, _CHECKSUM):
            raise ValueError(f"its values are compressed by {_FILTERS.get(kind, f'filter {kind}')}")
        found.append(kind)
        name = file.integer(at + 2, 2) if version == 1 else 0
        head = 8 if version == 1 else 6  # names of other filters only
        values = file.integer(at + head - 2, 2)
        at += head + name + 4 * values + (4 * (values % 2) if version == 1 else 0)
    return found


def _chunks(file: Bytes, tree: int, rank: int) -> Iterator[tuple[int, int, int, tuple[int, ...]]]:
    """Of each chunk: where it is, its length, which filters it skipped, its first place."""
    step = 8 + 8 * (rank + 1) + 8  # a key, with a place within the element, and an address
    waiting: list[tuple[int, int | None]] = [(tree, None)] if tree != NOWHERE else []
    while waiting:
        node, expected = waiting.pop()
        file.expect(node, b"TREE\1")
        level = file.integer(node + 5, 1)
        if expected is not None and level != expected:
            raise ValueError(f"damaged: a tree at {node} is not as deep as it says")
        for k in range(file.integer(node + 6, 2)):
            key = node + 24 + step * k
            child = file.integer(key + step - 8)
            if level:
                waiting.append((child, level - 1))
                continue
            corner = tuple(file.integer(key + 8 + 8 * axis) for axis in range(rank))
            yield child, file.integer(key, 4), file.integer(key + 4, 4), corner


def _decoded(
    file: Bytes, at: int, length: int, steps: list[int], whole: int, stored: np.dtype[Any]
) -> Any:
    """A chunk as it was before the filters."""
    if at + length > len(file.data) or length > whole + whole // 64 + 1024:
        raise ValueError("damaged: a chunk is not in the file, or longer than it can be")
    data: Any = memoryview(file.data)[at : at + length]
    for step in reversed(steps):
        if step == _CHECKSUM:
            data = data[:-4]
        elif step == _SHUFFLE:  # all first bytes of values, then all second ones, ...
            data = np.frombuffer(data, "u1").reshape(stored.itemsize, -1).T.tobytes()
        else:
            try:
                data = zlib.decompressobj().decompress(data, whole + 4)
            except zlib.error as error:
                raise ValueError(f"damaged: {error}") from None
    if len(data) != whole:
        raise ValueError(f"damaged: a chunk of {len(data)} bytes instead of {whole}")
    return data
