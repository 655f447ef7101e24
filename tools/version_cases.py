"""The calls whose results tools/compare_versions.py compares bit by bit.

Only the public interface is used, and nothing but SEED decides what is drawn: with the same NumPy
every process has the same cases, parameters and inputs.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import fastlstm
import numpy as np

SEED = 22
Arrays = Iterator[tuple[str, Any]]  # names and values of results

# 1, w - 1, w, w + 1, 3w + 5 for the widths of vectors, w = 2, 4, 8, 16.
WIDTHS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 15, 16, 17, 29, 53)
# Rows (steps and sequences) around the blocks of the forward and backward pass, too.
STEPS = (1, 2, 3, 5, 9, 20, 33, 70, 170, 400)
BATCHES = (1, 2, 3, 4, 5, 8, 13, 16, 17, 29, 31, 33, 48, 49, 100, 257, 300)
SIZES = (*WIDTHS, 31, 32, 33, 64, 65, 100)
MOST_PRODUCTS = 1.6e7  # of a call forward, in what is drawn at random

SHARED: dict[str, tuple[Any, ...]] = {
    "num_layers": (2, 3),
    "bias": (False,),
    "batch_first": (True,),
    "dropout": (0.4, 1.0),
    "bidirectional": (True,),
    "reverse": (True,),
    "merge": ("sum", "mul", "ave", None),
    "clip": (0.3,),
    "recurrent_dropout": (0.3,),
    "weight_dropout": (0.4,),
}
OPTIONS: dict[str, dict[str, tuple[Any, ...]]] = {
    "LSTM": SHARED
    | {
        "proj_size": (1, 4, 17),
        "peepholes": (True,),
        "input_forget": (True,),
        "layer_norm": (True,),
        "zoneout": (0.2, (0.3, 0.0), (0.0, 0.4)),
        "activations": (
            ("HardSigmoid", "Softsign", "Tanh"),
            (("HardSigmoid", 0.3, 0.4), "Relu", ("ScaledTanh", 0.9, 0.8)),
            ("Sigmoid", ("LeakyRelu", 0.1), ("Affine", 0.7, 0.1)),
            ("Softplus", ("Elu", 0.5), ("ThresholdedRelu", 0.2)),
        ),
    },
    "GRU": SHARED
    | {
        "reset_after": (False,),
        "zoneout": (0.2,),
        "activations": (
            ("HardSigmoid", "Softsign"),
            ("Sigmoid", "Relu"),
            (("Affine", 0.2, 0.5), ("ScaledTanh", 0.9, 0.8)),
            ("Softplus", ("Elu", 0.5)),
        ),
    },
    "RNN": SHARED
    | {
        "nonlinearity": ("relu",),
        "zoneout": (0.2,),
        "activations": (
            ("Softsign",),
            ("Softplus",),
            ("Sigmoid",),
            ("HardSigmoid",),
            ("Elu",),
            ("LeakyRelu",),
            (("Affine", 0.7, 0.1),),
            (("ScaledTanh", 0.9, 0.8),),
            (("ThresholdedRelu", 0.2),),
        ),
    },
}
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def possible(options: dict[str, Any], H: int) -> dict[str, Any]:
    """The options with what they need, without what does not go together."""
    options = dict(options)
    if "merge" in options:
        options["bidirectional"] = True
    if "dropout" in options:
        options.setdefault("num_layers", 2)
    excluded = [("bidirectional", "reverse"), ("activations", "nonlinearity")]
    excluded += [("layer_norm", o) for o in ("peepholes", "input_forget", "clip", "activations")]
    for one, other in excluded:
        if one in options:
            options.pop(other, None)
    if "proj_size" in options:
        options["proj_size"] = min(options["proj_size"], H - 1)  # 0: none
    return options


@dataclass(frozen=True)
class Case:
    """A layer, a call of it, and what else is done with it: keys of EXTRAS."""

    family: str
    cell: str
    T: int
    B: int
    I: int
    H: int
    options: dict[str, Any] = field(default_factory=dict)
    dtype: str = "float32"
    extras: tuple[str, ...] = ()
    threads: int = 0
    lengths: bool = False
    state: bool = True
    batched: bool = True
    special: bool = False  # inputs with infinity, NaN, denormal numbers
    own_values: int | None = None  # the seed of the layer's own values and random numbers

    @property
    def streams(self) -> bool:
        return not (self.options.get("bidirectional") or self.options.get("reverse"))

    @property
    def products(self) -> float:
        H, D, L = self.H, 1 + self.options.get("bidirectional", 0), self.options.get("num_layers")
        inputs = self.I + H + ((L or 1) - 1) * (D + 1) * H
        return float(self.T * self.B * GATES[self.cell] * H * D * inputs)

    @property
    def features(self) -> list[str]:
        """What differences are grouped by."""
        flags = {
            "lengths": self.lengths,
            "no state": not self.state,
            "no batch axis": not self.batched,
            "special values": self.special,
        }
        options = [
            name if name == "activations" else f"{name}={value}"
            for name, value in self.options.items()
        ]
        about = [self.family, self.cell, self.dtype, *self.extras, f"{self.threads} threads"]
        return [*about, *options, *(flag for flag, given in flags.items() if given)]

    @property
    def name(self) -> str:
        seed = [] if self.own_values is None else [f"seed={self.own_values}"]
        return " ".join([f"T{self.T} B{self.B} I{self.I} H{self.H}", *self.features, *seed])


# Calls that are divided among threads: by units, rows, directions, layers, blocks.
LARGE = (
    Case("threads", "", 60, 1, 128, 128),
    Case("threads", "", 40, 2, 100, 200, dtype="float64"),
    Case("threads", "", 100, 8, 48, 48, lengths=True),
    Case("threads", "", 30, 33, 64, 64),
    Case("threads", "", 30, 300, 20, 24, lengths=True),
    Case("threads", "", 40, 4, 64, 64, {"bidirectional": True}),
    Case("threads", "", 20, 60, 32, 40, {"bidirectional": True, "num_layers": 2}),
    Case("threads", "", 100, 1, 90, 90, {"num_layers": 3}),
    Case("threads", "", 200, 2, 64, 64, {"num_layers": 4}, lengths=True),
    Case("threads", "", 500, 5, 40, 56, {"num_layers": 2, "dropout": 0.2}),
    Case("threads", "", 50, 12, 64, 64, {"recurrent_dropout": 0.3, "zoneout": 0.2}),
    Case("threads", "", 60, 2, 96, 100, {"weight_dropout": 0.3, "clip": 1.0}),
    Case("threads", "", 3, 5, 700, 720),
    Case("threads", "", 80, 64, 160, 192),
)
LARGE_OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "LSTM": ({"layer_norm": True}, {"peepholes": True, "proj_size": 50}, {"input_forget": True}),
    "GRU": ({"reset_after": False}, {"activations": ("HardSigmoid", "Softsign")}),
    "RNN": ({"nonlinearity": "relu"},),
}


class Cases:
    """Draws what a family of cases leaves open."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(SEED)
        self.serial = itertools.count()

    def pick(self, values: Sequence[Any]) -> Any:
        return values[self.rng.integers(len(values))]

    def complete(self, case: Case) -> Case:
        """With what is done besides, threads, lengths, state, and options that go together."""
        n = next(self.serial)
        options = possible(case.options, case.H)
        case = dataclasses.replace(case, options=options)
        extras = [e for e in EXTRAS if case.streams or e not in ("stream", "truncated")]
        k, distance = n % len(extras), 1 + n % (len(extras) - 1)  # all pairs of two, in time
        batched = case.B > 1 or n % 3 > 0
        return dataclasses.replace(
            case,
            extras=(extras[k], extras[(k + distance) % len(extras)]),
            threads=case.threads or 1 + n % 4,
            batched=batched,
            lengths=batched and (case.lengths or self.rng.random() < 0.4),
            state=self.rng.random() < 0.7,
        )

    def draw(self, family: str, cell: str, options: dict[str, Any], **more: Any) -> Case:
        """Sizes at random."""
        while True:
            sizes = [self.pick(values) for values in (STEPS, BATCHES, SIZES, SIZES)]
            dtype = self.pick(("float32", "float64"))
            case = Case(family, cell, *sizes, possible(options, sizes[-1]), dtype, **more)
            if case.products <= MOST_PRODUCTS:
                return self.complete(case)

    def widths(self, cell: str) -> Iterator[Case]:
        """One size after the other around the widths of vectors."""
        for dtype, n in itertools.product(("float32", "float64"), WIDTHS):
            for sizes in ((7, 3, 5, n), (7, 3, n, 9), (7, n, 3, 10), (n, 3, 3, 6)):
                yield self.complete(Case("widths", cell, *sizes, dtype=dtype))

    def combinations(self, cell: str) -> Iterator[Case]:
        """Each value of each option, each pair of options, and more of them at once."""
        options = OPTIONS[cell]
        for name, values in options.items():
            for value in (*values, *values):
                yield self.draw("one option", cell, {name: value})
        for one, other in itertools.combinations(options, 2):
            for _ in range(2):
                pair = {name: self.pick(options[name]) for name in (one, other)}
                yield self.draw("two options", cell, pair)
        for _ in range(150):
            some = [name for name in options if self.rng.random() < 0.35]
            mixed = {name: self.pick(options[name]) for name in some}
            yield self.draw("options", cell, mixed)

    def values(self, cell: str) -> Iterator[Case]:
        """Infinity, NaN and denormal inputs; the layer's own initial values and masks."""
        for options in ({}, {"clip": 0.5}, {"num_layers": 2, "bidirectional": True}):
            yield self.draw("special values", cell, options, special=True)
        masks = {"num_layers": 2, "dropout": 0.3, "zoneout": 0.1, "recurrent_dropout": 0.2}
        kinds = [{}, masks, {"weight_dropout": 0.5}]
        kinds += [{"layer_norm": True}, {"forget_bias": 1.0}] if cell == "LSTM" else []
        for options, seed in itertools.product(kinds, (0, 1, 2**64 - 1)):
            yield self.draw("own values", cell, options, own_values=seed)

    def divided(self, cell: str) -> Iterator[Case]:
        """The large calls on 1 to 4 threads."""
        own = [
            Case("threads", "", *sizes, options)
            for options in LARGE_OPTIONS[cell]
            for sizes in ((60, 1, 100, 120), (40, 20, 64, 72))
        ]
        for case, threads in itertools.product((*LARGE, *own), (1, 2, 3, 4)):
            yield self.complete(dataclasses.replace(case, cell=cell, threads=threads))


