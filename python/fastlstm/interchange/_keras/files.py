"""Files of Keras: what they consist of, and the recurrent layers of their models."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastlstm._files import map_file
from fastlstm._kinds import kind_of, what_it_is_instead
from fastlstm.interchange._description import listed
from fastlstm.interchange._tensors import DAMAGE

from .groups import (
    Cell,
    all_weights,
    cells_in_order,
    find_weights,
    group_weights,
    outer_scope,
    refuse_beside,
)
from .hdf5 import Object, open_hdf5
from .layers import RECURRENT, TRANSPARENT, Found, Weights, class_of, entry, wrapped

# JSON becomes up to 28 times as large in memory.
_MOST_JSON = 2 << 20
_MOST_DEPTH = 30
_MOST_NAMES = 4 << 20


@dataclass
class File:
    """An open file."""

    root: Object
    """Of its HDF5 part."""
    config: Mapping[str, Any] | None
    """Of the model, if it is there."""
    version: str
    """Keras'."""

    def find(self) -> dict[str, Found]:
        """Find the recurrent layers."""
        found = {} if self.config is None else _find_in_config(self.config, self.root, self.version)
        if not found:
            found = find_weights(self.root)
            for layer in found.values():
                layer.version = layer.version or self.version
        return found

    def names(self) -> list[str]:
        """What there is besides, for errors: the layers' classes, or names of groups."""
        if self.config is None:
            return [name for name in self.root if name != "top_level_model_weights"]
        return [class_of(layer) for layer in _layers(_Place(self.config).config)]


@contextlib.contextmanager
def open_file(path: str) -> Iterator[File]:
    """Open a file.

    Raises
    ------
    ValueError
        It is no file of Keras, or damaged: also where the block that reads it finds that out.
    """
    try:
        yield _open(path)
    except DAMAGE as error:
        raise ValueError(f"{path}: {error}") from error


def _open(path: str) -> File:
    if zipfile.is_zipfile(path):
        return _open_archive(path)
    with open(path, "rb") as file:
        head = file.read(512)
        data = map_file(file.fileno()) if head else b""
    root = open_hdf5(data)
    if root is None:
        instead = what_it_is_instead(head) or _another_format(head)
        raise ValueError(f"neither a .keras archive nor an HDF5 file: {instead}")
    text = root.text("model_config")
    config = _json(text, "model_config", len(data)) if text else None
    return File(root, config, root.text("keras_version"))


def _open_archive(path: str) -> File:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if "config.json" not in names:
            some = ", ".join(repr(name) for name in names[:5])
            raise ValueError(f"not a .keras archive: config.json is missing; it has {some}")
        if "model.weights.npz" in names and "model.weights.h5" not in names:
            raise ValueError("weights in .npz are not read: save them as .h5")
        size = os.path.getsize(path)
        config = _member(archive, "config.json", _most_json(size))
        metadata = _member(archive, "metadata.json", _most_json(size))
        weights = _member(archive, "model.weights.h5", 2 * size + _MOST_JSON)
    root = open_hdf5(weights)
    if root is None:
        raise ValueError("model.weights.h5: expected an HDF5 file")
    model = _json(config, "config.json", size)
    version = _json(metadata, "metadata.json", size).get("keras_version", "")
    return File(root, model, str(version))


def _member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Return a file of an archive, which Keras does not compress, but others may have."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ValueError(f"{name} is missing") from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed by another method than deflate")
    # Room is made for both before they are read.
    if max(info.file_size, info.compress_size) > most:
        raise ValueError(f"{name}: {info.file_size} bytes are too many for what the file has")
    return archive.read(info)


def _another_format(head: bytes) -> str:
    text = head.lstrip()
    if text.startswith((b"{", b"[")):
        return "JSON, which has no weights: pass the file that has them"
    return kind_of(head) or f"it begins with {head[:8]!r}"


