"""Is a system's result right? Asked before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastlstm_bench.cases import DType
from fastlstm_bench.problem import Array

# The largest difference from float64 that is allowed, relative to the largest value of the array.
#
# float32 rounds to 6e-8. Sums of a few thousand terms and 2000 steps of a recurrence grow that to
# 1e-6 to 1e-5 in every correct system, cheap approximations of tanh to 2e-5. A wrong gate order, a
# missing bias or a state that is not carried gives 1e-2 or more, bfloat16 products 3e-3. 1e-4
# separates the two. float64: the same room above its rounding of 1e-16.
TOLERANCE: dict[DType, float] = {"float32": 1e-4, "float64": 1e-9}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check.

    Attributes
    ----------
    errors : dict of str to float
        Largest relative difference by array.
    complaint : str
        Why the result is wrong; empty when it is right.
    """

    errors: dict[str, float]
    complaint: str


def relative_error(got: Array, want: Array) -> float:
    """Largest difference over the largest value of `want`. Infinity where `got` is not finite."""
    if not np.isfinite(got).all():
        return float("inf")
    if want.size == 0:
        return 0.0
    scale = float(np.abs(want).max())
    return float(np.abs(got.astype(np.float64) - want).max()) / (scale or 1.0)


def check(got: Mapping[str, Array], want: Mapping[str, Array], dtype: DType) -> Verdict:
    """Compare a system's results with the oracle's, all arrays that the oracle has."""
    errors: dict[str, float] = {}
    complaints: list[str] = []
    for name, expected in want.items():
        if name not in got:
            complaints.append(f"{name} is missing")
        elif got[name].shape != expected.shape:
            complaints.append(f"{name} has shape {got[name].shape}, expected {expected.shape}")
        elif got[name].dtype != np.dtype(dtype):
            complaints.append(f"{name} is {got[name].dtype}, expected {dtype}")
        else:
            errors[name] = relative_error(got[name], expected)
            if not errors[name] <= TOLERANCE[dtype]:
                complaints.append(f"{name} is off by {errors[name]:.1e} of its largest value")
    return Verdict(errors, "; ".join(complaints))
