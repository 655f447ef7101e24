"""What a cell says of itself: its parameters, its state, and its step forward and backward.

The shell around cells (:mod:`._layers`) knows nothing else of them: not which parts a state has,
nor which parameters there are. A new cell is one file with a :class:`Cell`.

Sizes are letters: B batch, I input, H hidden, P width of h, and what others a cell has.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ._arrays import Array, check_shape

State: TypeAlias = tuple[Array, ...]  # (h, c) for the LSTM
Weights: TypeAlias = dict[str, Array]  # of one layer and direction, by field
Shape: TypeAlias = tuple[str, ...]  # ("4H", "I")
TraceT = TypeVar("TraceT")


@dataclass(frozen=True)
class Parameter:
    """A parameter of one layer and direction."""

    field: str
    """The argument of the step."""
    name: str
    """PyTorch's name, to which "_l0", "_l0_reverse", "_l1", ... is added."""
    shape: Shape
    options: tuple[str, ...] = ()
    """Those that it belongs to. One is in use where any of its parameters is given; a parameter of
    several is there where all of them are in use, and one of none always."""
    gradient: str = ""
    """The field of the step's gradients, where it is not d_ and `field`."""
    read_backward: bool = True
    """Whether the step backward takes it as an argument; it needs no biases, for example."""

    def full_name(self, layer: int, direction: int) -> str:
        """The name in one layer and direction."""
        return f"{self.name}_l{layer}{'_reverse' if direction == 1 else ''}"


@dataclass(frozen=True, eq=False)
class Cell(Generic[TraceT]):
    """The equations of one layer and direction, with all that the shell must know of them."""

    parameters: tuple[Parameter, ...]
    """The first one is there in every layer, and reads the input, of size I."""
    state: Mapping[str, str]
    """Its parts, with the size of each. The first one is the output. Each is an argument of the
    step, a field of what it returns, and with d_ a field of its gradients."""
    step: Callable[..., Any]
    """Called with x, the parts of the state, the parameters that are there, masks and options."""
    step_backward: Callable[..., Any]
    """Called with what `step` returned and its arguments, and with d_ and each part of the state.
    Returns d_x, that of each part before the step, and that of each parameter."""
    trace: type[TraceT]
    """A NamedTuple of those fields of what `step` returns that are kept over time. Those that are
    no parts of the state have the size H."""
    masks: type[Any]
    """A NamedTuple, by parts of the state: `h` is multiplied into the h that R reads, and the same
    at all steps; `keep_h` is for zoneout of h, and another one at each step."""
    sized_by: str = "R"
    """The parameter whose shape says what sizes there are."""
    same_without: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Sizes that are the same where a parameter is not there: P and H without the projection."""

    @property
    def output(self) -> str:
        """The part of the state that is the output."""
        return next(iter(self.state))

    def shapes(self) -> dict[str, Shape]:
        """Of all arguments of both steps that are arrays, in the order in which sizes are found."""
        shapes = {p.field: p.shape for p in self.parameters}
        shapes = {self.sized_by: shapes[self.sized_by], **shapes, "x": ("B", "I")}
        for prefix in ("", "d_"):
            shapes |= {prefix + part: ("B", size) for part, size in self.state.items()}
        return shapes


class Sizes:
    """What letters stand for, found from the arrays that are read."""

    def __init__(self, cell: Cell[Any], there: Collection[str]) -> None:
        self._values: dict[str, int] = {}
        self._same = [same for name, same in cell.same_without.items() if name not in there]

    def __getitem__(self, letter: str) -> int:
        return self._values[letter]

    def __setitem__(self, letter: str, value: int) -> None:
        self._values[letter] = value

    def check(self, name: str, found: tuple[int, ...], shape: Shape) -> None:
        """Check the shape of an array, and keep the sizes that are new."""
        check_shape(name, found, self._known(shape))
        for text, size in reversed(list(zip(shape, found, strict=True))):
            count, letter = _factors(text)
            self._values.setdefault(letter, size // count)
        for one, other in self._same:
            self._values[one] = self._values[other]
        check_shape(name, found, self._known(shape))

    def _known(self, shape: Shape) -> tuple[int | str, ...]:
        """Where H is 4, ("4H", "I") is (16, "I")."""
        factors = ((text, *_factors(text)) for text in shape)
        return tuple(
            count * self._values[letter] if letter in self._values else text
            for text, count, letter in factors
        )


def _factors(text: str) -> tuple[int, str]:
    """The number and the letter of "4H"."""
    return int(text[:-1] or 1), text[-1]


def read_step(
    cell: Cell[Any],
    required: Mapping[str, npt.ArrayLike],
    optional: Mapping[str, npt.ArrayLike | None],
) -> tuple[tuple[Array, ...], tuple[Array | None, ...]]:
    """Check the arguments of a step, by their names, against each other.

    Returns
    -------
    tuple, tuple
        Those of `required` and of `optional` in float64, in their order.
    """
    given = {name: value for name, value in optional.items() if value is not None} | {**required}
    arrays = {name: np.asarray(value, dtype=np.float64) for name, value in given.items()}
    _check_step(cell, tuple((name, array.shape) for name, array in arrays.items()))
    return tuple(arrays[name] for name in required), tuple(arrays.get(name) for name in optional)


@functools.lru_cache  # most steps have the shapes of the one before
def _check_step(cell: Cell[Any], found: tuple[tuple[str, tuple[int, ...]], ...]) -> None:
    """Check the shapes of a step's arguments against each other."""
    given = dict(found)
    sizes = Sizes(cell, given)
    for name, shape in cell.shapes().items():
        if name in given:
            sizes.check(name, given[name], shape)


def read_weights(
    cell: Cell[Any], params: Mapping[str, npt.ArrayLike]
) -> tuple[list[list[Weights]], Sizes]:
    """Infer layers, directions and options from the names, then check every shape.

    The values are copied: what the caller does to them after forward must not reach backward.

    Returns
    -------
    list of list of dict
        By layer and direction.
    Sizes
        All that are the same in all layers.
    """
    first = cell.parameters[0].name
    L = max(1, sum(re.fullmatch(rf"{first}_l\d+", name) is not None for name in params))
    D = 2 if any(name.endswith("_reverse") for name in params) else 1
    names = {re.sub(r"_l\d+(_reverse)?$", "", name) for name in params}
    used = {option for p in cell.parameters if p.name in names for option in p.options}
    there = {p.field: p for p in cell.parameters if used.issuperset(p.options)}
    expected = {p.full_name(k, d) for p in there.values() for k in range(L) for d in range(D)}
    missing, unknown = sorted(expected - set(params)), sorted(set(params) - expected)
    if missing or unknown:
        raise ValueError(f"params: missing {missing}, unknown {unknown}")

    arrays = {name: np.array(value, dtype=np.float64) for name, value in params.items()}
    sizes = Sizes(cell, there)
    weights: list[list[Weights]] = []
    for k in range(L):
        if k > 0:  # it reads the output of the one below
            sizes["I"] = D * sizes[cell.state[cell.output]]
        weights.append([])
        for d in range(D):
            for parameter in (there[cell.sized_by], *there.values()):
                name = parameter.full_name(k, d)
                sizes.check(name, arrays[name].shape, parameter.shape)
            weights[k].append({field: arrays[p.full_name(k, d)] for field, p in there.items()})
    return weights, sizes