def all_cases() -> list[Case]:
    """Every case. The random numbers of its arrays follow from its place here."""
    cases = Cases()
    families = (cases.widths, cases.combinations, cases.values, cases.divided)
    return [case for cell in OPTIONS for family in families for case in family(cell)]


@dataclass
class Problem:
    """A case's layer and arrays, and its first training call."""

    case: Case
    layer: Any
    rng: Any
    x: Any
    state: Any
    lengths: Any
    seed: int
    tape: Any = None
    d_output: Any = None
    d_state: Any = None
    grads: Any = None

    def normal(self, shape: Sequence[int], scale: float = 1.0) -> Any:
        return (self.rng.standard_normal(shape) * scale).astype(self.layer.dtype)

    def like(self, value: Any) -> Any:
        """Random numbers in the shape of an array or of a tuple of arrays."""
        if isinstance(value, tuple):
            return tuple(self.like(array) for array in value)
        return self.normal(value.shape)

    def new_values(self) -> dict[str, Any]:
        """Parameters of the size of an initialisation; the gains of a normalisation around 1."""
        scale = 0.5 * self.case.H**-0.5
        return {
            name: self.normal(array.shape, scale) + name.startswith("weight_ln")
            for name, array in self.layer.params.items()
        }

    def subset(self, names: Sequence[str]) -> list[str]:
        return [name for name in names if self.rng.random() < 0.4] or [names[-1]]


