"""Where HDF5 files of Keras have the weights of recurrent layers, and their names there."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fastlstm.interchange._description import listed
from fastlstm.interchange._tensors import Tensor

from .hdf5 import Object
from .layers import Found, Weights

# Other groups that a layer's may have: they have the state of random numbers.
_RANDOM = ("seed_generator", "_random_generator")
# What the layers of a Bidirectional are called after.
_SIDES = ("forward_", "backward_")
# Of layers in `layers`, whose groups are called by their classes.
_CLASSES = ("lstm", "gru", "simple_rnn", "rnn", "bidirectional")


# --- .keras, .weights.h5: a group for each object -------------------------------------------------


def group_weights(group: Object) -> Weights:
    """The weights of a recurrent layer's group; all that there are below it.

    Raises
    ------
    ValueError
        There are others.
    """
    used = list(_used(group))
    paths = {dataset.path for dataset in used}
    for dataset in _datasets(group):
        if dataset.path not in paths:
            raise ValueError(f"{dataset.path}: weights that a plain layer has not")
    return [dataset.tensor() for dataset in used]


def _used(group: Object) -> Iterator[Object]:
    if "forward_layer" in group:
        for name in ("forward_layer", "backward_layer"):
            yield from _direction(group[name])
    else:
        yield from _direction(group)


def _direction(group: Object) -> Iterator[Object]:
    variables = group["cell/vars"] if "cell" in group else group["vars"]
    for k in range(len(variables)):
        yield variables[str(k)]


def _datasets(group: Object) -> Iterator[Object]:
    """All datasets below a group but the states of random numbers."""
    waiting = [group]
    while waiting:
        here = waiting.pop()
        if not here.is_group:
            yield here
        waiting += [here[name] for name in here if name not in _RANDOM]


# --- .h5 of Keras 2 and of `save` of Keras 3: a group for each outermost layer --------------------


@dataclass(frozen=True)
class Cell:
    """The weights of a cell in a group of an outermost layer."""

    scope: str
    """Their name without the last part."""
    group: Object
    names: Sequence[str]
    """Theirs, and the first that a plain layer has not of those beside them."""

    @functools.cached_property
    def parts(self) -> set[str]:
        """The parts of the scope, those of a Bidirectional also as the layer in it is called."""
        parts = self.scope.split("/")
        return {part.removeprefix(side) for part in parts for side in ("", *_SIDES)}

    def tensors(self) -> Weights:
        """Return them: kernel, recurrent_kernel and bias.

        Raises
        ------
        ValueError
            There are others.
        """
        expected = ["kernel", "recurrent_kernel", "bias"]
        leaves = [re.sub(r"(_\d+)?(:0)?$", "", name.rpartition("/")[2]) for name in self.names]
        if leaves != expected[: len(leaves)]:
            raise ValueError(
                f"{self.scope}: expected {', '.join(expected)}, got {listed(self.names)}"
            )
        return [self.group[name].tensor() for name in self.names]


def cells_in_order(group: Object) -> list[Cell]:
    """The recurrent cells whose weights an outermost layer's group has."""
    scopes: dict[str, list[str]] = {}
    names = group.texts("weight_names")
    for name in names:
        scopes.setdefault(name.rpartition("/")[0], []).append(name)
    cells = [
        Cell(scope, group, inside)
        for scope, inside in scopes.items()
        if any("recurrent_kernel" in name.rpartition("/")[2] for name in inside)
    ]
    others = sorted(_beside(names, cells))
    found = []
    for cell in cells:
        layer = f"{_layer_scope(cell.scope)}/"
        at = bisect.bisect_left(others, layer)
        beside = [name for name in others[at : at + 1] if name.startswith(layer)]
        found.append(Cell(cell.scope, group, [*cell.names, *beside]))
    return found


def _beside(names: Sequence[str], cells: Sequence[Cell]) -> list[str]:
    """Those of weights that are neither cells' nor the state of random numbers."""
    used = {name for cell in cells for name in cell.names}
    return [
        name
        for name in names
        if name not in used and not any(part in _RANDOM for part in name.split("/"))
    ]


def refuse_beside(group: Object, cells: Sequence[Cell], scope: str = "") -> None:
    """Raise ValueError where a group has more than cells' weights, in a scope if one is given."""
    for name in _beside(group.texts("weight_names"), cells):
        if not scope or name.startswith(f"{scope}/"):
            raise ValueError(f"{group.path}/{name}: weights that a plain layer has not")


