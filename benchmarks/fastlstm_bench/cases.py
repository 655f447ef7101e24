"""What is measured: the grid, as tables.

T time steps, B batch, H hidden size; the input size I is H everywhere, as every published
comparison of recurrent layers has it. To add a point, add a line.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Task = Literal["step", "inference", "training", "optimiser"]
Cell = Literal["lstm", "gru", "rnn"]
DType = Literal["float32", "float64", "bfloat16", "int8"]
Job = Literal["classifier", "tagger", "transcriber", "forecaster", "language"]
Block = Literal["linear", "embedding", "cross-entropy", "ctc", "crf", "attention"]
Use = Literal["layer", "cells", "model"] | Job | Block

CELLS: tuple[Cell, ...] = ("lstm", "gru", "rnn")
GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}
DTYPES: tuple[DType, ...] = get_args(DType)
# Types of weights, and of what they are multiplied by; all other numbers are float32.
SMALL: tuple[DType, ...] = ("bfloat16", "int8")
JOBS: tuple[Job, ...] = get_args(Job)
BLOCKS: tuple[Block, ...] = get_args(Block)
# The features of jobs that read no words, whose vectors have the hidden size.
FEATURES = {"transcriber": 40, "forecaster": 8}

# The optimiser's step: gradients clipped to this common norm, then Adam. The epsilon is large,
# because with a small one the first steps are the signs of the gradients, and rounding decides the
# sign of one near zero: no result could be checked. The learning rate is small, because a timed
# case makes thousands of steps towards nothing. Neither changes the work.
MAX_NORM = 1.0
LEARNING_RATE = 1e-3
BETAS = (0.9, 0.999)
EPSILON = 1e-2
# A system is checked after this many of them: enough for moments that are not kept to show.
CHECKED_UPDATES = 3

# A system is checked on this many steps of a stream before a step is timed: enough for a state that
# is not carried, or carried wrongly, to show.
CHECKED_STEPS = 8


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes
    ----------
    task : {"step", "inference", "training", "optimiser"}
        One step of a stream whose state is carried; a whole sequence forward; a whole sequence
        forward and backward, with the gradients of x and of every parameter; the same with an
        optimiser's step, from gradients to the next call's parameters, and no gradient of x.
    cell : {"lstm", "gru", "rnn"}
        PyTorch's definitions: GRU with the reset gate after the product, RNN with tanh.
    T, B, H : int
        Time steps, batch, hidden and input size. A step has T = 1.
    layers : int
    bidirectional : bool
    lengths : bool
        The sequences of the batch end at different steps, uniform in T/5 to T.
    dtype : {"float32", "float64", "bfloat16", "int8"}
        The latter two are of weights, and where a system has it of inputs and h: inference alone.
    use : {"layer", "cells", "model", ...}
        A layer by itself; a loop of single steps over a sequence, as PyTorch's cells are for; or a
        small model: an embedding, the layer, a linear head and, where it trains, cross entropy.
        Or one of JOBS: a whole step of training ("optimiser"), or a request ("inference"). Or one
        of BLOCKS, which are timed forward and backward, without a layer: H is the width of what
        they read.
    V : int
        Of jobs: the classes, tags, labels, numbers or words that the last linear layer gives. Of
        blocks: the width of what "linear" gives, or the vectors of "embedding".
    """

    task: Task
    cell: Cell
    T: int
    B: int
    H: int
    layers: int = 1
    bidirectional: bool = False
    lengths: bool = False
    dtype: DType = "float32"
    use: Use = "layer"
    V: int = 0

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def kind(self) -> str:
        """Task and use: what means are taken over."""
        return self.task if self.use == "layer" else f"{self.use}-{self.task}"

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.task in ("training", "optimiser")

    @property
    def gates(self) -> int:
        """Blocks of H rows in a weight matrix."""
        return GATES[self.cell]

    @property
    def element(self) -> str:
        """The type of inputs and results, and of the weights that a system is given."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def itemsize(self) -> int:
        """Bytes of one weight."""
        return {"float64": 8, "float32": 4, "bfloat16": 2, "int8": 1}[self.dtype]

    def input_size(self, layer: int) -> int:
        """Width of what `layer` reads: I for the first, else the output of the layer below."""
        return FEATURES.get(self.use, self.H) if layer == 0 else self.H * self.directions

    @property
    def variant(self) -> str:
        """What differs from one layer, one direction, whole batches, float32. Empty: nothing."""
        parts = [
            f"{self.layers}layers" if self.layers > 1 else "",
            "bidirectional" if self.bidirectional else "",
            "lengths" if self.lengths else "",
            self.dtype if self.dtype != "float32" else "",
        ]
        return "-".join(part for part in parts if part)

    @property
    def name(self) -> str:
        """Unique and stable: what `--case` selects by and `--compare` matches by."""
        size = f"B{self.B}-H{self.H}" if self.task == "step" else f"T{self.T}-B{self.B}-H{self.H}"
        cell = "" if self.use in BLOCKS else self.cell
        width = f"V{self.V}" if self.V else ""
        return "-".join(part for part in (cell, self.kind, size, width, self.variant) if part)


Point = tuple[int, int, int, int]

# (T, B, H, layers)
STREAMS: tuple[Point, ...] = (
    (1, 1, 32, 1),
    (1, 1, 64, 1),
    (1, 1, 128, 1),
    (1, 1, 256, 1),
    (1, 1, 512, 1),
    (1, 1, 1024, 1),
    # The stacks of the STAC-ML and FPGA vendors' tables.
    (1, 1, 128, 2),
    (1, 1, 256, 3),
    (1, 1, 480, 3),
    # Many streams at once.
    (1, 64, 128, 1),
    (1, 512, 128, 1),
)
SEQUENCES: tuple[Point, ...] = (
    (100, 1, 64, 1),
    (100, 1, 128, 1),
    (100, 1, 256, 1),
    (100, 1, 512, 1),
    (100, 1, 1024, 1),
    (300, 1, 512, 1),
    (2000, 8, 256, 2),
)
BATCHES: tuple[Point, ...] = (
    (100, 8, 128, 1),
    (100, 32, 128, 1),
    (100, 8, 256, 1),
    (100, 32, 256, 1),
    (100, 32, 512, 1),
    (50, 32, 1024, 1),
    (50, 64, 512, 1),
    (50, 128, 256, 1),
    (50, 128, 512, 1),
    (20, 128, 1024, 1),
)
# One point for each regime (latency, cache, arithmetic), each variant at each of them: the product
# with all of the grid is the suite "exhaustive".
VARIANT_POINTS: tuple[Point, ...] = ((100, 1, 128, 1), (100, 32, 256, 1), (50, 64, 512, 1))
# An optimiser's work follows the parameters, not the steps: few steps and many, two layers too.
OPTIMISER_POINTS: tuple[Point, ...] = (
    (100, 1, 128, 1),
    (100, 32, 256, 1),
    (50, 64, 512, 1),
    (20, 128, 1024, 1),
    (50, 32, 256, 2),
)
VARIANTS: tuple[dict[str, object], ...] = (
    {"layers": 2},
    {"bidirectional": True},
    {"lengths": True},
    {"dtype": "float64"},
)

# What a sceptic looks at first, in three minutes.
QUICK: tuple[Case, ...] = (
    Case("step", "lstm", 1, 1, 64),
    Case("step", "lstm", 1, 1, 256),
    Case("step", "lstm", 1, 1, 128, layers=2),
    Case("inference", "lstm", 100, 1, 128),
    Case("inference", "lstm", 100, 32, 256),
    Case("inference", "lstm", 100, 8, 128, bidirectional=True),
    Case("inference", "lstm", 50, 32, 128, lengths=True),
    Case("inference", "lstm", 50, 8, 128, dtype="float64"),
    Case("inference", "gru", 100, 8, 128),
    Case("inference", "rnn", 100, 8, 128),
    Case("training", "lstm", 100, 1, 128),
    Case("training", "lstm", 50, 32, 256),
    Case("training", "gru", 50, 8, 128),
    Case("optimiser", "lstm", 50, 32, 256),
)


# What PyTorch's users have: layers of their models, with and without packed sequences; loops of
# cells; whole models; and calls so short that the way to the core shows.
TORCH: tuple[Case, ...] = (
    *(Case(task, cell, 50, 32, 128) for task in ("inference", "training") for cell in CELLS),
    *(
        Case(task, "lstm", 50, 32, 128, **form)
        for task in ("inference", "training")
        for form in (
            {"lengths": True},
            {"bidirectional": True},
            {"bidirectional": True, "lengths": True},
            {"layers": 2},
            {"dtype": "float64"},
        )
    ),
    *(Case(task, "lstm", 100, 1, 128) for task in ("inference", "training")),
    *(Case(task, "lstm", T, 1, 16) for task in ("inference", "training") for T in (1, 10)),
    *(
        Case(task, cell, 50, B, H, use="cells")
        for task in ("inference", "training")
        for cell in CELLS
        for B, H in ((1, 64), (32, 128))
    ),
    Case("inference", "lstm", 50, 1, 128, use="model"),
    *(
        Case(task, "lstm", 50, 32, 128, 2, True, lengths, use="model")
        for task in ("inference", "optimiser")
        for lengths in (False, True)
    ),
    *(Case(task, "gru", 50, 32, 128, use="model") for task in ("inference", "optimiser")),
)

# How calls grow with the number of threads: a stream, few rows, many; where weights fill a core's
# caches, and where they do not.
_SCALED: dict[Task, tuple[tuple[int, int, int], ...]] = {
    "step": ((1, 1, 256), (1, 1, 1024)),
    "inference": (
        *((100, 1, 128), (100, 1, 512), (100, 1, 1024), (100, 8, 256), (100, 32, 256)),
        *((50, 64, 512), (50, 128, 512), (20, 512, 256), (20, 128, 1024)),
    ),
    "training": ((100, 1, 512), (100, 32, 256), (50, 64, 512), (20, 128, 1024)),
}
SCALING: tuple[Case, ...] = tuple(
    Case(task, cell, T, B, H)
    for cell in ("lstm", "gru")
    for task, points in _SCALED.items()
    for T, B, H in points
)

# What layers are there for, in the sizes of the examples: a step of training, and one request. Of a
# forecaster all windows are of one length.
_TRAINED_JOBS: tuple[Case, ...] = (
    Case("optimiser", "lstm", 100, 32, 128, 1, True, True, use="classifier", V=8),
    Case("optimiser", "lstm", 50, 32, 128, 1, True, True, use="tagger", V=9),
    Case("optimiser", "lstm", 200, 16, 128, 1, True, True, use="transcriber", V=30),
    Case("optimiser", "lstm", 96, 64, 64, use="forecaster", V=72),
    Case("optimiser", "lstm", 35, 20, 200, lengths=True, use="language", V=11_000),
)


def _jobs() -> Iterator[Case]:
    yield from _TRAINED_JOBS
    for case in _TRAINED_JOBS:
        yield dataclasses.replace(case, task="inference", B=1, lengths=False)
    yield Case("training", "lstm", 50, 32, 200, use="linear", V=46)
    yield Case("training", "lstm", 50, 32, 256, use="linear", V=256)
    yield Case("training", "lstm", 50, 32, 128, use="embedding", V=10_000)
    yield Case("training", "lstm", 50, 32, 46, lengths=True, use="cross-entropy")
    yield Case("training", "lstm", 5, 32, 11_000, lengths=True, use="cross-entropy")
    yield Case("training", "lstm", 100, 32, 30, lengths=True, use="ctc")
    yield Case("training", "lstm", 50, 32, 9, lengths=True, use="crf")
    yield Case("training", "lstm", 50, 32, 46, lengths=True, use="crf")
    yield Case("training", "lstm", 50, 32, 256, lengths=True, use="attention")


def _expand(tasks: Sequence[Task], points: Iterable[Point]) -> Iterator[Case]:
    for cell in CELLS:
        for task in tasks:
            for T, B, H, layers in points:
                yield Case(task, cell, T, B, H, layers)


def _variants(cases: Iterable[Case]) -> Iterator[Case]:
    for case in cases:
        for change in VARIANTS:
            if not (case.B == 1 and "lengths" in change):
                yield dataclasses.replace(case, **change)  # type: ignore[arg-type]


def _suites() -> dict[str, tuple[Case, ...]]:
    both: tuple[Task, ...] = ("inference", "training")
    streaming = tuple(_expand(("step",), STREAMS))
    sequences = tuple(_expand(both, SEQUENCES))
    batches = tuple(_expand(both, BATCHES))
    variants = tuple(_variants(_expand(both, VARIANT_POINTS)))
    optimiser = tuple(_expand(("optimiser",), OPTIMISER_POINTS))
    full = streaming + sequences + batches + variants + optimiser
    everything = full + tuple(_variants(sequences + batches))
    return {
        "quick": QUICK,
        "streaming": streaming,
        "sequences": sequences,
        "batches": batches,
        "variants": variants,
        "optimiser": optimiser,
        "scaling": SCALING,
        "torch": TORCH,
        "jobs": tuple(_jobs()),
        "full": full,
        "exhaustive": tuple(dict.fromkeys(everything)),
    }


SUITES = _suites()


def select(suite: str, patterns: Sequence[str] = (), dtypes: Sequence[DType] = ()) -> list[Case]:
    """Return the cases of a suite whose name matches any of `patterns`.

    Parameters
    ----------
    suite : str
        A key of `SUITES`.
    patterns : sequence of str
        Shell patterns, or parts of a name. Empty: all.
    dtypes : sequence of str
        Of DTYPES. Those of SMALL stand in for float32 where a layer alone does not train. Empty:
        as the suite has them.

    Raises
    ------
    ValueError
        The suite or a type is unknown, or a pattern matches nothing.
    """
    if suite not in SUITES:
        raise ValueError(f"suite: expected one of {', '.join(SUITES)}, got {suite!r}")
    unknown = [dtype for dtype in dtypes if dtype not in DTYPES]
    if unknown:
        raise ValueError(f"dtype: expected some of {', '.join(DTYPES)}, got {unknown[0]!r}")
    cases = SUITES[suite]
    if dtypes:
        cases = tuple(case for dtype in dtypes for case in _in_dtype(cases, dtype))
    for pattern in patterns:
        if not any(_matches(case.name, pattern) for case in cases):
            raise ValueError(f"case: nothing in the suite {suite!r} matches {pattern!r}")
    return [case for case in cases if not patterns or any(_matches(case.name, p) for p in patterns)]


def _in_dtype(cases: Iterable[Case], dtype: DType) -> Iterator[Case]:
    if dtype not in SMALL:
        yield from (case for case in cases if case.dtype == dtype)
        return
    for case in cases:
        if case.dtype == "float32" and case.use == "layer" and not case.trains:
            yield dataclasses.replace(case, dtype=dtype)


def _matches(name: str, pattern: str) -> bool:
    return pattern in name or fnmatch.fnmatchcase(name, pattern)