def named(name: str, value: Any) -> Arrays:
    """The arrays of a state, or the one."""
    values = value if isinstance(value, tuple) else (value,)
    yield from ((f"{name} {part}", array) for part, array in zip("hc", values, strict=False))


def gradients(name: str, grads: Any) -> Arrays:
    if grads.x is not None:
        yield f"{name} d_x", grads.x
    if grads.state is not None:
        yield from named(f"{name} d_state", grads.state)
    yield from ((f"{name} d_{parameter}", array) for parameter, array in grads.params.items())


def make_problem(case: Case, n: int) -> Problem:
    options = case.options | {"dtype": case.dtype, "seed": case.own_values or 0}
    layer = getattr(fastlstm, case.cell)(case.I, case.H, **options)
    p = Problem(case, layer, np.random.default_rng([SEED, n]), None, None, None, seed=n)
    if case.own_values is None:
        layer.update(p.new_values())
    T, B, batch_first = case.T, case.B, case.options.get("batch_first")
    sequences = () if not case.batched else (B,)
    steps = (*sequences, T) if batch_first else (T, *sequences)
    p.x = p.normal((*steps, case.I))
    if case.special:
        values = np.array([np.inf, -np.inf, np.nan, -0.0, 1e-40, 1e30], p.x.dtype)
        where = p.rng.integers(p.x.size, size=len(values))
        p.x.reshape(-1)[where] = values
    if case.state:
        cells = case.options.get("num_layers", 1) * (1 + case.options.get("bidirectional", 0))
        widths = [case.options.get("proj_size") or case.H]
        widths += [case.H] if case.cell == "LSTM" else []
        states = tuple(p.normal((cells, *sequences, width)) for width in widths)
        p.state = states if len(states) > 1 else states[0]
    if case.lengths:
        p.lengths = p.rng.integers(0, T + 1, size=B)
        p.lengths[p.rng.integers(B)] = 0
    return p


