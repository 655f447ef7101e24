"""The parameters of PyTorch's recurrent layers among a model's tensors, by their names.

A layer is everything whose name begins as its parameters' do, and all of it must be understood: a
cell with a norm, a second copy of a weight, or a linear layer below it computes something else.
Understood are plain parameters, and what PyTorch's utilities put in the place of one: weight
normalisation, spectral normalisation and pruning, from which the parameter is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastlstm.interchange._description import listed
from fastlstm.interchange._tensors import Tensor

from .objects import OtherTensor
from .packed import packed_layer

Array = npt.NDArray[Any]

_KIND = r"(?:weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)"
_PARAMETER = re.compile(rf"{_KIND}(?:_l\d+(?:_reverse)?)?")
_PARAMETRISED = re.compile(rf"parametrizations\.(?P<name>{_PARAMETER.pattern})\..*", re.DOTALL)
_LIKE_ONE = re.compile(rf"(?P<name>{_PARAMETER.pattern})[^.]*", re.DOTALL)
_PART = re.compile(rf"{_PARAMETER.pattern}(?:_g|_v|_u|_orig|_mask)?")
_RAW = (
    "Dropout of weights keeps the true values as raw ones: give these alone, and call them as the "
    "parameter"
)


def is_parameter(name: str) -> bool:
    """Whether a name, without those of modules, is a parameter's of a layer."""
    return bool(_PARAMETER.fullmatch(name))


def may_be_of_a_layer(key: Any) -> bool:
    """Whether the key of a tensor may tell it from others beside it: by a path, or a kind."""
    if not isinstance(key, str) or len(key) > 200:
        return False
    return "." in key or re.search(_KIND, key) is not None


def in_order(names: Iterable[str]) -> list[str]:
    """Sort names of parameters as PyTorch passes them: by layer, direction and kind."""
    kinds = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")

    def place(name: str) -> tuple[int, bool, int]:
        kind, _, cell = name.partition("_l")
        layer = cell.removesuffix("_reverse")
        return int(layer or 0), layer != cell, kinds.index(kind)

    return sorted(names, key=place)


