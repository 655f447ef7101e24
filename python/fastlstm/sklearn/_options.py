"""The arguments of estimators: each is declared once, with its default, its check and its text.

scikit-learn wants them as keyword arguments that ``__init__`` does nothing but keep, so that
``get_params``, ``set_params`` and ``clone`` see what the user gave. So a class of estimators is a
dataclass of them, and they are checked when it is fitted.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

from fastlstm._checks import MOST_SIZE, as_int, as_real

ClassT = TypeVar("ClassT")
Check = Callable[[str, Any], Any]

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: bool) -> Callable[[ClassT], ClassT]:
        """What only type checkers read; Python has it from 3.11 on."""
        return lambda function: function


def option(default: Any, check: Check, kind: str, doc: str) -> Any:
    """Declare an argument: an attribute of a class that :func:`estimator` decorates.

    Parameters
    ----------
    default : object
        Its default.
    check : callable
        Makes of name and value what fitting uses, or raises ValueError or TypeError.
    kind, doc : str
        What it is and what it does, for the class's docstring.
    """
    return dataclasses.field(default=default, metadata={"check": check, "kind": kind, "doc": doc})


@dataclass_transform(kw_only_default=True, eq_default=False)
def estimator(cls: type[ClassT]) -> type[ClassT]:
    """Make a class's options, and those of its bases, the arguments of its ``__init__``.

    ``{options}`` in its docstring is where they are described.
    """
    made: type[ClassT] = dataclasses.dataclass(kw_only=True, eq=False, repr=False)(cls)
    if made.__doc__ is not None:
        # Without indentation, as Python 3.13 keeps docstrings and `help` shows them.
        options = textwrap.dedent(" " * 4 + _described(made))
        made.__doc__ = inspect.cleandoc(made.__doc__).replace("{options}\n", options)
    return made


def _described(cls: type[Any]) -> str:
    entries = []
    for field in dataclasses.fields(cls):
        text = textwrap.indent(textwrap.fill(field.metadata["doc"], 88), " " * 8)
        entries.append(f"{field.name} : {field.metadata['kind']}\n{text}\n")
    return "    ".join(entries)


def checked(estimator: Any) -> SimpleNamespace:
    """Return the checked values of an estimator's arguments.

    Raises
    ------
    ValueError, TypeError
        One is not as stated.
    """
    return SimpleNamespace(
        **{
            field.name: field.metadata["check"](field.name, getattr(estimator, field.name))
            for field in dataclasses.fields(estimator)
        }
    )


# --- checks ---------------------------------------------------------------------------------------


def one_of(*values: str) -> Check:
    """Return a check: one of some words."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in values:
            known = ", ".join(map(repr, values))
            raise ValueError(f"{name}: expected one of {known}, got {value!r}")
        return value

    return check


def or_none(check: Check) -> Check:
    """Return a check that lets None through."""
    return lambda name, value: None if value is None else check(name, value)


def as_count(name: str, value: Any) -> int:
    """Return an integer of at least 1."""
    return as_int(name, value, 1, MOST_SIZE)


def as_count_or_zero(name: str, value: Any) -> int:
    """Return an integer of at least 0."""
    return as_int(name, value, 0, MOST_SIZE)


def as_verbosity(name: str, value: Any) -> int:
    """Return an integer of at least 0: False and True are 0 and 1."""
    return as_count_or_zero(name, int(value) if isinstance(value, bool) else value)


def as_positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    number = as_real(name, value, 0.0, math.inf)
    if number == 0 or math.isinf(number):
        raise ValueError(f"{name}: expected a finite number above 0, got {number:g}")
    return number


def as_fraction(name: str, value: Any) -> float:
    """Return a number of at least 0 and below 1."""
    number = as_real(name, value, 0.0, 1.0)
    if number == 1:
        raise ValueError(f"{name}: expected a number below 1, got 1")
    return number


def as_callables(name: str, value: Any) -> list[Callable[..., Any]]:
    """Return a list of what can be called."""
    if not isinstance(value, Iterable) or isinstance(value, str):
        raise TypeError(f"{name}: expected functions, got {type(value).__name__}")
    functions = list(value)
    for function in functions:
        if not callable(function):
            raise TypeError(f"{name}: expected functions, got {type(function).__name__}")
    return functions


def anything(_: str, value: Any) -> Any:
    """Return the value: it is checked where it is used."""
    return value
