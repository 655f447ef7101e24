"""The numbers of a case: the same weights and inputs for every system, seeded by its name."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm_bench.cases import CHECKED_STEPS, Case

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True)
class Problem:
    """Inputs of a case, in the case's dtype. Nothing may change them.

    Attributes
    ----------
    params : dict of str to ndarray
        PyTorch's names, shapes and gate order.
    x : ndarray, (T, B, I)
        For a stream: (CHECKED_STEPS, B, I), the inputs of the steps that are checked.
    d_output : ndarray, (T, B, D*H)
        The gradient of the loss that training starts from; zero past a sequence's end. The gradient
        of the final state is zero.
    lengths : ndarray of int64, (B,), or None
        None: every sequence has T steps.
    """

    params: Arrays
    x: Array
    d_output: Array
    lengths: npt.NDArray[np.int64] | None


def parameter_names(layer: int, direction: int) -> tuple[str, str, str, str]:
    """PyTorch's names of W, R, b_W, b_R."""
    suffix = f"_l{layer}" + ("_reverse" if direction else "")
    return (
        f"weight_ih{suffix}",
        f"weight_hh{suffix}",
        f"bias_ih{suffix}",
        f"bias_hh{suffix}",
    )


def _generator(case: Case, what: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{case.name}/{what}".encode()))


def make_lengths(case: Case) -> npt.NDArray[np.int64] | None:
    """Lengths uniform in T/5 to T. One sequence has all T steps: x is padded no further."""
    if not case.lengths:
        return None
    shortest = max(1, case.T // 5)
    lengths = _generator(case, "lengths").integers(shortest, case.T, case.B, endpoint=True)
    lengths[case.B // 2] = case.T
    return lengths


def make_problem(case: Case) -> Problem:
    """Weights uniform in ±1/sqrt(H), PyTorch's initialisation; x and the gradient normal."""
    T = CHECKED_STEPS if case.task == "step" else case.T
    G, H = case.gates, case.H
    rng = _generator(case, "weights")
    bound = H**-0.5
    params: Arrays = {}
    for layer in range(case.layers):
        I = case.input_size(layer)
        shapes = ((G * H, I), (G * H, H), (G * H,), (G * H,))
        for direction in range(case.directions):
            for name, shape in zip(parameter_names(layer, direction), shapes, strict=True):
                params[name] = rng.uniform(-bound, bound, shape).astype(case.dtype)

    rng = _generator(case, "data")
    x = rng.standard_normal((T, case.B, case.input_size(0))).astype(case.dtype)
    d_output = rng.standard_normal((T, case.B, case.directions * H)).astype(case.dtype)
    lengths = make_lengths(case)
    if lengths is not None:
        d_output[np.arange(T)[:, np.newaxis] >= lengths] = 0
    return Problem(params, x, d_output, lengths)
