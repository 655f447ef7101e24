"""Everything that nested containers and objects hold, by dotted names: "models.0.weight_ih_l0"."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from itertools import chain
from typing import Any, NamedTuple

# The key of what is part of the thing itself, as the dictionary of its attributes.
SAME = object()
# Keys and what they lead to; None for a thing that holds nothing.
Contents = Iterable[tuple[Any, Any]] | None

_LONGEST_KEY = 200  # characters
_LONGEST_NAME = 500
_DEEPEST = 20_000  # levels; pickle itself ends long before
_KEYS = frozenset({str, int, float, bool, type(None)})
_PLAIN = (str, int, float, complex, bytes, bytearray, type(None))
LEAVES = frozenset({*_PLAIN, bool})  # what most leaves are, told in no time
_CODE = (
    type,
    types.ModuleType,
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
)


class _Place(NamedTuple):
    """Of something in the tree: names are written only where they are wanted."""

    above: _Place | None
    key: str
    length: int  # of the whole name

    def name(self) -> str:
        if self.length > _LONGEST_NAME:
            raise ValueError(f"tensors are nested too deeply: {self.key!r}")
        keys = []
        place: _Place | None = self
        while place is not None:
            keys.append(place.key)
            place = place.above
        return ".".join(reversed(keys))


def find(
    root: Any, contents: Callable[[Any], Contents], wanted: Callable[[Any], bool]
) -> dict[str, Any]:
    """Return what is wanted in a tree by its names, in the tree's order.

    What holds other things is visited once, at its first place: the cost is that of all that is
    held, however often it is shared and even where it holds itself.

    Parameters
    ----------
    root : object
        Its own name is "".
    contents : callable
        What a thing holds: :func:`contents_of` for objects in memory, with what are leaves before.
    wanted : callable
        Whether a thing is. It may hold others as well.

    Raises
    ------
    ValueError
        A name would be very long, two things have one name, or the tree is very deep.
    """
    found = {"": root} if wanted(root) else {}
    seen: dict[int, Any] = {}  # kept, so that no other thing gets the same identity
    stack: list[tuple[_Place | None, Iterator[tuple[str | None, Any]]]] = []

    def enter(place: _Place | None, thing: Any) -> None:
        if id(thing) not in seen and (inner := contents(thing)) is not None:
            seen[id(thing)] = thing
            stack.append((place, _with_texts(inner)))
            if len(stack) > _DEEPEST:
                raise ValueError("things are nested too deeply")

    enter(None, root)
    while stack:
        above, items = stack[-1]
        for key, thing in items:
            if type(thing) in LEAVES:
                continue
            place = above
            if key is not None:
                place = _Place(above, key, len(key) + (above.length + 1 if above else 0))
                if wanted(thing):
                    name = place.name()
                    if found.setdefault(name, thing) is not thing:
                        raise ValueError(f"two things are called {name}")
            enter(place, thing)
            if stack[-1][1] is not items:
                break
        else:
            stack.pop()
    return found


def _with_texts(items: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str | None, Any]]:
    for index, (key, thing) in enumerate(items):
        yield None if key is SAME else _key_text(key, index), thing


def _key_text(key: Any, index: int) -> str:
    """A key in a name; one that would be long, or whatever its own class says, is its place."""
    if isinstance(key, tuple) and len(key) <= 8:
        parts = [_key_text(part, -1) if type(part) in _KEYS else "" for part in key]
        text = f"({', '.join(parts)})" if all(parts) else ""
    elif type(key) is int:
        text = str(key) if key.bit_length() <= 64 else ""
    elif isinstance(key, str):
        text = str.__str__(key)
    else:
        text = str(key) if type(key) in _KEYS else ""
    return text if text and len(text) <= _LONGEST_KEY else f"<{index}>"


def contents_of(thing: Any) -> Contents:
    """Return what a Python object holds: items by key or index, attributes by name."""
    if isinstance(thing, (*_PLAIN, *_CODE)):
        return None
    if type(thing) is dict:
        return thing.items()
    if type(thing) in (list, tuple):
        return enumerate(thing)
    parts: list[Iterable[tuple[Any, Any]]] = []
    if isinstance(thing, Mapping):
        parts.append(thing.items())
    elif isinstance(thing, (list, tuple, deque, Set)):
        parts.append(enumerate(thing))
    attributes = getattr(thing, "__dict__", None)
    if isinstance(attributes, dict):
        parts.append([(SAME, attributes)])
    for cls in type(thing).__mro__:
        slots = vars(cls).get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else tuple(slots)
        parts.append([(n, getattr(thing, n, None)) for n in names if not n.startswith("__")])
    return chain.from_iterable(parts)
