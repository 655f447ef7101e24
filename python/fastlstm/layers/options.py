"""The options of layers: each is declared once, as an :class:`Option` of its class.

A :class:`Table` of them checks the arguments of a layer, has their defaults, shows them, and says
what the core is told; what is saved and copied are its values.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NoReturn, TypeVar, overload

from fastlstm._activations import Activation, ActivationName, as_activation, as_clip
from fastlstm._checks import MOST_SIZE, as_dtype, as_int, as_real

T = TypeVar("T")


class Option(Generic[T]):
    """One option of a class of layers, and the property that reads it.

    Its name is that of the attribute. The default is what the signature of the class says: users
    and their editors read it there.

    Parameters
    ----------
    check : callable
        Makes of name and argument the value that is kept, shown and saved: one that JSON has.
    doc : str
        One line for the property.
    core : callable, optional
        Makes of name and value the entries of the core's configuration; None: it is not told.
    training : bool
        Whether it is the core's to know in training calls alone.
    read : callable, optional
        Makes of all values what the property gives; by default the value itself.
    """

    def __init__(
        self,
        check: Callable[[str, Any], Any],
        doc: str,
        *,
        core: Callable[[str, Any], Mapping[str, Any]] | None = None,
        training: bool = False,
        read: Callable[[Mapping[str, Any]], T] | None = None,
    ) -> None:
        self.__doc__ = doc
        self.check = check
        self.core = core
        self.training = training
        self.name = ""
        self._read = read

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, layer: None, owner: type) -> Option[T]: ...
    @overload
    def __get__(self, layer: HasOptions, owner: type) -> T: ...
    def __get__(self, layer: HasOptions | None, owner: type) -> Option[T] | T:
        if layer is None:
            return self
        values = layer._options
        value: T = values[self.name] if self._read is None else self._read(values)
        return value

    def __set__(self, layer: HasOptions, value: NoReturn) -> None:
        kind = type(layer).__name__
        raise AttributeError(f"property {self.name!r} of {kind!r} object has no setter")


class Table:
    """All options of one class.

    Attributes
    ----------
    options : dict of str to Option
        In the order of files: those of base classes first.
    required : list of str
        Those without a default, in the order of the signature.
    defaults : dict
        The values of those that may be left out, in the same order.
    """

    def __init__(self, cls: type) -> None:
        self.options: dict[str, Option[Any]] = {
            name: option
            for base in reversed(cls.__mro__)
            for name, option in vars(base).items()
            if isinstance(option, Option)
        }
        self.defaults: dict[str, Any] = {}
        self.required: list[str] = []
        for name, argument in inspect.signature(cls.__init__).parameters.items():  # type: ignore[misc]
            if name not in self.options:
                continue  # of the initial values
            if argument.default is argument.empty:
                self.required.append(name)
            else:
                self.defaults[name] = self.options[name].check(name, argument.default)

    def checked(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of all options; other arguments are not looked at."""
        return {n: option.check(n, arguments[n]) for n, option in self.options.items()}

    def completed(self, owner: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options, those that are left out with their defaults.

        Raises
        ------
        ValueError
            There are others, or some without a default are missing.
        """
        unknown = [name for name in options if name not in self.options]
        missing = [name for name in self.required if name not in options]
        if unknown or missing:
            raise ValueError(
                f"{owner}: expected its options; missing: {', '.join(missing) or 'none'}; "
                f"unexpected: {', '.join(unknown) or 'none'}"
            )
        return {**self.defaults, **options}

    def shown(self, values: Mapping[str, Any]) -> str:
        """Return the arguments that make these values, as briefly as they can be written."""
        others = [f"{n}={values[n]!r}" for n, d in self.defaults.items() if values[n] != d]
        return ", ".join([*(repr(values[name]) for name in self.required), *others])

    def core(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the core is told of these values when it makes layers."""
        config: dict[str, Any] = {}
        for name, option in self.options.items():
            if option.core is not None:
                config.update(option.core(name, values[name]))
        return config

    def training(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the core is told in training calls."""
        return {name: values[name] for name, option in self.options.items() if option.training}


class HasOptions:
    """A class whose options are :class:`Option` attributes."""

    _table: ClassVar[Table]
    _options: Mapping[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        # A class of a user's has its base's, whatever its own arguments are.
        if any(isinstance(value, Option) for value in vars(cls).values()):
            cls._table = Table(cls)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._table.shown(self._options)})"


def table_of(cls: type[HasOptions]) -> Table:
    """Return the table of a class."""
    return cls._table


# --- checks ---------------------------------------------------------------------------------------


def as_size(name: str, value: Any) -> int:
    """Return a size."""
    return as_int(name, value, 1, MOST_SIZE)


def as_width(name: str, value: Any) -> int:
    """Return a size, or 0 for none."""
    return as_int(name, value, 0, MOST_SIZE)


def as_probability(name: str, value: Any) -> float:
    """Return a probability."""
    return as_real(name, value, 0.0, 1.0)


def as_dtype_name(_: str, value: Any) -> str:
    """Return the name of a layer's dtype."""
    return str(as_dtype(value).name)


def as_merge(_: str, value: Any) -> str | None:
    """Return how the outputs of two directions are merged; None: not at all."""
    if value is not None and str(value) not in ("concat", "sum", "mul", "ave"):
        raise ValueError(f"merge: expected concat, sum, mul, ave or None, got {value!r}")
    return None if value is None else str(value)


# --- what the core is told ------------------------------------------------------------------------


def as_it_is(name: str, value: Any) -> dict[str, Any]:
    """Return an entry of the same name and value."""
    return {name: value}


def core_functions(names: Sequence[ActivationName]) -> list[Activation]:
    """Return the functions of gates, candidate and cell state as the core takes them."""
    return [as_activation("", name) for name in names]


# --- options of all cells, each at its place among the cell's own ---------------------------------

CLIP = Option[float | None](
    as_clip,
    "The bound of the sums before the gates' functions; None: they have none.",
    core=lambda _, clip: {"clip": math.inf if clip is None else clip},
)
RECURRENT_DROPOUT = Option[float](
    as_probability,
    "The part of h that becomes zero, in training, where R reads it.",
    training=True,
)
WEIGHT_DROPOUT = Option[float](
    as_probability, "The part of the values of R that becomes zero in training.", training=True
)
# Of GRU and RNN, whose state is h alone.
ZONEOUT = Option[float](
    as_probability,
    "The probability that units of h keep their values.",
    core=lambda _, p: {"zoneout_h": p},
)
