"""The numbers of a case: the same weights and inputs for every system, seeded by its name."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fastlstm_bench.cases import BLOCKS, CHECKED_STEPS, JOBS, Case

Array = npt.NDArray[Any]
Arrays = dict[str, Array]

# Of a model: symbols that it reads, and classes that it tells apart.
VOCABULARY, CLASSES = 2000, 20
# The class of a step behind a sequence's end: no loss.
IGNORED = -100
# Words that jobs read; a language model reads those that it tells apart. Word 0 is padding.
WORDS = {"classifier": 10_000, "tagger": 4_000}
# Quantiles that a forecaster gives of each step ahead.
QUANTILES = (0.1, 0.5, 0.9)
# Of CTC: label 0 is none.
BLANK = 0


@dataclass(frozen=True)
class Problem:
    """Inputs of a case, of the case's type of elements. Nothing may change them.

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
    targets : ndarray, or None
        For a model: the right classes, (T, B) of int64, which its loss is the cross entropy of,
        summed over steps. For jobs and losses what is right: of each sequence (B,), of each step
        (T, B), labels (B, S), or steps ahead (B, V / Q). All losses are sums: of a mean, float32
        would not have the digits for what an optimiser adds.
    target_lengths : ndarray of int64, (B,), or None
        How many labels each sequence has.
    padded : bool
        Whether a job's layer goes through padding as through steps: it is not told the lengths,
        although all else is.
    """

    params: Arrays
    x: Array
    d_output: Array
    lengths: npt.NDArray[np.int64] | None
    targets: Array | None = None
    target_lengths: npt.NDArray[np.int64] | None = None
    padded: bool = False

    @property
    def layer_lengths(self) -> npt.NDArray[np.int64] | None:
        """The lengths that a job's layer is told."""
        return None if self.padded else self.lengths

    def as_padded(self) -> Problem:
        """The same for who does not tell the layer."""
        return dataclasses.replace(self, padded=True)


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
    if case.use in BLOCKS:
        return _block_problem(case)
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
                params[name] = rng.uniform(-bound, bound, shape).astype(case.element)

    if case.use == "model":
        # Small, so that float32 has digits for what an optimiser adds to them.
        shape = (VOCABULARY, case.input_size(0))
        params["embedding.weight"] = rng.uniform(-0.1, 0.1, shape).astype(case.element)
        for name, shape in (("weight", (CLASSES, case.directions * H)), ("bias", (CLASSES,))):
            params[f"head.{name}"] = rng.uniform(-bound, bound, shape).astype(case.element)

    if case.use in JOBS:
        return _job_problem(case, params)
    rng = _generator(case, "data")
    x = rng.standard_normal((T, case.B, case.input_size(0))).astype(case.element)
    d_output = rng.standard_normal((T, case.B, case.directions * H)).astype(case.element)
    lengths = make_lengths(case)
    padding = _padding(T, case.B, lengths)
    d_output[padding] = 0
    if case.use != "model":
        return Problem(params, x, d_output, lengths)
    symbols = rng.integers(VOCABULARY, size=(T, case.B))
    targets = np.where(padding, IGNORED, rng.integers(CLASSES, size=(T, case.B)))
    return Problem(params, symbols, d_output, lengths, targets)


def _linear(rng: np.random.Generator, n_in: int, n_out: int, dtype: str) -> Arrays:
    bound = n_in**-0.5
    return {
        "weight": rng.uniform(-bound, bound, (n_out, n_in)).astype(dtype),
        "bias": rng.uniform(-bound, bound, n_out).astype(dtype),
    }


def _transitions(rng: np.random.Generator, n: int, dtype: str) -> Arrays:
    shapes = {"start_transitions": (n,), "end_transitions": (n,), "transitions": (n, n)}
    return {name: rng.uniform(-0.1, 0.1, shape).astype(dtype) for name, shape in shapes.items()}


