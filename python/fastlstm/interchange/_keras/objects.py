"""Recurrent layers in layers and models of Keras in memory. Keras is never imported."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from fastlstm._stored import FLOATS, as_layers_float
from fastlstm.interchange._tensors import Tensor

from .layers import CELLS, RECURRENT, TRANSPARENT, Found, is_of_keras, wrapped

# What a class may define and still compute what its base does.
_HARMLESS = ("__init__", "get_config", "from_config")
# Methods of layers and cells that compute.
_REPLACED = ("call", "inner_loop", "step")
# A cell's weights, of which the last is None where there are two.
_OF_CELLS = ("kernel", "recurrent_kernel", "bias")


def find_in_object(source: Any) -> dict[str, Found]:
    """Find recurrent layers in a layer or model."""
    found: dict[str, Found] = {}
    seen: set[int] = set()
    is_model = hasattr(source, "layers") and not hasattr(source, "forward_layer")
    # A layer, its name with those of the models around it, and the wrappers around it.
    waiting: list[tuple[Any, str, tuple[str, ...]]]
    waiting = [(source, "" if is_model else str(source.name), ())]
    while waiting:
        layer, name, wrappers = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        kind = _kind(layer)
        if kind is not None:
            number, first = 1, name
            while name in found:  # models of the user's own may have two of a name
                number += 1
                name = f"{first}#{number}"
            found[name] = _found(layer, kind, wrappers)
            continue
        inner = getattr(layer, "layer", None)
        if inner is not None and hasattr(inner, "name"):
            change = next(_changes(layer), "")
            wrapper = type(layer).__name__ + (f" ({change})" if change else "")
            waiting.append((inner, f"{name}/{inner.name}", (*wrappers, wrapper)))
        waiting += [
            (part, f"{name}/{part.name}" if name else str(part.name), wrappers)
            for part in reversed(_parts(layer))
        ]
    return found


def _parts(layer: Any) -> list[Any]:
    """The layers of a model, or those that a layer of the user's own has as attributes."""
    if hasattr(layer, "layers"):
        return list(layer.layers)
    flatten = getattr(layer, "_flatten_layers", None)
    if flatten is None or hasattr(layer, "layer"):
        return []
    return list(flatten(include_self=False, recursive=False))


def _kind(layer: Any) -> str | None:
    """The recurrent class of Keras that a layer's class is or inherits from."""
    classes = [c.__name__ for c in type(layer).__mro__ if is_of_keras(c.__module__)]
    return next((name for name in classes if name in RECURRENT), None)


def _found(layer: Any, kind: str, wrappers: tuple[str, ...]) -> Found:
    own: Any = next(c for c in type(layer).__mro__ if is_of_keras(c.__module__))
    changes, config = next(_changes(layer), None), {}
    if changes is None:
        config = own.get_config(layer)
    else:
        kind = f"{type(layer).__name__} ({changes})"
    unknown = [wrapper for wrapper in wrappers if wrapper != TRANSPARENT]
    kind = wrapped(unknown[0], kind) if unknown else kind
    package = sys.modules[own.__module__.partition(".")[0]]
    version = str(getattr(package, "__version__", ""))
    weights = functools.partial(_weights, layer)
    return Found(weights, kind, config, version, layer, " and the ".join(wrappers))


def _changes(layer: Any) -> Iterator[str]:
    """What makes a layer, or one in it, compute something else than Keras' own class does."""
    for cls in type(layer).__mro__:
        if is_of_keras(cls.__module__):
            break
        for name, value in vars(cls).items():
            if (callable(value) or isinstance(value, property)) and name not in _HARMLESS:
                yield f"{cls.__name__}, a class of its own, defines {name}"
    yield from (f"its {name} was replaced" for name in _REPLACED if name in vars(layer))
    yield from (f"its {name} was replaced" for name in _replaced_weights(layer))
    for name in ("activation", "recurrent_activation"):
        function = getattr(layer, name, None)
        module = str(getattr(function, "__module__", ""))
        if callable(function) and not is_of_keras(module):
            yield f"{name}: expected a function of Keras, got {module}.{_name(function)}"
    for name in ("cell", "forward_layer", "backward_layer"):
        inner = getattr(layer, name, None)
        if inner is None:
            continue
        if _kind(layer) in CELLS and _kind(inner) != f"{_kind(layer)}Cell":
            yield f"its cell is a {type(inner).__name__}"
        yield from (f"{name}: {change}" for change in _changes(inner))


def _replaced_weights(cell: Any) -> Iterator[str]:
    """What a cell computes with, where it is not what it lists."""
    if not all(hasattr(cell, name) for name in (*_OF_CELLS, "weights")):
        return  # none, or one without weights yet
    known = {id(weight) for weight in cell.weights}
    for name in _OF_CELLS[: max(2, len(known))]:
        if id(getattr(cell, name)) not in known:
            yield name


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _weights(layer: Any) -> list[Tensor]:
    # Not a Bidirectional's own list: Keras 2 has what is not trainable at its end.
    sides = ("forward_layer", "backward_layer")
    parts = [getattr(layer, side) for side in sides] if hasattr(layer, sides[0]) else [layer]
    return [_tensor(np.asarray(value)) for part in parts for value in part.get_weights()]


def _tensor(array: Any) -> Tensor:
    name = array.dtype.name

    def read() -> Any:
        if name not in FLOATS:
            raise ValueError(f"expected floats, got {name}")
        return as_layers_float(array.view("u2") if name == "bfloat16" else array, name)

    return Tensor(array.shape, read)
