"""Layers from PyTorch: modules, state_dicts, and files of either. PyTorch is never imported."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from fastlstm._checks import FloatArray, as_bool, as_real
from fastlstm.layers import LAYERS, make_spec, table_of

from ._description import Description, build, set_activations
from ._gates import GATES, cell_of_rows
from ._tensors import DAMAGE, Tensor
from ._torch.contents import (
    Contents,
    choose_layer,
    contents_of_source,
    facts_about,
    names_in,
    packed_in,
    parameters_in,
)
from ._torch.modules import ModuleFacts

T = TypeVar("T")


def from_torch(
    source: Any,
    prefix: str | None = None,
    *,
    batch_first: bool | None = None,
    dropout: float | None = None,
    nonlinearity: str | None = None,
    bidirectional: bool | None = None,
    activations: str | None = None,
) -> Any:
    """Make a layer from a recurrent layer of PyTorch, with the same results.

    Parameters
    ----------
    source : Module, mapping of str to tensor or array, other object, or path-like
        An LSTM, GRU, RNN, LSTMCell, GRUCell or RNNCell of torch.nn, or of fastlstm.torch, whose
        options become the layer's, an LSTM or GRU of torch.ao.nn.quantized.dynamic, or a module
        that contains some; a state_dict; a container or
        object that holds one of these, as a checkpoint; or a file of them: of ``torch.save`` (its
        zip format or the one before) or a safetensors file. Reading a file runs no code of it, and
        does not need PyTorch.
    prefix : str, optional
        Which layer, as its parameters' names begin: "encoder.rnn". May be left out where there is
        only one.
    batch_first, dropout, nonlinearity, bidirectional : optional
        As of torch.nn.LSTM and RNN: what a state_dict does not say. ``nonlinearity`` must be given
        for the state_dict of an RNN, and ``bidirectional`` for a quantised one of two layers or
        directions that read as many values as they have units. A module says it all.
    activations : {"float32", "int8"}, optional
        Of a layer that is quantised to qint8: what its matrices multiply, as of
        :meth:`LSTM.quantize`. By default float32, which is more exact than PyTorch's 8 bits.

    Returns
    -------
    LSTM, GRU or RNN
        In float64 if the parameters are, in float32 otherwise: half precision converts exactly. A
        cell becomes a layer, whose :meth:`stream` takes single steps. A dynamically quantised LSTM
        or GRU becomes a quantized layer with the same numbers and scales (docs/low_precision.md).

    Raises
    ------
    ValueError
        The layer cannot be represented, the file is damaged, or there is not exactly one such
        layer; the message names them all. Or there is more in the layer, or in its class, than
        is understood: it is named, too.
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
    return build(
        describe(source, prefix, batch_first, dropout, nonlinearity, bidirectional, activations)
    )


def describe(
    source: Any,
    prefix: str | None = None,
    batch_first: bool | None = None,
    dropout: float | None = None,
    nonlinearity: str | None = None,
    bidirectional: bool | None = None,
    activations: str | None = None,
) -> Description:
    """Do all of :func:`from_torch` but make the layer."""
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix: expected text, got {type(prefix).__name__}")
    contents = contents_of_source(source)
    name = choose_layer(contents, prefix)
    said = {
        "batch_first": None if batch_first is None else as_bool("batch_first", batch_first),
        "dropout": None if dropout is None else as_real("dropout", dropout, 0.0, 1.0),
        "nonlinearity": nonlinearity,
    }
    if bidirectional is not None:
        bidirectional = as_bool("bidirectional", bidirectional)
    given = {option: value for option, value in said.items() if value is not None}
    try:
        facts = facts_about(contents, name)
        if facts is not None and facts.ours:
            description = _from_ours(contents, name, facts, given)
        else:
            computed = None if facts is None else facts.computed
            both = None if facts is None else facts.attributes.get("bidirectional")
            packed = packed_in(contents, name, bidirectional if both is None else both is True)
            tensors = packed or parameters_in(contents, name, computed)
            description = _from_tensors(tensors, small=packed is not None)
            if facts is not None:
                given = {**_said_by(facts, description, given), **given}
            _add_options(description, given)
        found = description.options.get("bidirectional", False)
        if bidirectional not in (None, found):
            raise ValueError(f"bidirectional: expected {found}, as its parameters")
        set_activations(description, activations)
    except ValueError as error:
        at = f"{contents.where}: {name}" if name else contents.where
        raise ValueError(f"{at}: {error}") from error
    return description


