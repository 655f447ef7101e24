"""How far results may be from the exact ones. One table; a wider entry needs a reason here.

Relative errors are the largest difference as a part of the largest expected value of the same
array (:func:`relative_error`): single values near zero are differences of larger ones and
have no relative accuracy of their own. ULP errors are in units of the last place of the exact
result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Tolerance(NamedTuple):
    """A bound on a relative error, and why it is what it is."""

    bound: float
    reason: str


# Results of a layer against the float64 reference, which reads the same (rounded) parameters and
# inputs, so that all of the difference is rounding inside the layer.
FORWARD = {
    "float64": Tolerance(1e-14, "45 ULP; 7e-16 measured. The promise is 1e-10"),
    "float32": Tolerance(
        1e-6, "8 ULP: the roundings of one step, damped afterwards; 4e-7 measured"
    ),
}
BACKWARD = {
    "float64": Tolerance(5e-14, "sums over steps and rows that cancel in part; 4e-15 measured"),
    "float32": Tolerance(5e-6, "sums over steps and rows that cancel in part; 1.5e-6 measured"),
}

# The same with layer normalisation, which divides by deviations that may be small, and what was
# rounded before with them. A step's own error, from the state before it as it is:
NORMALISED_STEP = {
    "float64": Tolerance(1e-14, "the same in ULP; 2e-15 measured"),
    "float32": Tolerance(4e-6, "small deviations; 1.8e-6 measured"),
}
NORMALISED_STEP_BACKWARD = {
    "float64": Tolerance(2e-14, "the same in ULP"),
    "float32": Tolerance(1e-5, "small deviations; 2.4e-6 measured"),
}
# Steps of a new layer stretch what was rounded before them (docs/numerics.md), here in the tests'
# sequences of a few steps. TORCH_RATIO bounds longer ones.
NORMALISED_FORWARD = {
    "float64": Tolerance(5e-14, "a few steps; 1.2e-14 measured"),
    "float32": Tolerance(1e-5, "a few steps; 8e-6 measured"),
}
NORMALISED_BACKWARD = {
    "float64": Tolerance(2e-13, "a few steps; 9e-14 measured"),
    "float32": Tolerance(2e-4, "a few steps; 8e-5 measured"),
}

# Ten thousand steps, each of which rests on the one before: results and gradients.
LONG = {
    "float64": Tolerance(5e-14, "a stable recurrence forgets its rounding; 4e-15 measured"),
    "float32": Tolerance(5e-6, "the same; 3e-7 measured"),
}

# Where another number of rows is another order of the same sums.
REORDERED = {
    "float64": Tolerance(1e-14, "another order of the same sums"),
    "float32": Tolerance(1e-6, "another order of the same sums"),
}

# Our float32 error over PyTorch's on the same inputs.
TORCH_RATIO = Tolerance(1.25, "as accurate as PyTorch, up to the chance in one set of inputs")

# A converted layer against the framework that it came from, which rounds as well: outputs, states.
FOREIGN = {
    "float64": Tolerance(5e-15, "the roundings of two libraries; 7e-16 measured"),
    "float32": Tolerance(3e-6, "the roundings of two libraries; 4e-7 measured"),
}
FOREIGN_GRADIENTS = {
    "float64": Tolerance(1e-14, "sums over steps and rows in two libraries; 2.7e-15 measured"),
    "float32": Tolerance(1e-5, "sums over steps and rows in two libraries; 1e-6 measured"),
}
# The losses over whole sequences, their gradients and marginals, against the reference.
CRF = {
    "float64": Tolerance(1e-13, "a step of the recursion rounds what its exponents are made of"),
    "float32": Tolerance(5e-5, "the same"),
}
CTC = {
    "float64": Tolerance(1e-13, "as for the CRF"),
    "float32": Tolerance(5e-5, "as for the CRF"),
}
CTC_LONG = Tolerance(2e-4, "3000 frames in float32; 8e-5 measured")

ONNX_RUNTIME = Tolerance(
    1e-5, "5e-6 measured, with ScaledTanh, where it is further from float64 than we are"
)

# The losses of 100 steps of training in float32, step by step.
CURVE = Tolerance(1e-3, "what training makes of rounding on both sides; 2e-6 measured")

# The kernels' functions in ULP, over all finite values whose results are normal numbers.
ULP = {
    "exp": Tolerance(1.0, "half an ULP of rounding and the rounding of the reduced argument"),
    "log": Tolerance(1.0, "half an ULP of rounding, and sums that are small beside the first term"),
    "sigmoid": Tolerance(2.5, "exp, one addition and one division"),
    "tanh": Tolerance(2.5, "expm1 with one subtraction, one addition and one division"),
}


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference as a part of the largest expected value; NaN if one is."""
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return 0.0
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    largest = float(np.max(np.abs(expected)))
    difference = float(np.max(np.abs(actual - expected)))
    return difference if largest == 0.0 else difference / largest


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: Tolerance, what: str) -> None:
    """Fail unless the relative error is within the tolerance. NaN never is."""
    error = relative_error(np.asarray(actual), np.asarray(expected))
    if not error <= tolerance.bound:
        raise AssertionError(
            f"{what}: relative error {error:.3g}, at most {tolerance.bound:.3g} allowed "
            f"({tolerance.reason})"
        )
