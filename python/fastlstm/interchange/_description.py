"""The common form between a foreign model and a layer: a class, its arguments, its parameters."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from fastlstm._checks import FloatArray
from fastlstm.layers import LAYERS, make_layer, quantized_layer, table_of

from ._tensors import Int8

T = TypeVar("T")
_MOST_LISTED = 10  # names in a line


@dataclass
class Description:
    """A recurrent layer as fastlstm would make it."""

    cell: str
    """The name of the class: LSTM, GRU or RNN."""
    options: dict[str, Any]
    """Arguments of the class. Those at their defaults may be left out."""
    params: dict[str, FloatArray]
    """All parameters: PyTorch's names, shapes and order of gates.

    Arrays that own their memory become the layer's: nobody else may write to them.
    """
    small: dict[str, Int8] = field(default_factory=dict)
    """W and R where they are int8, which are not among `params` then."""
    activations: str = "float32"
    """What is multiplied by those: float32, or int8."""


def build(description: Description) -> Any:
    """Make the layer.

    Raises
    ------
    ValueError
        There is no such layer or option, or sizes do not fit together.
    """
    cls = LAYERS.get(description.cell)
    if cls is None:
        raise ValueError(f"{description.cell}: fastlstm has no such layer")
    known = table_of(cls).options
    for name, value in description.options.items():
        if name not in known:
            raise ValueError(f"{name}={value!r}: fastlstm.{description.cell} has no such option")
    options = {**description.options, "dtype": common_dtype(description.params)}
    if not description.small:
        return make_layer(cls, options, description.params)
    stored: dict[str, Any] = dict(description.params)
    for name, rows in description.small.items():
        stored |= {name: rows.values, f"{name}_scale": rows.scales}
    return quantized_layer(cls, options, stored, "int8", description.activations)


def set_activations(description: Description, activations: str | None) -> None:
    """Take the caller's word on what int8 weights are multiplied with."""
    if activations is None:
        return
    if not description.small:
        raise ValueError("activations: expected None, as the weights are not quantised")
    if activations not in ("float32", "int8"):
        raise ValueError(f"activations: expected float32 or int8, got {activations!r}")
    description.activations = activations


def common_dtype(params: Mapping[str, FloatArray]) -> str:
    """Return the one dtype of all parameters; float32 where there are none."""
    dtypes = {array.dtype.name: name for name, array in params.items()}
    if len(dtypes) > 1:
        texts = ", ".join(f"{name} is {dtype}" for dtype, name in dtypes.items())
        raise ValueError(f"expected parameters of one type, but {texts}")
    return next(iter(dtypes), "float32")


def listed(names: Collection[str]) -> str:
    """Return names as a line of an error or report: of many, the first."""
    more = len(names) - _MOST_LISTED
    text = ", ".join(itertools.islice(names, _MOST_LISTED))
    return f"{text} and {more} more" if more > 0 else text


def choose(found: Mapping[str, T], wanted: str | None, where: str, argument: str) -> tuple[str, T]:
    """Return the one thing that is wanted, with its name.

    Parameters
    ----------
    found : mapping
        By name.
    wanted : str, optional
        A name; None where there is only one.
    where, argument : str
        For errors: what was searched, and the caller's name of ``wanted``.
    """
    names = ", ".join(repr(name) for name in found)
    if not found:
        raise ValueError(f"{where}: expected an LSTM, GRU or RNN, found none")
    if wanted is None:
        if len(found) > 1:
            raise ValueError(f"{where}: expected {argument}= to be one of {names}, got None")
        return next(iter(found.items()))
    if wanted not in found:
        raise ValueError(f"{where}: expected {argument}= to be one of {names}, got {wanted!r}")
    return wanted, found[wanted]
