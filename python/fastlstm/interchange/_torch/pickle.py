"""Pickles, read without running what they ask for.

A pickle is a program, and unpickling runs it: any function that it names, with any arguments.
:class:`Machine` runs the same program on a stack of its own, where a name stays a name and a call
is a question to its user, who makes an inert :class:`Opaque` of what he does not know. So a file
can do nothing but describe data.

Nothing here looks into what it moves: a few bytes can describe a tuple whose text, hash or copy
would fill all memory.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from fastlstm._stored import Room

from .operations import LongText, Operations


class Global(NamedTuple):
    """The name of a class or function."""

    module: str
    name: str


class Opaque:
    """An object of a class, or a result of a function, that is only known by name.

    Attributes
    ----------
    type : Global or object
        The class or function.
    arguments : object
        What it was called with.
    state, items, elements : object, dict, list
        What it got afterwards: as an object, a dictionary and a list.
    """

    __slots__ = ("arguments", "elements", "items", "state", "type")

    def __init__(self, type: Any, arguments: Any = ()) -> None:
        self.type = type
        self.arguments = arguments
        self.state: Any = None
        self.items: dict[Any, Any] | None = None
        self.elements: list[Any] | None = None

    def build(self, state: Any) -> None:
        """Take a state."""
        self.state = state


class OtherKey:
    """A key of a dictionary that is no plain value."""

    __slots__ = ()


# What things take in memory, in bytes.
_REFERENCE = 8
_NUMBER = 40
_OBJECT = 150  # with a name or some fields
_TUPLE = 64
_LIST = _EMPTY_DICT = 80
_DICT = 120  # that is not empty, and more; with its first entries
_DICT_HAS = 5
_ENTRY = 30
# Numbers that are there again and again are kept once: so many, each with its entry.
_MOST_SHARED = 1 << 15
_SHARED = 110

_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
# Whose argument is the value.
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_SIMPLE_KEYS = frozenset({str, float, bool, type(None)})


def _is_simple(key: Any) -> bool:
    return type(key) in _SIMPLE_KEYS or (type(key) is int and key.bit_length() <= 64)


def as_key(key: Any) -> Any:
    """Return a key whose hash costs nothing: itself, or something in its place."""
    if _is_simple(key) or (type(key) is tuple and len(key) <= 8 and all(map(_is_simple, key))):
        return key
    return OtherKey()


def _text_size(text: str | bytes | bytearray) -> int:
    """What a text takes: sizes are rounded up, and decoders ask for up to a third too much."""
    size = sys.getsizeof(text) + 16
    return size + size // 3 if isinstance(text, str) and not text.isascii() else size


def _global(module: Any, name: Any) -> Global:
    if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) <= 1000):
        raise ValueError("a class or function whose name is none")
    return Global(module, name)


class Machine:
    """Runs one pickle of a file, up to its STOP.

    Parameters
    ----------
    operations : Operations
        Reading stops behind the pickle.
    room : Room
        For the objects.
    call : callable
        Makes of a function (or class) and its arguments what a call of it gives.
    persistent : callable
        Makes of the description of something that is stored outside of the pickle what stands for
        it.
    """

    def __init__(
        self,
        operations: Operations,
        room: Room,
        call: Callable[[Any, Any], Any],
        persistent: Callable[[Any], Any],
    ) -> None:
        self._operations = operations
        self._room = room
        self._call = call
        self._persistent = persistent
        self._stack: list[Any] = []
        self._outer: list[list[Any]] = []  # the stacks below each MARK
        self._memo: list[Any] = []
        self._integers: dict[int, int] = {}

    def run(self) -> Any:
        """Return what the pickle describes.

        Raises
        ------
        ValueError, LookupError, TypeError, AttributeError
            It is damaged.
        """
        while True:
            name, argument = self._operations.next()
            if type(argument) in (LongText, memoryview):
                self._push(argument, _OBJECT)
            elif name in _TEXTS:
                self._push(argument, _REFERENCE + _text_size(argument))
            elif name in _NUMBERS:
                self._push_number(argument)
            elif name in _CONSTANTS:
                self._push(_CONSTANTS[name], _REFERENCE)
            elif name in _TUPLES:
                count = _TUPLES[name]
                values = tuple([self._pop() for _ in range(count)][::-1])
                self._push(values, _TUPLE)
            elif name == "STOP":
                return self._pop()
            else:
                method = getattr(self, f"_op_{name.lower()}", None)
                if method is None:
                    raise ValueError(f"a pickle with the operation {name}")
                method(argument)

    def _push(self, value: Any, size: int) -> None:
        self._room.take(size)
        self._stack.append(value)

    def _push_number(self, number: Any) -> None:
        digits = number.bit_length() if type(number) is int else 0
        if type(number) is int and digits <= 64:
            known = self._integers.get(number)
            if known is None and len(self._integers) < _MOST_SHARED:
                self._room.take(_SHARED)
                self._integers[number] = known = number
            if known is not None:
                self._push(known, _REFERENCE)
                return
        self._push(number, _NUMBER + digits // 8)

    def _push_made(self, value: Any) -> None:
        """What a call made, or took out of its arguments."""
        if type(value) in (int, float, bool):
            self._push_number(value)
        elif type(value) in (bytes, tuple):  # their contents are counted where they are made
            self._push(value, _TUPLE)
        else:
            self._push(value, _OBJECT)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        self._room.take(-_LIST)
        values, self._stack = self._stack, self._outer.pop()
        return values

    # --- the stack and the memo -------------------------------------------------------------------

    def _op_proto(self, _: Any) -> None:
        pass

    _op_frame = _op_proto

    def _op_mark(self, _: Any) -> None:
        self._room.take(_LIST)
        self._outer.append(self._stack)
        self._stack = []

    def _op_pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_mark()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _op_dup(self, _: Any) -> None:
        self._push(self._stack[-1], _REFERENCE)

    def _op_put(self, index: int) -> None:
        missing = index + 1 - len(self._memo)
        if missing > 0:
            self._room.take(_REFERENCE * missing)
            self._memo.extend(itertools.repeat(None, missing))  # no second list of that size
        self._memo[index] = self._stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, _: Any) -> None:
        self._op_put(len(self._memo))

    def _op_get(self, index: int) -> None:
        self._push(self._memo[index], _REFERENCE)

    _op_binget = _op_long_binget = _op_get

    # --- what holds others ------------------------------------------------------------------------

    def _op_empty_list(self, _: Any) -> None:
        self._push([], _LIST)

    _op_empty_set = _op_empty_list  # whose elements need not be told apart

    def _op_empty_dict(self, _: Any) -> None:
        self._push({}, _EMPTY_DICT)

    def _op_tuple(self, _: Any) -> None:
        values = tuple(self._pop_mark())
        self._push(values, _TUPLE + _REFERENCE * len(values))

    def _op_list(self, _: Any) -> None:
        values = self._pop_mark()
        self._push(values, _LIST)

    _op_frozenset = _op_list

    def _op_dict(self, _: Any) -> None:
        values = self._pop_mark()
        self._push({}, _EMPTY_DICT)
        self._set_items(values)

    def _op_append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _op_appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    _op_additems = _op_appends

    def _extend(self, values: list[Any]) -> None:
        top = self._stack[-1]
        if isinstance(top, Opaque) and top.elements is None:
            top.elements = []
        elements = top.elements if isinstance(top, Opaque) else top
        if not isinstance(elements, list):
            raise ValueError(f"elements for a {type(top).__name__}")
        elements.extend(values)

    def _op_setitem(self, _: Any) -> None:
        value, key = self._pop(), self._pop()
        self._set_items([key, value])

    def _op_setitems(self, _: Any) -> None:
        self._set_items(self._pop_mark())

    def _set_items(self, values: list[Any]) -> None:
        top = self._stack[-1]
        if isinstance(top, Opaque) and top.items is None:
            top.items = {}
        items = top.items if isinstance(top, Opaque) else top
        if not isinstance(items, dict):
            raise ValueError(f"items for a {type(top).__name__}")
        before = len(items)
        after = before + len(values) // 2
        beyond = max(after - _DICT_HAS, 0) - max(before - _DICT_HAS, 0)
        # Below, keys and values leave the stack for what has been paid.
        self._room.take(_ENTRY * beyond - 2 * _REFERENCE * (after - before - beyond))
        if not items:
            self._room.take(_DICT)
        for key, value in zip(values[::2], values[1::2], strict=True):
            items[as_key(key)] = value

    # --- names and calls --------------------------------------------------------------------------

    def _op_global(self, name: str) -> None:
        module, _, name = name.partition(" ")
        self._push(_global(module, name), _OBJECT)

    def _op_stack_global(self, _: Any) -> None:
        name, module = self._pop(), self._pop()
        self._push(_global(module, name), _OBJECT)

    def _op_build(self, _: Any) -> None:
        state = self._pop()
        build = getattr(self._stack[-1], "build", None)
        if build is not None:  # of a state_dict's own attributes nothing is kept
            build(state)

    def _op_newobj(self, _: Any) -> None:
        arguments, cls = self._pop(), self._pop()
        self._room.take(-2 * _REFERENCE)
        self._push_made(self._call(cls, arguments))

    _op_reduce = _op_newobj

    def _op_newobj_ex(self, _: Any) -> None:
        keywords = self._pop()
        self._op_newobj(None)
        if isinstance(self._stack[-1], Opaque):
            self._stack[-1].arguments = (self._stack[-1].arguments, keywords)

    def _op_obj(self, _: Any) -> None:
        cls, *arguments = self._pop_mark()
        self._push(self._call(cls, tuple(arguments)), _OBJECT)

    def _op_inst(self, name: str) -> None:
        module, _, name = name.partition(" ")
        arguments = tuple(self._pop_mark())
        self._push(self._call(_global(module, name), arguments), _OBJECT)

    def _op_binpersid(self, _: Any) -> None:
        self._push(self._persistent(self._pop()), _OBJECT)

    def _op_persid(self, text: str) -> None:
        self._push(self._persistent(text), _OBJECT)
