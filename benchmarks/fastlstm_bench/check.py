"""Is a system's result right? Asked before anything is timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fastlstm_bench.cases import SMALL, DType
from fastlstm_bench.problem import Array

# The largest difference from float64 that is allowed, relative to the largest value of the array.
#
# float32 rounds to 6e-8. Sums of a few thousand terms and 2000 steps of a recurrence grow that to
# 1e-6 to 1e-5 in every correct system, cheap approximations of tanh to 2e-5. A wrong gate order, a
# missing bias or a state that is not carried gives 1e-2 or more, bfloat16 products 3e-3. 1e-4
# separates the two. float64: the same room above its rounding of 1e-16.
#
# bfloat16 and int8 are compared with the exact weights, too. Rounding weights, inputs and h to few
# bits comes to 5e-2 in PyTorch's int8, which has one scale for a call; a wrong gate order to 5e-1.
TOLERANCE: dict[DType, float] = {
    "float32": 1e-4,
    "float64": 1e-9,
    "bfloat16": 5e-2,
    "int8": 1e-1,
}

# The relative difference that is allowed in the norm that an optimiser's gradients are clipped to,
# one factor of all gradients in all steps; each parameter must then be as near as TOLERANCE says.
#
# float32: PyTorch adds the squares in float32 without pairs, and is off by 2.2e-4 for the 4 million
# gradients of one matrix (H = 1024), 6.5e-4 for 16 million normal numbers; NumPy is off by 1e-5. A
# norm without the biases is off by 2.2e-3 at H = 1024 and more where they are a larger part, one
# without a matrix by 1.2e-2. float64: PyTorch adds 1e-6 to the norm, which is more than 1 here.
NORM_TOLERANCE: dict[DType, float] = {"float32": 1e-3, "float64": 1e-6}


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check.

    Attributes
    ----------
    errors : dict of str to float
        Largest relative difference by array. For an optimiser, "norm" is that of the clipped
        gradients' norm, and moved_<parameter> are without what follows from it.
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


def _norm_error(
    got: Mapping[str, Array], want: Mapping[str, Array], slopes: Mapping[str, Array]
) -> float:
    """How much larger the norm of the clipped gradients was than the oracle's, by least squares
    over all parameters; 0 where they cannot be compared."""
    above = below = 0.0
    for name, slope in slopes.items():
        if name in got and got[name].shape == slope.shape and np.isfinite(got[name]).all():
            above += float(np.vdot(got[name] - want[name], slope))
            below += float(np.vdot(slope, slope))
    return above / below if below else 0.0


def check(got: Mapping[str, Array], want: Mapping[str, Array], dtype: DType) -> Verdict:
    """Compare a system's results with the oracle's, all arrays that the oracle has."""
    errors: dict[str, float] = {}
    complaints: list[str] = []
    slopes = {name.replace("slope_", "moved_"): a for name, a in want.items() if "slope_" in name}
    norm = _norm_error(got, want, slopes)
    if slopes:
        errors["norm"] = abs(norm)
        if not errors["norm"] <= NORM_TOLERANCE[dtype]:
            complaints.append(f"the gradients' norm is off by {errors['norm']:.1e}")
    for name, expected in want.items():
        if "slope_" in name:
            continue
        if name not in got:
            complaints.append(f"{name} is missing")
        elif got[name].shape != expected.shape:
            complaints.append(f"{name} has shape {got[name].shape}, expected {expected.shape}")
        elif got[name].dtype.name != (element := "float32" if dtype in SMALL else dtype):
            complaints.append(f"{name} is {got[name].dtype}, expected {element}")
        else:
            aside = norm * slopes[name] if name in slopes else 0.0
            errors[name] = relative_error(got[name], expected + aside)
            if not errors[name] <= TOLERANCE[dtype]:
                complaints.append(f"{name} is off by {errors[name]:.1e} of its largest value")
    return Verdict(errors, "; ".join(complaints))
