"""Layers from PyTorch: modules, state_dicts, and files of either. PyTorch is never imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastlstm._checks import FloatArray, as_bool, as_real, readable_path, to_numpy

from ._description import Description, build, choose
from ._gates import GATES, cell_of_rows
from ._safetensors import read_safetensors
from ._tensors import DAMAGE, Tensor
from ._torch_file import read_torch_file

T = TypeVar("T")

_MODULES = ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell")
_PARAMETER = re.compile(
    r"(?P<prefix>(?:.*\.)?)(?P<kind>weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)"
    r"(?P<layer>_l\d+(?:_reverse)?)?",
    re.DOTALL,
)
# Named as a parameter of a layer, whatever it is.
_LIKE_A_PARAMETER = re.compile(r"(?P<prefix>(?:.*\.)?)[^.]+_l\d+(?:_reverse)?", re.DOTALL)


@dataclass
class _Found:
    """A recurrent module, or the part of a state_dict that looks like one."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    attributes: Mapping[str, Any] | None = None  # of the module, where there is one
    type: str = ""
    unknown: list[str] = field(default_factory=list)  # names like parameters' beside the tensors'


def from_torch(
    source: Any,
    prefix: str | None = None,
    *,
    batch_first: bool | None = None,
    dropout: float | None = None,
    nonlinearity: str | None = None,
) -> Any:
    """Make a layer from a recurrent layer of PyTorch, with the same results.

    Parameters
    ----------
    source : Module, mapping of str to tensor or array, or path-like
        An LSTM, GRU, RNN, LSTMCell, GRUCell or RNNCell of torch.nn, or a module that contains
        some; a state_dict; or a file of one of these: of ``torch.save`` (its zip format or the
        one before) or a safetensors file. Reading a file runs no code of it, and does not need
        PyTorch.
    prefix : str, optional
        Which layer, as its parameters' names begin: "encoder.rnn". May be left out where there is
        only one.
    batch_first, dropout, nonlinearity : optional
        As of torch.nn.LSTM and RNN: what a state_dict does not say. ``nonlinearity`` must be given
        for the state_dict of an RNN. A module says it all.

    Returns
    -------
    LSTM, GRU or RNN
        In float64 if the parameters are, in float32 otherwise: half precision converts exactly. A
        cell becomes a layer, whose :meth:`stream` takes single steps.

    Raises
    ------
    ValueError
        The layer cannot be represented, the file is damaged, or there is not exactly one such
        layer; the message names them all.
    TypeError
        An argument has another type than stated.
    OSError
        The file cannot be read.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> state_dict = {
    ...     "encoder.weight_ih_l0": rng.normal(size=(32, 4)),
    ...     "encoder.weight_hh_l0": rng.normal(size=(32, 8)),
    ... }
    >>> fastlstm.from_torch(state_dict, batch_first=True)
    LSTM(4, 8, bias=False, batch_first=True, dtype='float64')
    """
    return build(describe(source, prefix, batch_first, dropout, nonlinearity))


def describe(
    source: Any,
    prefix: str | None = None,
    batch_first: bool | None = None,
    dropout: float | None = None,
    nonlinearity: str | None = None,
) -> Description:
    """Do all of :func:`from_torch` but make the layer."""
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix: expected text, got {type(prefix).__name__}")
    where, found = find_layers(source)
    name, chosen = choose_below(found, prefix, where)
    said = {
        "batch_first": None if batch_first is None else as_bool("batch_first", batch_first),
        "dropout": None if dropout is None else as_real("dropout", dropout, 0.0, 1.0),
        "nonlinearity": nonlinearity,
    }
    given = {option: value for option, value in said.items() if value is not None}
    at = f"{where}: {name}" if name else where
    try:
        if chosen.unknown:
            raise ValueError(
                "expected the parameters of PyTorch's layers alone, got "
                + ", ".join(chosen.unknown)
            )
        description = _from_tensors(chosen.tensors)
        if chosen.attributes is None:
            _add_options(description, given)
        elif given:
            raise ValueError(f"{next(iter(given))}: expected None, as the module says what it is")
        else:
            _add_attributes(description, chosen)
    except ValueError as error:
        raise ValueError(f"{at}: {error}") from error
    return description