def results(case: Case, n: int, threads: int) -> Arrays:
    """What a case computes. An array is the consumer's until it asks for the next."""
    with fastlstm.num_threads(threads):
        p = make_problem(case, n)
        yield "given x", p.x
        yield from ((f"given {name}", array) for name, array in p.layer.params.items())
        output, state = p.layer(p.x, p.state, lengths=p.lengths)
        yield "output", output
        yield from named("state", state)
        seed = p.seed if case.own_values is None else None
        output, state, p.tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=seed)
        yield "training: output", output
        yield from named("training: state", state)
        p.d_output, p.d_state = p.like(output), p.like(state)
        p.grads = p.tape.backward(p.d_output, p.d_state)
        yield from gradients("training:", p.grads)
        for name in case.extras:
            yield from EXTRAS[name](p)


def room(p: Problem) -> Arrays:
    """Inference into the caller's arrays, from an input of the other width and laid out apart."""
    output, state = p.layer(p.x, p.state, lengths=p.lengths)
    output = np.empty_like(output)
    several = isinstance(state, tuple)
    states = tuple(np.empty_like(array) for array in state) if several else np.empty_like(state)
    x = np.repeat(p.x.astype("f4" if p.x.dtype == "f8" else "f8"), 2, axis=0)[::2]
    p.layer(x, p.state, lengths=p.lengths, out=(output, states))
    yield "room: output", output
    yield from named("room: state", states)