def _json(text: str | bytes, what: str, size: int) -> Mapping[str, Any]:
    if len(text) > _most_json(size):
        raise ValueError(f"{what}: {len(text)} bytes are too many for a configuration")
    try:
        read = json.loads(text, parse_int=_integer)
    except RecursionError:
        raise ValueError(f"{what}: nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error
    if not isinstance(read, Mapping):
        raise ValueError(f"{what}: expected an object, got {type(read).__name__}")
    return read


def _most_json(size: int) -> int:
    return _MOST_JSON + size // 16


def _integer(text: str) -> int:
    if len(text) > 20:  # long ones take quadratic time
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


# --- the layers of a configuration ----------------------------------------------------------------


@dataclass(frozen=True)
class _Place:
    """A layer in a configuration, and where a file has its weights."""

    layer: Mapping[str, Any]
    names: tuple[str, ...] = ()
    """Its own, after those of all that is around it but the outermost model."""
    own: int = 0
    """How many of the last names are its own and its wrappers', and not models'."""
    groups: tuple[tuple[str, str], ...] = ()
    """The way to it in a .keras file: names of groups, and of the layers that they belong to."""
    trainable: bool = True
    around: str = ""
    """A wrapper that may change what the layer computes."""

    @property
    def config(self) -> Mapping[str, Any]:
        """What its class was made with."""
        found: Mapping[str, Any] = entry(self.layer, "config", Mapping)
        return found

    @property
    def own_names(self) -> set[str]:
        """Its own name, and those of its wrappers."""
        return set(self.names[-self.own :])

    def inner(self, layer: Any, own: int, group: tuple[str, ...], around: str = "") -> _Place:
        """A layer in this one."""
        config = entry(layer, "config", Mapping)
        name = config.get("name", layer.get("name", ""))
        if not isinstance(name, str):
            raise ValueError(f"the configuration: expected a name, got {type(name).__name__}")
        steps = (*((step, "") for step in group[:-1]), (group[-1], name))
        trainable = self.trainable and self.config.get("trainable") is not False
        place = (*self.names, name), own, (*self.groups, *steps)
        return _Place(layer, *place, trainable, self.around or around)

    def cells(self) -> list[bool]:
        """For each cell, which has weights of its own, whether these are trainable."""
        config, inner = self.config, [self.layer]
        if class_of(self.layer) == "Bidirectional":
            inner = [config["layer"], config.get("backward_layer") or config["layer"]]
        elif isinstance(cell := config.get("cell"), Mapping):
            cells = entry(cell, "config", Mapping).get("cells")
            inner = cells if isinstance(cells, list) else [cell]
        whole = self.trainable and config.get("trainable") is not False
        configs = [entry(layer, "config", Mapping) for layer in inner]
        return [whole and config.get("trainable") is not False for config in configs]


def _find_in_config(model: Mapping[str, Any], root: Object, version: str) -> dict[str, Found]:
    places = list(_places(model))
    found = {}
    for place in places:
        name = "/".join(place.names) or str(place.config.get("name", ""))
        if name in found:
            raise ValueError(f"{name!r}: expected one layer of this name, the model has two")
        kind = class_of(place.layer)
        kind = wrapped(place.around, kind) if place.around else kind
        weights = functools.partial(_weights_at, root, place, places)
        found[name] = Found(weights, kind, place.config, version)
    return found


def _places(model: Mapping[str, Any]) -> Iterator[_Place]:
    """The recurrent layers of a model, those in models and wrappers in it too, in Keras' order."""
    waiting = [_Place(model)]
    letters = 0
    while waiting:
        place = waiting.pop()
        letters += sum(map(len, place.names))
        if len(place.names) > _MOST_DEPTH or letters > _MOST_NAMES:
            raise ValueError("the configuration: too deep, or with names that are too long")
        kind, config = class_of(place.layer), place.config
        if kind in RECURRENT or "recurrent_initializer" in config or _is_layer(config.get("cell")):
            yield place
            continue
        layer = config.get("layer")
        if _is_layer(layer):
            around = "" if kind == TRANSPARENT else kind
            waiting.append(place.inner(layer, place.own + 1, ("layer",), around))
        inner, used = [], dict[str, int]()
        for layer in _layers(config):
            key = _snake_case(entry(layer, "class_name", str))
            used[key] = used.get(key, -1) + 1
            key = f"{key}_{used[key]}" if used[key] else key
            inner.append(place.inner(layer, 1, ("layers", key)))
        waiting += reversed(inner)


def _is_layer(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_name" in value


def _layers(config: Mapping[str, Any]) -> list[Any]:
    """The layers of a model; none where that word is something else to a model of its own class."""
    layers = config.get("layers")
    return layers if isinstance(layers, list) and all(map(_is_layer, layers)) else []


def _snake_case(name: str) -> str:
    """What a .keras file calls the first layer of a class."""
    name = re.sub(r"\W+", "", name.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


# --- their weights --------------------------------------------------------------------------------


def _weights_at(root: Object, place: _Place, places: Sequence[_Place]) -> Weights:
    """Return the weights of a layer."""
    if "model_weights" in root:  # saved as .h5: in groups of the outermost layers
        return _weights_beside(root["model_weights"], place, places)
    group = _group_at(root, place)
    if group is None:  # a layer that several models share is there once
        same = (_group_at(root, other) for other in places if _is_shared(other.layer, place.layer))
        there = [other for other in same if other is not None]
        if len(there) != 1:
            raise ValueError(f"expected its weights in one group, found {len(there)}")
        group = there[0]
    return group_weights(group)


def _is_shared(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether layers may be one: those after the first are the same, and say so."""
    keys = (one.keys() | other.keys()) - {"shared_object_id"}
    return all(one.get(key) == other.get(key) for key in keys)


def _group_at(root: Object, place: _Place) -> Object | None:
    """The group of a layer in a .keras file; None where there is none."""
    group = root
    for step, name in place.groups:
        if step == "layers" and step not in group:  # of Keras 2.12
            step = "_layer_checkpoint_dependencies"
        inner = group.get(step)
        if inner is None:
            return None
        group = inner
        said = group["vars"].text("name") if "vars" in group else ""
        if name and said and said != name:
            raise ValueError(f"{group.path}: expected weights of {name!r}, got {said!r}")
    return group


def _weights_beside(root: Object, place: _Place, places: Sequence[_Place]) -> Weights:
    """Return weights from the group that has all of an outermost layer, a model perhaps.

    Their names lack those of models between (Keras 2), or all but the last (Keras 3). Where they do
    not tell layers apart, the order does, by which Keras itself loads them.
    """
    group = root[place.names[0]]
    in_file = cells_in_order(group)
    beside = [other for other in places if other.names[0] == place.names[0]]
    if not in_file and len(beside) == 1:  # with names of its own
        return all_weights(group)
    named = [cell for cell in in_file if cell.parts & place.own_names]
    if len(beside) == 1:
        mine = in_file
    elif named and not any(
        cell.parts & other.own_names for other in beside if other is not place for cell in named
    ):
        mine = named
    else:
        mine = _in_order(in_file, place, beside)
        if any(cell not in named for cell in mine):
            raise ValueError(f"{mine[0].scope}: expected weights of {place.names[-1]!r}")
    if len(mine) != len(place.cells()):
        scopes = listed([cell.scope for cell in in_file]) or "none"
        raise ValueError(f"{group.path}: expected weights of the layer, got those of {scopes}")
    if len(place.names) == place.own:  # the group is the layer's own
        refuse_beside(group, mine)
    elif len(mine) == 2 and outer_scope(mine[0]).rpartition("/")[2] in place.own_names:
        refuse_beside(group, in_file, outer_scope(mine[0]))
    return [tensor for cell in _by_direction(mine, place) for tensor in cell.tensors()]


def _in_order(in_file: list[Cell], place: _Place, beside: list[_Place]) -> list[Cell]:
    """The cells of a layer by Keras' order: those that are trainable first, then the others."""
    wanted = [(other, trainable) for other in beside for trainable in other.cells()]
    wanted.sort(key=lambda cell: not cell[1])
    if len(in_file) != len(wanted):
        raise ValueError(
            f"expected weights of {len(wanted)} cells, got {len(in_file)} in "
            f"{listed([cell.scope for cell in in_file]) or 'none'}"
        )
    return [cell for (other, _), cell in zip(wanted, in_file, strict=True) if other is place]


def _by_direction(cells: list[Cell], place: _Place) -> list[Cell]:
    """Both directions, forward first: the other way round in the file if only one is trainable."""
    if len(cells) < 2:
        return cells
    layers = [place.config["layer"], place.config.get("backward_layer") or place.config["layer"]]
    names = [layer["config"].get("name") for layer in layers]
    sides = [
        [
            any(part.startswith(prefix) for part in cell.parts)
            or (names[0] != names[1] and name in cell.parts)
            for prefix, name in zip(("forward_", "backward_"), names, strict=True)
        ]
        for cell in cells
    ]
    if sides == [[False, True], [True, False]]:
        return cells[::-1]
    if sides != [[True, False], [False, True]]:
        raise ValueError(f"{cells[0].scope}: its name does not say of which direction it is")
    return cells