def outer_scope(cell: Cell) -> str:
    """The scope of a cell's layer, or of the Bidirectional that is around that."""
    scope = _layer_scope(cell.scope)
    outer, _, last = scope.rpartition("/")
    return outer if outer and last.startswith(_SIDES) else scope


def _layer_scope(scope: str) -> str:
    """The scope of a cell's layer: it has that of the cell in it, or is the same."""
    parts = scope.split("/")
    if len(parts) > 1 and re.search(r"cell(_\d+)?$", parts[-1]):
        parts.pop()
    return "/".join(parts)


def all_weights(group: Object) -> Weights:
    """All weights of an outermost layer's group."""
    names = group.texts("weight_names")
    if len(names) > 6:
        raise ValueError(f"{group.path}: expected weights of one layer, got {len(names)}")
    return [group[name].tensor() for name in names]


# --- weights without a configuration --------------------------------------------------------------


def find_weights(root: Object) -> dict[str, Found]:
    """Find recurrent layers in a file that has weights only, by the names of these."""
    root = root.get("model_weights") or root
    found: dict[str, Found] = {}
    for outermost in root.texts("layer_names"):
        try:
            cells = cells_in_order(root[outermost])
            if any(outer_scope(cell).rpartition("/")[2] == outermost for cell in cells):
                refuse_beside(root[outermost], cells)  # the group is the layer's own
            layers = list(_layers_of(outermost, cells))
        except ValueError as error:  # which counts where it is the layer that is asked for
            found[outermost] = Found(functools.partial(_refuse, error))
            continue
        for name, cells in layers:
            if name in found:
                raise ValueError(f"{name!r}: expected one layer of this name, the file has two")
            found[name] = Found(functools.partial(_tensors, cells))
    return found or _find_groups(root)


def _layers_of(outermost: str, cells: Sequence[Cell]) -> Iterator[tuple[str, list[Cell]]]:
    """The layers whose cells an outermost layer's group has: both directions are one."""
    layers: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        parts = cell.scope.split("/")
        at = next((k for k, part in enumerate(parts) if part.startswith(_SIDES)), None)
        if at is None:
            layers.setdefault(cell.scope, {})[""] = [cell]
        else:  # called by what is before the direction
            side = next(side for side in _SIDES if parts[at].startswith(side))
            layers.setdefault("/".join(parts[:at]), {}).setdefault(side, []).append(cell)
    for name, sides in layers.items():
        if "" not in sides and [len(sides.get(side, ())) for side in _SIDES] != [1, 1]:
            raise ValueError(f"{outermost}/{name}: expected a forward and a backward layer")
        inside = [cell for side in ("", *_SIDES) for cell in sides.get(side, ())]
        yield outermost if len(layers) == 1 else f"{outermost}/{name}", inside


def _refuse(error: ValueError) -> Weights:
    raise error


def _tensors(cells: Sequence[Cell]) -> list[Tensor]:
    return [tensor for cell in cells for tensor in cell.tensors()]


def _find_groups(root: Object) -> dict[str, Found]:
    found: dict[str, Found] = {}
    waiting = [root]
    while waiting:
        group = waiting.pop()
        if not group.is_group:
            continue
        if _is_layer(group):
            said = _said(group)
            name = said if said and said not in found else group.path.lstrip("/")
            kind = _class_of_group(group.path)
            version = "3" if said else ""  # Keras 2 writes no such names
            weights = functools.partial(group_weights, group)
            found[name] = Found(weights, kind, {} if kind else None, version)
        else:
            waiting += reversed([group[name] for name in group])
    return found


def _said(group: Object) -> str:
    """The name that a layer's group says it has; "" where it does not, or no text."""
    try:
        return group["vars"].text("name") if "vars" in group else ""
    except ValueError:
        return ""


def _is_layer(group: Object) -> bool:
    if "forward_layer" in group and "backward_layer" in group:
        return True
    cell = group.get("cell")
    return cell is not None and "vars" in cell and len(cell["vars"]) > 0


def _class_of_group(path: str) -> str:
    """The class of a layer by its group, where that says it and it is none that is read."""
    container, _, key = path.rpartition("/")
    key = re.sub(r"_\d+$", "", key)
    named = container.endswith(("/layers", "/_layer_checkpoint_dependencies"))
    return key if named and key not in _CLASSES else ""