def with_lists_marked(mapping: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield items; a list in the place of a parameter is neither to be searched nor overlooked."""
    for key, thing in mapping.items():
        is_list = type(thing) in (list, tuple) and isinstance(key, str)
        if is_list and is_parameter(key.rpartition(".")[2]):
            yield key, OtherTensor("a list", ())
        else:
            yield key, thing


def layers_among(names: Iterable[str]) -> list[str]:
    """Return which layers there are: what their parameters' names begin with, without the dot."""
    found: dict[str, None] = {}
    for name in names:
        path, _, last = name.rpartition(".")
        before, parametrisations, after = f".{name}".rpartition(".parametrizations.")
        if (packed := packed_layer(name)) is not None:
            found[packed] = None
        elif _PART.fullmatch(last):
            found[path] = None
        elif parametrisations and _PARAMETER.fullmatch(after.partition(".")[0]):
            found[before[1:]] = None
    return list(found)


def refuse_copies_above(layer: str, names: Iterable[str]) -> None:
    """Refuse a layer if modules around it have what a parameter of it could be computed from.

    Dropout of weights in a module around the layer keeps the true ones as its own
    ``weight_hh_l0_raw``, and in the layer what the last batch left of them.
    """
    found = []
    for name in names:
        path, _, last = name.rpartition(".")
        around = path != layer and (not path or layer.startswith(f"{path}."))
        if around and re.search(_KIND, last) and not is_parameter(last):
            found.append(name)
    if found:
        raise ValueError(
            f"expected its parameters in the layer, got {listed(found)} around it: which of them "
            f"counts is not known. {_RAW}"
        )


def parameters_of(
    tensors: Mapping[str, Tensor],
    modules: Iterable[str],
    computed: Collection[str] | None,
    also: Collection[str] = (),
) -> dict[str, Tensor]:
    """Return the parameters of a layer.

    Parameters
    ----------
    tensors : mapping
        All that are in the layer, by their names below it.
    modules : iterable of str
        Names of modules that are.
    computed : collection of str, optional
        Of a module: the parameters that its hooks compute from others. None: it is not known.
    also : collection of str
        Names of parameters that PyTorch's layers do not have, but this one.

    Raises
    ------
    ValueError
        There is something else; the message names it.
    """
    parts: dict[str, list[str]] = {}
    others = list(modules)
    for name in tensors:
        match = _PARAMETRISED.fullmatch(name) or _LIKE_ONE.fullmatch(name)
        if match:
            parts.setdefault(match["name"], []).append(name)
        elif name in also:
            parts[name] = [name]
        else:
            others.append(name)
    if others:
        raise ValueError(
            f"expected the parameters of PyTorch's layers alone, got {listed(others)}: whatever "
            "has the layer's prefix may change its results. Leave out what does not"
        )
    parameters = {}
    for name, its in parts.items():
        form = next((f for f in _FORMS if sorted(f.names(name)) == sorted(its)), None)
        if form is None or (form.by_hook and computed is not None and name not in computed):
            raise ValueError(
                f"{name}: expected it alone, or its weight norm, spectral norm or pruning, got "
                f"{listed(its)}: which of them counts is not known. {_RAW}"
            )
        parameters[name] = form.compute(name, *(tensors[part] for part in form.names(name)))
    return parameters


class _Form(NamedTuple):
    """What a parameter is computed from."""

    parts: tuple[str, ...]
    """Their names, with {} for the parameter's."""
    compute: Callable[..., Tensor]
    """Of the parameter's name and the parts."""

    by_hook: bool = False
    """Whether it is computed when a module is called, and not when it is asked for."""

    def names(self, name: str) -> list[str]:
        return [part.format(name) for part in self.parts]


def _plain(name: str, value: Tensor) -> Tensor:
    return value


def _weight_norm(name: str, g: Tensor, v: Tensor) -> Tensor:
    """``g v / |v|``, the length over all axes but the one that g has, or over all."""
    axes = tuple(range(len(v.shape)))
    others: dict[tuple[int, ...], tuple[int, ...]] = {(): axes}
    for dim in axes:
        kept = tuple(size if axis == dim else 1 for axis, size in enumerate(v.shape))
        others[kept] = tuple(axis for axis in axes if axis != dim)
    if g.shape not in others:
        raise ValueError(
            f"{name}: expected the lengths of weight norm for {v.shape}, got {g.shape}"
        )

    def read() -> Array:
        direction = v.read()
        squares = np.square(direction, dtype=np.float64)
        length = np.sqrt(np.sum(squares, axis=others[g.shape], keepdims=bool(g.shape)))
        del squares  # as large as two of the weights
        with np.errstate(divide="ignore", invalid="ignore"):  # as PyTorch
            scale: Array = (g.read() / length).astype(direction.dtype)
            return direction * scale

    return Tensor(v.shape, read)


def _pruned(name: str, original: Tensor, mask: Tensor) -> Tensor:
    if mask.shape != original.shape:
        raise ValueError(f"{name}: expected a mask {original.shape}, got {mask.shape}")
    return Tensor(original.shape, lambda: original.read() * mask.read().astype(np.float32))


def _spectral_norm(name: str, original: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """``W / (u W v)``, where PyTorch's power iteration has left u and v."""
    by_rows = original.shape == (*u.shape, *v.shape)
    if not by_rows and original.shape != (*v.shape, *u.shape):
        raise ValueError(
            f"{name}: expected the vectors of spectral norm for {original.shape}, got {u.shape} "
            f"and {v.shape}"
        )

    def read() -> Array:
        W: Array = original.read()
        left, right = u.read(), v.read()
        norm = left @ W @ right if by_rows else right @ W @ left
        # Of a square matrix, either may belong to the rows: the right one leads to a larger norm.
        if u.shape == v.shape and right @ W @ left > norm:
            raise ValueError("the vectors of spectral norm do not say which axis they belong to")
        with np.errstate(divide="ignore", invalid="ignore"):
            normed: Array = W / norm
            return normed

    return Tensor(original.shape, read)


_FORMS = (
    _Form(("{}",), _plain),
    _Form(("{}_g", "{}_v"), _weight_norm, by_hook=True),
    _Form(tuple(f"parametrizations.{{}}.original{n}" for n in (0, 1)), _weight_norm),
    _Form(("{}_orig", "{}_mask"), _pruned, by_hook=True),
    _Form(("{}_orig", "{}_u", "{}_v"), _spectral_norm, by_hook=True),
    _Form(
        tuple(f"parametrizations.{{}}.{part}" for part in ("original", "0._u", "0._v")),
        _spectral_norm,
    ),
)
