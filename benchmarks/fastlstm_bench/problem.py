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

# Of a model: symbols that it reads, and classes that it tells apart.
VOCABULARY, CLASSES = 2000, 20
# The class of a step behind a sequence's end: no loss.
IGNORED = -100


@dataclass(frozen=True)
class Problem:
    """Inputs of a case, in the case's dtype. Nothing may change them.

    Attributes
    ----------
    params : dict of str to ndarray
        PyTorch's names, shapes and gate order; those of a model's other parts have a dot.
    x : ndarray, (T, B, I)
        For a stream: (CHECKED_STEPS, B, I), the inputs of the steps that are checked. For a model:
        (T, B) of int64, its symbols.
    d_output : ndarray, (T, B, D*H)
        The gradient of the loss that training starts from; zero past a sequence's end. The gradient
        of the final state is zero.
    lengths : ndarray of int64, (B,), or None
        None: every sequence has T steps.
    targets : ndarray of int64, (T, B), or None
        For a model: the right classes, which its loss is the cross entropy of, summed over steps.
    """

    params: Arrays
    x: Array
    d_output: Array
    lengths: npt.NDArray[np.int64] | None
    targets: npt.NDArray[np.int64] | None = None


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

    if case.use == "model":
        # Small, so that float32 has digits for what an optimiser adds to them.
        shape = (VOCABULARY, case.input_size(0))
        params["embedding.weight"] = rng.uniform(-0.1, 0.1, shape).astype(case.dtype)
        for name, shape in (("weight", (CLASSES, case.directions * H)), ("bias", (CLASSES,))):
            params[f"head.{name}"] = rng.uniform(-bound, bound, shape).astype(case.dtype)

    rng = _generator(case, "data")
    x = rng.standard_normal((T, case.B, case.input_size(0))).astype(case.dtype)
    d_output = rng.standard_normal((T, case.B, case.directions * H)).astype(case.dtype)
    lengths = make_lengths(case)
    padding = np.zeros((T, case.B), bool)
    if lengths is not None:
        padding = np.arange(T)[:, np.newaxis] >= lengths
    d_output[padding] = 0
    if case.use != "model":
        return Problem(params, x, d_output, lengths)
    symbols = rng.integers(VOCABULARY, size=(T, case.B))
    targets = np.where(padding, IGNORED, rng.integers(CLASSES, size=(T, case.B)))
    return Problem(params, symbols, d_output, lengths, targets)
