"""Damaged files: whatever a reader is given, it reads or says why not, in bounded memory."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Far above what reading the small files of the tests takes, far below what damage may ask for.
MOST_MEMORY = 64 << 20


def cuts(data: bytes, most: int = 80) -> Iterator[bytes]:
    """The beginnings of a file: all of a short one's, evenly spread and at its ends otherwise."""
    ends = set(np.linspace(0, len(data) - 1, most, dtype=int).tolist())
    ends |= {n for n in range(20) if n < len(data)} | {len(data) - n for n in (1, 2, 3, 8)}
    for end in sorted(ends):
        yield data[: max(end, 0)]


def flips(data: bytes, rng: np.random.Generator, count: int = 200) -> Iterator[bytes]:
    """A file with one byte, or a few in a row, replaced: by random ones and by the largest."""
    for n in range(count):
        damaged = bytearray(data)
        at = int(rng.integers(len(data)))
        width = (1, 1, 1, 4, 8)[n % 5]
        new = b"\xff" * width if n % 3 == 0 else rng.bytes(width)
        damaged[at : at + width] = new
        yield bytes(damaged[: len(data)])


def assert_reads_or_refuses(read: Callable[[Path], Any], path: Path, data: bytes) -> bool:
    """Return whether the file could be read; any error but a ValueError fails, and much memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        read(path)
    except ValueError as error:
        if str(path) not in str(error):
            raise
        return False
    else:
        return True
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_MEMORY


def check_reader(
    read: Callable[[Path], Any],
    path: Path,
    data: bytes,
    *,
    cut_is_an_error: bool = True,
    count: int = 200,
) -> None:
    """Try a reader on a good file, on its beginnings, on damaged copies and on other things."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert assert_reads_or_refuses(read, path, data)
    for cut in cuts(data):
        assert not (assert_reads_or_refuses(read, path, cut) and cut_is_an_error), len(cut)
    rng = np.random.default_rng(0)
    for damaged in flips(data, rng, count):
        assert_reads_or_refuses(read, path, damaged)
    for other in (
        b"",
        b"\0" * 1000,
        b"no model\n" * 100,
        rng.bytes(5000),
        b"PK\x05\x06" + bytes(18),
    ):
        assert not assert_reads_or_refuses(read, path, other)
    # Of the whole process, for libraries that allocate by themselves; in KiB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_MEMORY >> 8
    with pytest.raises(FileNotFoundError):
        read(path.parent / "not there")
    with pytest.raises(OSError):  # noqa: PT011 the system's words
        read(path.parent)