def _from_tensors(tensors: Mapping[str, Tensor], *, small: bool) -> Description:
    """Recognise the layer from the shapes of its parameters alone.

    Those that are quantised stay so in a layer that is `small`; elsewhere they are refused.
    """
    both = [name for name in tensors if f"{name}_l0" in tensors]
    if both:
        raise ValueError(f"expected the parameters of one layer, got {both[0]} and {both[0]}_l0")
    tensors = _named_as_in_layers(tensors)
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
    _check_shapes(tensors, _expected_shapes(len(GATES[cell]), options, P))
    int8 = {n: t.read_int8 for n, t in tensors.items() if small and t.read_int8 is not None}
    floats = [name for name in tensors if name.startswith("weight") and name not in int8]
    if int8 and floats:
        raise ValueError(f"expected all matrices in qint8, as {next(iter(int8))}, not {floats[0]}")
    params = _values_of({name: tensor for name, tensor in tensors.items() if name not in int8})
    return Description(
        cell, options, params, {name: _value_of(name, read) for name, read in int8.items()}
    )


def _from_ours(
    contents: Contents, layer: str, facts: ModuleFacts, given: Mapping[str, Any]
) -> Description:
    """A module of fastlstm.torch has all options of its layer as attributes of the same names."""
    if given:
        raise ValueError(f"{next(iter(given))}: expected None, as the module says what it is")
    cell = facts.cell.removesuffix("Cell")
    table = table_of(LAYERS[cell])
    options: dict[str, Any] = {}
    for name, option in table.options.items():
        if name == "dtype" or name not in facts.attributes:
            continue
        try:
            options[name] = option.check(name, facts.attributes[name])
        except TypeError as error:
            raise ValueError(str(error)) from error
    missing = [name for name in table.required if name not in options]
    if missing:
        raise ValueError(f"expected a {facts.cell}, got one without {', '.join(missing)}")
    names = names_in(layer, contents.tensors)
    if options.get("num_layers", 1) > len(names):  # before their names are made
        raise ValueError(f"num_layers: expected parameters of {options['num_layers']} layers")
    shapes = make_spec(LAYERS[cell], options).shapes
    also = {*shapes, *(name.removesuffix("_l0") for name in shapes)}
    tensors = _named_as_in_layers(parameters_in(contents, layer, facts.computed, also))
    _check_shapes(tensors, shapes)
    return Description(cell, options, _values_of({name: tensors[name] for name in shapes}))


def _named_as_in_layers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of a cell as those of a layer of one."""
    return {n if re.search(r"_l\d", n) else f"{n}_l0": tensor for n, tensor in tensors.items()}


def _values_of(tensors: Mapping[str, Tensor]) -> dict[str, FloatArray]:
    return {name: _value_of(name, tensor.read) for name, tensor in tensors.items()}


def _value_of(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except DAMAGE as error:
        raise ValueError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error


def _expected_shapes(gates: int, options: Mapping[str, Any], P: int) -> dict[str, tuple[int, ...]]:
    """Of all parameters of a layer of PyTorch's."""
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
    return expected


def _check_shapes(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes with those of the layer, before anything of its size is made."""
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if missing or unexpected:
        lists = [", ".join(names) or "none" for names in (missing, unexpected)]
        raise ValueError(f"missing: {lists[0]}; unexpected: {lists[1]}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise ValueError(f"{name}: expected {shape}, got {tensors[name].shape}")


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


def _said_by(
    facts: ModuleFacts, description: Description, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The module's word; where it says what its tensors say too, both must agree.

    What was traced says nothing.
    """
    if description.cell != facts.cell.removesuffix("Cell"):
        raise ValueError(f"a {facts.cell} with the parameters of a {description.cell}")
    readers: dict[str, Callable[[str, Any], Any]] = {
        "batch_first": as_bool,
        "dropout": lambda name, value: as_real(name, value, 0.0, 1.0),
    }
    sizes = {"proj_size": 0, **description.options}
    said: dict[str, Any] = {}
    for name in (*sizes, *readers, "nonlinearity", "mode"):
        value = facts.attributes.get(name)
        if value is None:
            continue
        if not isinstance(value, (bool, int, float, str, np.generic)):
            raise ValueError(f"{name}: expected a number or text, got {type(value).__name__}")
        if name in sizes and value != sizes[name]:
            raise ValueError(f"{name}: expected {sizes[name]}, as its parameters, got {value!r}")
        if name in readers:
            try:
                said[name] = readers[name](name, value)
            except TypeError as error:
                raise ValueError(str(error)) from error
        elif description.cell == "RNN" and name in ("nonlinearity", "mode"):
            # A layer computes by its mode, a cell by its nonlinearity.
            said["nonlinearity"] = str(value).removeprefix("RNN_").lower()
    for name in given:
        if name in said:
            raise ValueError(f"{name}: expected None, as the module says what it is")
    return said
