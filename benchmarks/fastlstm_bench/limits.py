"""The machine's limits, measured by benchmarks/native/limits.cpp: FMA peak, read bandwidths."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastlstm_bench import machine

# A matrix product faster than the "peak" by more than this means that one of the two is wrong.
NOISE = 1.05
_TRIALS = 3
_GEMM_SIZE = 1024


@dataclass(frozen=True)
class Level:
    """A level of the memory hierarchy.

    Attributes
    ----------
    name : str
        "L1", "L2", "L3", "memory".
    size : float
        Bytes; infinite for memory.
    shared : bool
        One for all cores; else one for each.
    bandwidth : float
        Bytes read per second by all threads together.
    """

    name: str
    size: float
    shared: bool
    bandwidth: float


@dataclass(frozen=True)
class Limits:
    """What one number of threads can do at most.

    Attributes
    ----------
    isa : str
        Instruction set of the loops.
    flops : dict of str to float
        Operations per second by dtype.
    gemm : dict of str to float
        The same reached by NumPy's matrix product: a check on `flops`, and what BLAS makes of it.
    levels : tuple of Level
        Smallest first.
    """

    isa: str = ""
    flops: dict[str, float] = field(default_factory=dict)
    gemm: dict[str, float] = field(default_factory=dict)
    levels: tuple[Level, ...] = ()

    def suspicions(self) -> list[str]:
        """Contradictions between the limits; empty when they fit together."""
        found = [
            f"{dtype}: the matrix product ran at {self.gemm[dtype] / peak:.2f} of the measured peak"
            for dtype, peak in self.flops.items()
            if self.gemm.get(dtype, 0.0) > NOISE * peak
        ]
        found += [
            f"{outer.name} reads faster than {inner.name}"
            for inner, outer in zip(self.levels, self.levels[1:], strict=False)
            if outer.bandwidth > NOISE * inner.bandwidth
        ]
        return found

    def to_json(self) -> dict[str, Any]:
        """Infinity, which JSON lacks, becomes null."""
        record = asdict(self)
        for level in record["levels"]:
            level["size"] = None if level["size"] == float("inf") else level["size"]
        return record

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Limits:
        levels = tuple(
            Level(
                level["name"],
                float("inf") if level["size"] is None else level["size"],
                level["shared"],
                level["bandwidth"],
            )
            for level in record["levels"]
        )
        return cls(record["isa"], record["flops"], record["gemm"], levels)


def best_of(first: Limits, second: Limits) -> Limits:
    """Join two measurements of the same machine: a limit is the best that was ever seen."""
    return Limits(
        first.isa or second.isa,
        _larger(first.flops, second.flops),
        _larger(first.gemm, second.gemm),
        tuple(
            max(pair, key=lambda level: level.bandwidth)
            for pair in zip(first.levels, second.levels, strict=True)
        )
        if first.levels and second.levels
        else first.levels or second.levels,
    )


def _larger(first: dict[str, float], second: dict[str, float]) -> dict[str, float]:
    return {key: max(first.get(key, 0.0), second.get(key, 0.0)) for key in first | second}


def find_library() -> Path | None:
    """The compiled limits.cpp beside this file; None: not built."""
    suffix = ".pyd" if sys.platform == "win32" else ".so"
    found = sorted(Path(__file__).parent.glob(f"_limits*{suffix}"))
    return found[0] if found else None


def _load(path: Path) -> Any:
    library = ctypes.CDLL(str(path))
    library.fastlstm_limits_isa.restype = ctypes.c_char_p
    library.fastlstm_limits_flops.restype = ctypes.c_double
    library.fastlstm_limits_flops.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_double]
    library.fastlstm_limits_bandwidth.restype = ctypes.c_double
    library.fastlstm_limits_bandwidth.argtypes = [ctypes.c_size_t, ctypes.c_int, ctypes.c_double]
    return library


def _levels_to_measure(threads: int, caches: dict[str, int]) -> list[tuple[str, float, bool, int]]:
    """(name, size, shared, bytes of each thread's buffer): buffers well inside one level, and well
    outside of the one before."""
    levels: list[tuple[str, float, bool, int]] = [
        (name, caches[name], False, caches[name] // 2) for name in ("L1", "L2") if name in caches
    ]
    last = 0
    if "L3" in caches:
        # Large enough that the private caches miss, and no larger: others use a shared cache too.
        each = min(4 * caches.get("L2", 1 << 20), caches["L3"] // (2 * threads))
        levels.append(("L3", caches["L3"], True, each))
        last = caches["L3"]
    elif "L2" in caches:
        last = caches["L2"]
    if last:
        levels.append(("memory", float("inf"), True, max(4 * last, 64 << 20) // threads))
    return levels


def _gemm_flops(dtype: str, seconds: float) -> float:
    n = _GEMM_SIZE
    a = np.ones((n, n), dtype)
    out = a @ a
    best, start = 0.0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        begin = time.perf_counter()
        np.matmul(a, a, out=out)
        best = max(best, 2.0 * n**3 / (time.perf_counter() - begin))
    return best


def measure(threads: int, seconds: float = 0.1, path: Path | None = None) -> Limits:
    """Measure the limits of `threads` threads; the process must already be pinned to as many CPUs.

    Parameters
    ----------
    threads : int
    seconds : float
        Length of each of the three trials of each limit, of which the best counts.
    path : Path, optional
        The compiled limits.cpp, where it is not beside this file.

    Raises
    ------
    FileNotFoundError
        limits.cpp was not compiled.
    """
    path = path or find_library()
    if path is None:
        raise FileNotFoundError("the limits are not measured: limits.cpp is not compiled")
    library = _load(path)

    def best(function: Any, *arguments: int) -> float:
        return max(float(function(*arguments, threads, seconds)) for _ in range(_TRIALS))

    dtypes: Sequence[str] = ("float32", "float64")
    return Limits(
        isa=library.fastlstm_limits_isa().decode(),
        flops={d: best(library.fastlstm_limits_flops, int(d == "float64")) for d in dtypes},
        gemm={d: _gemm_flops(d, _TRIALS * seconds) for d in dtypes},
        levels=tuple(
            Level(name, size, shared, best(library.fastlstm_limits_bandwidth, each))
            for name, size, shared, each in _levels_to_measure(threads, machine.cache_sizes())
        ),
    )


def main(argv: list[str]) -> int:
    """``python -m fastlstm_bench.limits THREADS``: pin, measure, print JSON."""
    threads = int(argv[0])
    machine.pin(threads)
    try:
        print(json.dumps(measure(threads).to_json()))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