def stream(p: Problem) -> Arrays:
    """Steps, chunks, state and reset of a stream."""
    B = p.case.B
    s = p.layer.stream(B)
    steps = p.x if p.case.batched else p.x[:, np.newaxis]
    if p.case.options.get("batch_first") and p.case.batched:
        steps = np.swapaxes(steps, 0, 1)
    out = np.empty_like(s.step(steps[0]))
    s.reset()
    if p.state is not None and p.case.batched:
        s.state = p.state
    yield "stream: steps", np.stack([s.step(x_t, out=out).copy() for x_t in steps[:20]])
    yield "stream: run", s.run(p.x)
    state = s.state
    yield from named("stream: state", state)
    s.reset(rows=[0, B - 1])
    yield "stream: run after reset", s.run(p.x)
    s.state = state
    yield "stream: step after state", s.step(steps[-1])


def memory_limit(p: Problem) -> Arrays:
    """Training in the least memory, and in the middle between it and the most."""
    call = {"lengths": p.lengths}
    most = p.layer.training_memory(p.case.T, p.case.B, **call).bytes
    try:
        p.layer.training_memory(p.case.T, p.case.B, **call, memory_limit=1)
    except ValueError as error:  # it tells the least
        least = int(re.findall(r"at least (\d+)", str(error))[0])
    for name, limit in (("least", least), ("middle", (least + most) // 2)):
        output, state, tape = p.layer.forward(p.x, p.state, **call, seed=p.seed, memory_limit=limit)
        yield f"memory_limit: {name}: output", output
        yield from named(f"memory_limit: {name}: state", state)
        yield from gradients(f"memory_limit: {name}:", tape.backward(p.d_output, p.d_state))


def needs(p: Problem) -> Arrays:
    """Some of the gradients, and those of one of two losses."""
    names = ["x", "state", *p.layer.params]
    for _ in range(3):
        some = p.tape.backward(p.d_output, p.d_state, needs=p.subset(names))
        yield from gradients("needs:", some)
    yield from gradients("d_output alone:", p.tape.backward(p.d_output))
    yield from gradients("d_state alone:", p.tape.backward(None, p.d_state))


def accumulate(p: Problem) -> Arrays:
    """Gradients added to those of the same tape and of another."""
    sums = p.tape.backward(p.like(p.d_output), p.d_state, accumulate=p.grads)
    yield from gradients("accumulate:", sums)
    x = p.normal(p.x.shape)
    _, _, other = p.layer.forward(x, p.state, lengths=p.lengths, seed=p.seed + 1)
    yield from gradients("accumulate: other tape:", other.backward(p.d_output, accumulate=sums))


def truncated(p: Problem) -> Arrays:
    """Truncated back-propagation, with gradients through one chunk and through two."""
    k1 = max(1, p.case.T // 3)
    for k2 in (k1, 2 * k1):
        call = {"state": p.state, "lengths": p.lengths, "seed": p.seed}
        sums = None
        for chunk in itertools.islice(fastlstm.truncated_bptt(p.layer, p.x, k1, k2, **call), 4):
            yield "truncated: output", chunk.output
            sums = chunk.backward(p.like(chunk.output), accumulate=sums)
            yield from gradients("truncated:", sums)


def update(p: Problem) -> Arrays:
    """Other values for some parameters: later calls have them, the tape does not."""
    values = p.new_values()
    for names in (p.subset(list(values)), list(values)[:1]):
        p.layer.update({name: values[name] for name in names})
        yield "update: output", p.layer(p.x, p.state, lengths=p.lengths)[0]
    yield from gradients("update: old tape:", p.tape.backward(p.d_output, p.d_state))
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=p.seed)
    yield from gradients("update: new tape:", tape.backward(p.d_output, p.d_state))


EXTRAS: dict[str, Callable[[Problem], Arrays]] = {
    "room": room,
    "stream": stream,
    "memory_limit": memory_limit,
    "needs": needs,
    "accumulate": accumulate,
    "truncated": truncated,
    "update": update,
}
