"""How a call would divide its work among threads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .public import public

Work = tuple[tuple[int, int, int, int, int], float, str, list[tuple[str, float]]]
"""What the core says of a part of a call: as :func:`fastlstm.layers.core.plan`."""

_WORDS = {
    "rows": "groups of rows",
    "directions": "directions",
    "layers": "groups of layers",
    "units": "that share units",
}


@public
class Plan(NamedTuple):
    """How a call would be divided among threads, as :meth:`RecurrentLayer.plan` says.

    There are ``rows * directions * layers * units`` threads; see docs/threads.md.
    """

    threads: int
    """At work."""
    rows: int
    """Groups of threads that have a part of the batch each; they never wait for each other."""
    directions: int
    """2 where both directions run at the same time."""
    layers: int
    """Groups that own layers, each a block of steps behind the one below."""
    units: int
    """Threads that share the hidden units, and meet at each step."""
    seconds: float
    """What it is expected to take."""
    bound: str
    """What takes most of them: a name of `parts`."""
    parts: Mapping[str, float]
    """What they go to: ``products``; bytes of weights from ``L1``, ``L2``, ``L3`` and ``memory``;
    ``gates``; ``meetings`` of threads; ``waking`` them."""
    backward: tuple[Plan, ...] = ()
    """In training, the same of the backward pass of each layer and direction, from the first."""

    def __repr__(self) -> str:
        numbers = {name: getattr(self, name) for name in _WORDS}
        division = " x ".join(f"{n} {_WORDS[name]}" for name, n in numbers.items() if n > 1)
        threads = f"{self.threads} threads" if self.threads > 1 else "1 thread"
        whole = sum(self.parts.values())
        largest = sorted(self.parts.items(), key=lambda part: -part[1])
        parts = ", ".join(
            f"{name} {100 * seconds / whole:.0f} %"
            for name, seconds in largest
            if seconds >= whole / 100
        )
        text = f"{threads}{f' ({division})' if division else ''}: {_time(self.seconds)}, {parts}"
        for k, plan in enumerate(self.backward):
            text += f"\n  backward {k}: {plan!r}"
        return text


def _time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def plan_of(works: Sequence[Work]) -> Plan:
    """Make a plan of what the core says: of the forward pass, then of each cell backward."""
    first, *others = (
        Plan(*numbers, us / 1e6, bound, {name: part / 1e6 for name, part in parts})
        for numbers, us, bound, parts in works
    )
    return first._replace(backward=tuple(others))