def ends(T: int, B: int, lengths: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
    """(B,): where sequences end; whole ones without lengths."""
    return np.full(B, T) if lengths is None else lengths


def _padding(T: int, B: int, lengths: npt.NDArray[np.int64] | None) -> npt.NDArray[np.bool_]:
    """(T, B): what is behind a sequence's end."""
    padding: npt.NDArray[np.bool_] = np.arange(T)[:, np.newaxis] >= ends(T, B, lengths)
    return padding


def _labels(
    case: Case, rng: np.random.Generator, lengths: npt.NDArray[np.int64] | None, V: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Targets of CTC, (B, S), and their lengths: a label for about eight frames."""
    count = np.maximum(1, ends(case.T, case.B, lengths) // 8)
    return rng.integers(1, V, (case.B, count.max())), count


def _job_problem(case: Case, params: Arrays) -> Problem:
    """A job's other parameters by ``part.name``, and a batch of it."""
    rng = _generator(case, "data")
    T, B, V = case.T, case.B, case.V
    lengths = make_lengths(case)
    padding = _padding(T, B, lengths)
    parts = {"out": _linear(rng, case.directions * case.H, V, case.element)}
    x = rng.standard_normal((T, B, case.input_size(0))).astype(case.element)
    if case.use in (*WORDS, "language"):
        words = WORDS.get(case.use, V)
        vectors = rng.uniform(-0.1, 0.1, (words, case.H)).astype(case.element)
        vectors[0] = 0
        parts["words"] = {"weight": vectors}
        x = np.where(padding, 0, rng.integers(1, words, (T, B)))
    else:
        x[padding] = 0
    target_lengths = None
    if case.use == "classifier":
        targets: Array = rng.integers(V, size=B)
    elif case.use == "tagger":
        parts["crf"] = _transitions(rng, V, case.element)
        targets = np.where(padding, 0, rng.integers(V, size=(T, B)))
    elif case.use == "transcriber":
        targets, target_lengths = _labels(case, rng, lengths, V)
    elif case.use == "forecaster":
        targets = rng.standard_normal((B, V // len(QUANTILES))).astype(case.element)
    else:
        targets = np.where(padding, IGNORED, rng.integers(V, size=(T, B)))
    own = {f"{part}.{n}": value for part, values in parts.items() for n, value in values.items()}
    nothing = np.empty(0, case.element)
    return Problem({**params, **own}, x, nothing, lengths, targets, target_lengths)


def _block_problem(case: Case) -> Problem:
    """What a block reads, and what its backward pass begins with. Attention's queries, one for each
    sequence, count as a parameter."""
    rng = _generator(case, "data")
    T, B, H = case.T, case.B, case.H
    lengths = make_lengths(case)
    padding = _padding(case.T, case.B, lengths)
    params: Arrays = {}
    x = rng.standard_normal((T, B, H)).astype(case.element)
    x[padding] = 0
    shape: tuple[int, ...] = (0,)  # of a loss no gradient is given
    targets: Array | None = None
    target_lengths = None
    if case.use == "linear":
        params, shape = _linear(rng, H, case.V, case.element), (T, B, case.V)
    elif case.use == "embedding":
        params = {"weight": rng.standard_normal((case.V, H)).astype(case.element)}
        x, shape = rng.integers(case.V, size=(T, B)), (T, B, H)
    elif case.use == "attention":
        params = {"query": rng.standard_normal((B, H)).astype(case.element)}
        shape = (B, H)
    elif case.use == "ctc":
        targets, target_lengths = _labels(case, rng, lengths, H)
    else:
        if case.use == "crf":
            params = _transitions(rng, H, case.element)
        behind = 0 if case.use == "crf" else IGNORED
        targets = np.where(padding, behind, rng.integers(H, size=(T, B)))
    d_output = rng.standard_normal(shape).astype(case.element)
    return Problem(params, x, d_output, lengths, targets, target_lengths)
