"""What there is in whatever PyTorch's reader takes: tensors and modules by their dotted names.

In memory, all that containers, objects and modules hold is searched as in a file.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from fastlstm._checks import FloatArray, readable_path, to_numpy
from fastlstm._stored import FLOATS, as_layers_float
from fastlstm.interchange._description import choose, listed
from fastlstm.interchange._tensors import DAMAGE, Int8, Tensor

from .file import read_torch_file
from .modules import ModuleFacts, Parametrised, facts_of, held_by, is_module, title_of
from .objects import OtherTensor
from .packed import (
    PER_TENSOR,
    holds_packed,
    int8_of,
    is_of_torch_script,
    packed_cell,
    state_of,
    unpacked,
)
from .parameters import (
    layers_among,
    parameters_of,
    refuse_copies_above,
    with_lists_marked,
)
from .safetensors import read_safetensors
from .walk import contents_of, find


@dataclass
class Contents:
    """Tensors and modules by their dotted names."""

    where: str
    """What the source is, for errors."""
    tensors: Mapping[str, Any]
    modules: Mapping[str, Any]
    """In memory as they are, of files described, both of them."""


def contents_of_source(source: Any) -> Contents:
    """Find tensors and modules in whatever :func:`from_torch` takes."""
    expected = "a module, a state_dict or a path"
    if isinstance(source, type):
        name = source.__name__
        raise TypeError(f"source: expected {expected}, got the class {name}: pass an object of it")
    if type(source).__module__.startswith("torch.jit.") and is_module(source):
        raise ValueError(
            f"source: a {type(source).__name__} does not say what it computes: pass the file of "
            "torch.jit.save, or its state_dict()"
        )
    if isinstance(source, Mapping):
        return _in_memory("state_dict", source)
    if not isinstance(source, os.PathLike) and _holds_others(source):
        return _in_memory(type(source).__name__, source)
    path = readable_path("source", source, expected)
    with open(path, "rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # after the eight bytes of its length, the JSON header
        return Contents(path, read_safetensors(path), {})
    content = read_torch_file(path)
    return Contents(path, content.tensors, content.modules)


def _holds_others(source: Any) -> bool:
    is_container = isinstance(source, (list, tuple)) or hasattr(source, "__dict__")
    return is_container and _held(source) is not None


# In the place of tensors.
_STAND_INS = (Parametrised, OtherTensor)


def _in_memory(where: str, source: Any) -> Contents:
    tensors: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    found = find(source, _held, lambda thing: _is_tensor(thing) or is_module(thing))
    for name, thing in found.items():
        (modules if is_module(thing) else tensors)[name] = thing
    return Contents(where, tensors, modules)


def _is_tensor(thing: Any) -> bool:
    if isinstance(thing, np.ndarray):
        return thing.dtype.kind in "biufcV"
    # Asked of the class, as attributes of an object may be all that its keys are.
    is_array = hasattr(type(thing), "__dlpack__") or hasattr(type(thing), "__array__")
    return (is_array and not isinstance(thing, np.generic)) or isinstance(thing, _STAND_INS)


def _held(thing: Any) -> Iterable[tuple[Any, Any]] | None:
    if _is_tensor(thing):
        return None
    if is_module(thing):
        return held_by(thing)
    if isinstance(thing, Mapping):  # its attributes may have the same again
        return with_lists_marked(thing)
    cell = packed_cell(state_of(thing)) if is_of_torch_script(thing) else None
    if cell is not None:
        return cell.items()
    return contents_of(thing)


def choose_layer(contents: Contents, prefix: str | None) -> str:
    """Return the prefix of the one layer that is meant."""
    found = dict.fromkeys(layers_among(contents.tensors))
    if not found:
        _raise_none(contents)
    if prefix is not None:
        prefix = prefix.rstrip(".")
        below = [name for name in found if name.startswith(f"{prefix}.")]
        if prefix not in found and len(below) == 1:
            return below[0]
    return choose(found, prefix, contents.where, "prefix")[0]


def _raise_none(contents: Contents) -> NoReturn:
    kinds = dict.fromkeys(map(title_of, contents.modules.values()))
    if kinds:
        among = f" among the modules {listed(kinds)}"
    elif contents.tensors:
        among = f" among the tensors {listed(contents.tensors)}"
    else:
        among = ": there are no tensors"
    raise ValueError(f"{contents.where}: expected an LSTM, GRU or RNN, found none{among}")


def names_in(layer: str, names: Iterable[str]) -> dict[str, str]:
    """Return the names of what is in a layer, by what they are there."""
    start = f"{layer}." if layer else ""
    return {n[len(start) :]: n for n in names if n.startswith(start) and n != layer}


def facts_about(contents: Contents, layer: str) -> ModuleFacts | None:
    """Return what is known of a layer's module, where there is one: all but what PyTorch does.

    Raises
    ------
    ValueError
        It may compute something else.
    """
    module = contents.modules.get(layer)
    if module is None:
        return None
    facts = facts_of(module)
    if not facts.cell:
        raise ValueError(
            f"expected a layer of torch.nn, got {title_of(module)}, which may compute otherwise "
            "with such parameters: pass its state_dict if it does not"
        )
    if facts.changes:
        raise ValueError(
            f"expected what torch.nn.{facts.cell} computes and no more, got "
            f"{listed(facts.changes)}: pass its state_dict if its results are the same"
        )
    return facts


def packed_in(
    contents: Contents, layer: str, bidirectional: bool | None
) -> dict[str, Tensor] | None:
    """All parameters of a quantised layer; None: it is none."""
    own = names_in(layer, contents.tensors)
    if not holds_packed(own):
        return None
    tensors = {name: _described(name, contents.tensors[full]) for name, full in own.items()}
    return unpacked(tensors, names_in(layer, contents.modules), bidirectional)


def parameters_in(
    contents: Contents,
    layer: str,
    computed: Collection[str] | None,
    also: Collection[str] = (),
) -> dict[str, Tensor]:
    """All parameters of a layer, which has nothing else.

    Parameters
    ----------
    computed : collection of str, optional
        Of a module: the parameters that its hooks compute from others. None: it is not known.
    also : collection of str
        Names of parameters that PyTorch's layers do not have, but this one.
    """
    refuse_copies_above(layer, contents.tensors)
    own = names_in(layer, contents.tensors)
    tensors = {name: _described(name, contents.tensors[full]) for name, full in own.items()}
    return parameters_of(tensors, names_in(layer, contents.modules), computed, also)


def _described(name: str, value: Any) -> Tensor:
    """A tensor or array in memory."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, OtherTensor):
        raise ValueError(f"{name}: expected a tensor or array, got {value.kind}")
    if isinstance(value, Parametrised):
        value = value.value()
    try:
        shape = tuple(value.shape)
    except DAMAGE as error:  # without values yet, or with ragged ones
        raise ValueError(f"{name}: expected a tensor with a shape: {error}") from error

    if getattr(value, "is_quantized", False):
        return Tensor(shape, _refused, functools.partial(_int8, value))

    def read() -> FloatArray:
        array = to_numpy(name, value.detach().cpu() if hasattr(value, "detach") else value)
        if array.dtype.name not in FLOATS:
            raise ValueError(f"expected a tensor of floats, got one of {array.dtype}")
        return np.array(as_layers_float(array, array.dtype.name), order="C")

    return Tensor(shape, read)


def _refused() -> NoReturn:
    raise ValueError("expected a tensor of floats, got a quantised tensor")


def _int8(tensor: Any) -> Int8:
    """The whole numbers of a quantised tensor in memory."""
    numbers = tensor.detach().cpu().int_repr().numpy()
    scheme = str(tensor.qscheme()).removeprefix("torch.")
    if scheme in PER_TENSOR:
        return int8_of(numbers, scheme, tensor.q_scale(), tensor.q_zero_point(), None)
    scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return int8_of(numbers, scheme, scales.numpy(), zeros.numpy(), tensor.q_per_channel_axis())
