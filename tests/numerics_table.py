"""Measures the kernels' exp, log, sigmoid and tanh: python -m tests.numerics_table [--write].

The exact values come from NumPy's longdouble, whose 64 bits of mantissa are 11 more than float64
has: its own error, about one of its last places, is 0.001 of an ULP here. Where longdouble is no
wider than float64 (Windows, some ARM systems), the figures for float64 cannot be measured.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fastlstm
import numpy as np
from fastlstm import _core

Wide = np.longdouble
WIDE_IS_WIDER = np.finfo(Wide).nmant >= 63

DOCUMENT = Path(__file__).parent.parent / "docs" / "numerics.md"
BEGIN, END = "<!-- measured -->", "<!-- end of measured -->"


def exact_exp(x: np.ndarray) -> np.ndarray:
    return np.exp(x)


def exact_log(x: np.ndarray) -> np.ndarray:
    return np.log(x)


def exact_sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def exact_tanh(x: np.ndarray) -> np.ndarray:
    """By expm1: longdouble's own tanh is less exact on some systems."""
    e = np.expm1(2 * np.minimum(np.abs(x), 100))  # from 100 on tanh rounds to 1 anyway
    return np.copysign(e / (e + 2), x)


class Function(NamedTuple):
    """A function and where to measure it: its results are normal numbers from least to most."""

    exact: Callable[[np.ndarray], np.ndarray]
    least: dict[str, float]
    most: dict[str, float]


# Those with functions of their own.
ISAS = [isa for isa in fastlstm.available_isas() if not isa.startswith("avx512_")]
FUNCTIONS = {
    "exp": Function(
        exact_exp,
        {"float32": -87.33654, "float64": -708.3964185322641},
        {"float32": 88.72283, "float64": 709.782712893384},
    ),
    # Of normal numbers.
    "log": Function(
        exact_log,
        {"float32": 1.2e-38, "float64": 2.3e-308},
        {"float32": 3e38, "float64": 1.7e308},
    ),
    # Below it sigmoid is no more than the clamp's value; see the document.
    "sigmoid": Function(
        exact_sigmoid,
        {"float32": -87.0, "float64": -708.0},
        {"float32": 3e38, "float64": 1.7e308},
    ),
    "tanh": Function(
        exact_tanh,
        {"float32": -3e38, "float64": -1.7e308},
        {"float32": 3e38, "float64": 1.7e308},
    ),
}


def kernel(name: str, isa: str, x: np.ndarray) -> np.ndarray:
    """The kernels' value of a function on one ISA."""
    return getattr(_core.kernels, name)(isa, x)


def ulp_errors(values: np.ndarray, x: np.ndarray, name: str) -> np.ndarray:
    """The errors of values in units of the last place of the exact results."""
    with np.errstate(over="ignore", under="ignore"):
        exact = FUNCTIONS[name].exact(x.astype(Wide))
    unit = np.spacing(np.abs(exact).astype(values.dtype)).astype(Wide)
    return (np.abs(values.astype(Wide) - exact) / unit).astype(np.float64)


def sample(dtype: str, least: float, most: float, n: int = 400_000) -> np.ndarray:
    """Values from least to most: evenly spread, in all magnitudes, and about powers of two."""
    rng = np.random.default_rng(0)
    finfo = np.finfo(dtype)
    near = np.array([max(least, -120.0), min(most, 120.0)])
    even = rng.uniform(*near, n)
    small = rng.uniform(-12, 12, n)
    exponents = rng.uniform(np.log2(float(finfo.tiny)), np.log2(float(finfo.max)) - 1, n)
    magnitudes = np.exp2(exponents) * rng.choice([-1.0, 1.0], n)
    powers = np.exp2(np.arange(-40.0, 10.0))
    steps = np.concatenate([powers * (1 + k * float(finfo.eps)) for k in range(-3, 4)])
    # Between these, n in exp = 2^n (1 + q) changes.
    halves = (np.arange(-130, 130) + 0.5) * np.log(2)
    halves = np.concatenate([halves * (1 + k * float(finfo.eps)) for k in range(-8, 9)])
    x = np.concatenate([even, small, magnitudes, steps, -steps, halves, halves / 2, [least, most]])
    x = x.astype(dtype)
    return x[(np.dtype(dtype).type(least) <= x) & (x <= np.dtype(dtype).type(most))]


class Measured(NamedTuple):
    """The largest error and where it is, and the mean."""

    most: float
    at: float
    mean: float


def measure(name: str, isa: str, dtype: str, n: int = 400_000) -> Measured:
    """Measure one function on one ISA over its whole range."""
    f = FUNCTIONS[name]
    x = sample(dtype, f.least[dtype], f.most[dtype], n)
    errors = ulp_errors(kernel(name, isa, x), x, name)
    worst = int(np.argmax(np.where(np.isnan(errors), np.inf, errors)))
    return Measured(float(errors[worst]), float(x[worst]), float(errors.mean()))


def measure_all_float32(name: str, isa: str, step: int) -> float:
    """The largest error over every step-th of all float32 in the function's range."""
    f = FUNCTIONS[name]
    worst = 0.0
    chunk = step << 20
    for first in range(0, 2**32, chunk):
        bits = np.arange(first, min(first + chunk, 2**32), step, dtype=np.uint64)
        x = bits.astype(np.uint32).view(np.float32)
        x = x[(x >= f.least["float32"]) & (x <= f.most["float32"])]
        x = x[np.abs(x) >= np.finfo(np.float32).tiny]
        if x.size:
            worst = max(worst, float(ulp_errors(kernel(name, isa, x), x, name).max()))
    return worst


def table(n: int = 400_000) -> str:
    """The errors on all ISAs of this machine, as Markdown."""
    lines = [
        "| Function | ISA | float32: largest | at | mean | float64: largest | at | mean |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in FUNCTIONS:
        for isa in ISAS:
            cells = []
            for dtype in ("float32", "float64"):
                m = measure(name, isa, dtype, n)
                cells += [f"{m.most:.3f}", f"{m.at:.9g}", f"{m.mean:.3f}"]
            lines.append(f"| `{name}` | {isa} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.numerics_table", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into docs/numerics.md")
    parser.add_argument(
        "--all-float32",
        type=int,
        metavar="N",
        help="go through every N-th of all float32 instead; with 1 it takes about an hour",
    )
    options = parser.parse_args()
    if not WIDE_IS_WIDER:
        parser.error("NumPy's longdouble is no wider than float64 here")
    if options.all_float32:
        for isa in ISAS:
            for name in FUNCTIONS:
                worst = measure_all_float32(name, isa, options.all_float32)
                print(f"{name} {isa} float32: {worst:.3f} ULP", flush=True)
        return
    text = table()
    print(text)
    if options.write:
        document = DOCUMENT.read_text()
        before, rest = document.split(BEGIN)
        _, after = rest.split(END)
        where = f"Errors in ULP, measured on {platform.machine()} with {_core.compiler()}:"
        DOCUMENT.write_text(f"{before}{BEGIN}\n{where}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