def choose_below(found: Mapping[str, T], prefix: str | None, where: str) -> tuple[str, T]:
    """Return the one thing that has a prefix, or whose name alone begins with it."""
    if prefix is not None:
        prefix = prefix.rstrip(".")
        below = [name for name in found if name.startswith(f"{prefix}.")]
        if prefix not in found and len(below) == 1:
            found = {prefix: found[below[0]]}
    return choose(found, prefix, where, "prefix")


# --- what there is --------------------------------------------------------------------------------


def find_layers(source: Any) -> tuple[str, dict[str, _Found]]:
    """Return what the source is, for errors, and the recurrent layers in it."""
    if isinstance(source, Mapping):
        tensors = {str(name): _described(name, value) for name, value in source.items()}
        return "state_dict", group_layers(tensors)
    if hasattr(source, "named_modules"):
        return type(source).__name__, _modules(source)
    path = readable_path("source", source, "a module, a state_dict or a path")
    with open(path, "rb") as file:
        beginning = file.read(9)
    if beginning[8:] == b"{":  # after the eight bytes of its length, the JSON header
        return path, group_layers(read_safetensors(path))
    content = read_torch_file(path)
    found = group_layers(content.tensors)
    for name, module in content.modules.items():
        if _is_recurrent(*module.type):
            found.setdefault(name, _Found())
            found[name].attributes = module.attributes
            found[name].type = module.type.name
    return path, found


def _is_recurrent(module: str, name: str) -> bool:
    return module == "torch.nn.modules.rnn" and name in _MODULES


def group_layers(tensors: Mapping[str, Tensor]) -> dict[str, _Found]:
    """Find recurrent layers by the names of their parameters."""
    found: dict[str, _Found] = {}
    for name, tensor in tensors.items():
        match = _PARAMETER.fullmatch(name)
        if match:
            layer = found.setdefault(match["prefix"].rstrip("."), _Found())
            layer.tensors[match["kind"] + (match["layer"] or "")] = tensor
    for name in tensors:
        match = _LIKE_A_PARAMETER.fullmatch(name)
        if match and not _PARAMETER.fullmatch(name) and match["prefix"].rstrip(".") in found:
            found[match["prefix"].rstrip(".")].unknown.append(name)
    return found


def _modules(module: Any) -> dict[str, _Found]:
    found = {}
    for name, inner in module.named_modules():
        for cls in type(inner).__mro__:
            if _is_recurrent(cls.__module__, cls.__name__):
                # Taken from the module, as parametrisations show their results there only.
                names = [n for kinds in getattr(inner, "_all_weights", ()) for n in kinds]
                names = names or ["weight_ih", "weight_hh", "bias_ih", "bias_hh"]
                values = {n: getattr(inner, n) for n in names}
                tensors = {n: _described(n, v) for n, v in values.items() if v is not None}
                found[name] = _Found(tensors, vars(inner), cls.__name__)
                break
    return found


def _described(name: Any, value: Any) -> Tensor:
    """A tensor or array in memory."""
    shape = tuple(getattr(value, "shape", ()))

    def read() -> npt.NDArray[Any]:
        tensor = value
        if hasattr(tensor, "detach"):
            tensor = tensor.detach().cpu()
            if str(tensor.dtype) in ("torch.float16", "torch.bfloat16"):
                tensor = tensor.float()
        return to_numpy(str(name), tensor)

    return Tensor(shape, read)


# --- what it means --------------------------------------------------------------------------------


