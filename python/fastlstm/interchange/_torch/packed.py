"""The weights of PyTorch's dynamically quantised layers, which it packs away in other objects.

A layer has a list of modules, one for each layer and direction, and each of these an object that
Python knows the state of only: ``("quantized_dynamic", [...], [], [...], [W, R])``, where W and R
are such objects again, of the state ``(weight, bias)``. So the tensors get names of their own here,
``_all_weight_values.0.param.weight_ih``, and then those of the layer's parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fastlstm.interchange._description import listed
from fastlstm.interchange._tensors import Int8, Tensor, symmetric

# The attribute of the module that has the object, and what they are called in a layer.
PACKED = "param"
_IN_A_LAYER = re.compile(
    r"_all_weight_values(?:\.(?P<cell>\d{1,6})(?:\.param(?:\.(?P<name>\w+))?)?)?"
)
_WHOLE = re.compile(rf"(?:(?P<layer>.*)\.)?{_IN_A_LAYER.pattern}", re.DOTALL)
# The module had another name before PyTorch 1.13.
_MODULES = tuple(f"torch.{inner}nn.quantized.dynamic.modules.rnn" for inner in ("ao.", ""))
PER_TENSOR = ("per_tensor_affine", "per_tensor_symmetric")
_PER_ROW = ("per_channel_affine", "per_channel_symmetric")
_CLASSES = "__torch__.torch.classes"
_KINDS = ("quantized_dynamic", "quantized_fp16")


def is_quantised_class(module: str, name: str) -> bool:
    """Whether a class is that of a quantised layer."""
    return module in _MODULES and name in ("LSTM", "GRU")


def is_packed_class(module: str, name: str) -> bool:
    """Whether a class is that of the modules in its list."""
    return module in _MODULES and name == "PackedParameter"


def is_of_torch_script(thing: Any) -> bool:
    """Whether something in memory is an object of TorchScript's."""
    cls = type(thing)
    return cls.__name__ == "ScriptObject" and cls.__module__.partition(".")[0] == "torch"


def state_of(thing: Any) -> Any:
    """Return the state of such an object: as a file has it, or asked of it in memory."""
    if is_of_torch_script(thing):
        try:
            return thing.__getstate__()
        except RuntimeError:  # of a class that has none
            return None
    return getattr(thing, "state", None)


def packed_cell(state: Any) -> dict[str, Any] | None:
    """Return the tensors of one layer and direction by name; None: it is another thing's state."""
    match state:
        case ((str(kind), _, _, _, (W, R)), str(name)) if kind in _KINDS:
            if name != f"{_CLASSES}.rnn.CellParamsBase":
                return None
        case _:
            return None
    tensors = {}
    for end, linear in (("ih", W), ("hh", R)):
        match state_of(linear):
            case ((weight, bias), str(name)) if name.startswith(f"{_CLASSES}.quantized."):
                tensors[f"weight_{end}"] = weight
                if bias is not None:
                    tensors[f"bias_{end}"] = bias
            case _:
                return None
    return tensors


def packed_layer(name: str) -> str | None:
    """Return which layer a packed tensor is of; None: it is none."""
    match = _WHOLE.fullmatch(name)
    return (match["layer"] or "") if match and match["name"] else None


def holds_packed(names: Iterable[str]) -> bool:
    """Whether the tensors of a layer, by their names in it, are those of a quantised one."""
    return any(packed_layer(name) == "" for name in names)


def unpacked(
    tensors: Mapping[str, Tensor], modules: Iterable[str], bidirectional: bool | None
) -> dict[str, Tensor]:
    """Return the parameters of a quantised layer by PyTorch's names of those of others.

    Parameters
    ----------
    tensors : mapping
        All that are in the layer, by their names in it.
    modules : iterable of str
        Names of modules that are.
    bidirectional : bool, optional
        None: it is not known, and found from the shapes.

    Raises
    ------
    ValueError
        There is something else in the layer, or both are possible.
    """
    others = [name for name in (*tensors, *modules) if not _IN_A_LAYER.fullmatch(name)]
    if others:
        raise ValueError(
            f"expected the weights of a quantised layer alone, got {listed(others)}: whatever has "
            "the layer's prefix may change its results. Leave out what does not"
        )
    cells: dict[int, dict[str, Tensor]] = {}
    for full, tensor in tensors.items():
        match = _IN_A_LAYER.fullmatch(full)
        if match and match["name"]:
            cells.setdefault(int(match["cell"]), {})[match["name"]] = tensor
    if sorted(cells) != [*range(len(cells))]:
        got = listed([str(k) for k in sorted(cells)])
        raise ValueError(f"expected the weights of all layers, from 0 on, got those of {got}")
    D = 2 if _is_bidirectional(cells, bidirectional) else 1
    if len(cells) % D:
        raise ValueError(f"expected the weights of both directions, got {len(cells)} in all")
    return {
        f"{name}_l{k // D}{'_reverse' if k % D else ''}": tensor
        for k, cell in sorted(cells.items())
        for name, tensor in cell.items()
    }


def _is_bidirectional(cells: Mapping[int, Mapping[str, Tensor]], said: bool | None) -> bool:
    """The second layer of one direction reads H values, the second direction what the first does.

    Where both are the same, the third tells whether it reads both directions.
    """
    if said is not None or len(cells) < 2:
        return bool(said)
    shapes = [cells[k]["weight_ih"].shape for k in range(min(3, len(cells)))]
    H = cells[0]["weight_hh"].shape[-1]
    if shapes[0][-1] != H:
        return shapes[1] == shapes[0]
    if len(shapes) == 3:
        return shapes[2][-1] == 2 * H
    raise ValueError(
        "a state_dict does not say whether these are two layers or two directions: expected "
        "bidirectional=True or False, got None"
    )


def int8_of(numbers: Any, scheme: str, scales: Any, zeros: Any, axis: Any) -> Int8:
    """Return the whole numbers of a tensor, that have one scale or one for each row.

    Raises
    ------
    ValueError
        They are scaled in another way, or cannot be kept.
    """
    if scheme not in PER_TENSOR and not (scheme in _PER_ROW and axis == 0):
        raise ValueError(f"expected a scale for the tensor or for each row, got {scheme}")
    return symmetric(numbers, np.asarray(scales), np.asarray(zeros))