def _from_tensors(tensors: Mapping[str, Tensor]) -> Description:
    """Recognise the layer from the shapes of its parameters alone."""
    tensors = {name if "_l" in name else f"{name}_l0": tensor for name, tensor in tensors.items()}
    for name in ("weight_ih_l0", "weight_hh_l0"):
        if name not in tensors:
            raise ValueError(f"expected {name}, among {', '.join(tensors)}")
        if len(tensors[name].shape) != 2:
            raise ValueError(f"{name}: expected (rows, columns), got {tensors[name].shape}")
    rows, I = tensors["weight_ih_l0"].shape
    P = tensors["weight_hh_l0"].shape[1]
    H, proj_size = P, 0
    if "weight_hr_l0" in tensors:
        shape = tensors["weight_hr_l0"].shape
        if len(shape) != 2:
            raise ValueError(f"weight_hr_l0: expected (P, H), got {shape}")
        H, proj_size = shape[1], P
    cell = cell_of_rows(rows, H)
    if cell is None:
        raise ValueError(
            f"weight_ih_l0: expected 4H rows (LSTM), 3H (GRU) or H (RNN) with H = {H}, got {rows}"
        )
    if proj_size and cell != "LSTM":
        raise ValueError(
            f"weight_hr_l0: expected a projection in an LSTM only, got one in a {cell}"
        )
    layers = 1
    while f"weight_ih_l{layers}" in tensors:
        layers += 1
    options: dict[str, Any] = {"input_size": I, "hidden_size": H, "num_layers": layers}
    options["bias"] = any(name.startswith("bias") for name in tensors)
    options["bidirectional"] = "weight_ih_l0_reverse" in tensors
    if proj_size:
        options["proj_size"] = proj_size
    _check_shapes(tensors, len(GATES[cell]), options, P)
    params: dict[str, FloatArray] = {}
    for name, tensor in tensors.items():
        try:
            params[name] = _as_layers_dtype(tensor.read())
        except DAMAGE as error:
            raise ValueError(f"{name}: {error}") from error
    return Description(cell, options, params)


def _check_shapes(
    tensors: Mapping[str, Tensor], gates: int, options: Mapping[str, Any], P: int
) -> None:
    """Compare names and shapes with those of the layer, before anything of its size is made."""
    H = options["hidden_size"]
    directions = ("", "_reverse") if options["bidirectional"] else ("",)
    expected: dict[str, tuple[int, ...]] = {}
    for k in range(options["num_layers"]):
        I = options["input_size"] if k == 0 else P * len(directions)
        for direction in directions:
            cell = f"_l{k}{direction}"
            expected[f"weight_ih{cell}"] = (gates * H, I)
            expected[f"weight_hh{cell}"] = (gates * H, P)
            if options["bias"]:
                expected[f"bias_ih{cell}"] = expected[f"bias_hh{cell}"] = (gates * H,)
            if "proj_size" in options:
                expected[f"weight_hr{cell}"] = (P, H)
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if missing or unexpected:
        lists = [", ".join(names) or "none" for names in (missing, unexpected)]
        raise ValueError(f"missing: {lists[0]}; unexpected: {lists[1]}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {tensors[name].shape}")


def _as_layers_dtype(array: npt.NDArray[Any]) -> FloatArray:
    if array.dtype.kind != "f":
        raise ValueError(f"expected a tensor of floats, got one of {array.dtype}")
    return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32)


def _add_options(description: Description, given: Mapping[str, Any]) -> None:
    """The caller's word on what a state_dict does not say."""
    if description.cell == "RNN":
        if "nonlinearity" not in given:
            raise ValueError(
                "a state_dict does not say an RNN's nonlinearity: expected nonlinearity='tanh' or "
                "'relu', got None"
            )
        if given["nonlinearity"] not in ("tanh", "relu"):
            raise ValueError(
                f"nonlinearity: expected 'tanh' or 'relu', got {given['nonlinearity']!r}"
            )
    elif "nonlinearity" in given:
        raise ValueError(f"nonlinearity: expected None for a {description.cell}")
    description.options.update(given)


def _add_attributes(description: Description, found: _Found) -> None:
    """The module's word; where it says what its tensors say too, both must agree."""
    attributes = found.attributes or {}
    if description.cell != found.type.removesuffix("Cell"):
        raise ValueError(f"a {found.type} with the parameters of a {description.cell}")
    readers: dict[str, Callable[[str, Any], Any]] = {
        "batch_first": as_bool,
        "dropout": lambda name, value: as_real(name, value, 0.0, 1.0),
    }
    for name, read in readers.items():
        if name in attributes:
            try:
                description.options[name] = read(name, attributes[name])
            except TypeError as error:
                raise ValueError(str(error)) from error
    if description.cell == "RNN":
        nonlinearity = attributes.get("nonlinearity")
        if nonlinearity not in ("tanh", "relu"):  # before PyTorch 1.11
            nonlinearity = {"RNN_TANH": "tanh", "RNN_RELU": "relu"}.get(str(attributes.get("mode")))
        if nonlinearity is None:
            raise ValueError("nonlinearity: the module does not say it")
        description.options["nonlinearity"] = nonlinearity
