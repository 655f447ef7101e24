"""What is handed out read-only cannot be made writable."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.embeddings import Embeddings, load
from support import assert_same_bits

COPIES: dict[str, Callable[[Any], Any]] = {
    "itself": lambda thing: thing,
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda thing, protocol=protocol: pickle.loads(
            pickle.dumps(thing, protocol)
        )
        for protocol in (2, pickle.HIGHEST_PROTOCOL)
    },
}


def ways_in(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array, what Python finds behind it, and views."""
    yield array
    yield array[...]
    yield array.view(np.uint8)
    yield array.T
    yield np.asarray(array)
    while isinstance(array.base, np.ndarray):
        array = array.base
        yield array


def assert_closed(array: np.ndarray) -> None:
    kept = array.copy()
    for way in ways_in(array):
        assert not way.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            way.setflags(write=True)
        with pytest.raises(ValueError, match="read-only"):
            way[...] = 1
        assert memoryview(way).readonly
    assert_same_bits(array, kept)


@pytest.mark.parametrize("copier", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("cls", [fastlstm.LSTM, fastlstm.GRU, fastlstm.RNN])
def test_parameters(cls: Any, copier: Callable[[Any], Any]) -> None:
    layer = copier(cls(3, 4, num_layers=2, seed=0))
    for w in layer.params.values():
        assert_closed(w)


def test_parameters_that_are_new(tmp_path: Path) -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    values = layer.state_dict()
    layer.update({"bias_ih_l0": values["bias_ih_l0"]})
    assert_closed(layer.params["bias_ih_l0"])
    layer.load_state_dict(values)
    layer.save(tmp_path / "l")
    for loaded in (layer, fastlstm.load(tmp_path / "l")):
        for w in loaded.params.values():
            assert_closed(w)
    # What was given stays the caller's, and apart.
    assert all(w.flags.writeable for w in values.values())
    values["bias_ih_l0"][...] = 7
    assert not np.any(layer.params["bias_ih_l0"] == 7)


def test_parameters_outlive_their_layer() -> None:
    params = fastlstm.LSTM(3, 4, seed=0).params
    w = params["weight_ih_l0"]
    del params
    assert_same_bits(w, fastlstm.LSTM(3, 4, seed=0).params["weight_ih_l0"])


@pytest.mark.parametrize("copier", COPIES.values(), ids=COPIES.keys())
@pytest.mark.parametrize("where", ["memory", "file"])
def test_vectors(where: str, copier: Callable[[Any], Any], tmp_path: Path) -> None:
    embeddings = Embeddings(["yes", "no"], [[1, 2, 3], [4, 5, 6]])
    if where == "file":
        embeddings.save(tmp_path / "e")
        embeddings = load(tmp_path / "e")
    made = copier(embeddings)
    assert_closed(made.vectors)
    assert_closed(made["no"])


def test_vectors_of_a_text(tmp_path: Path) -> None:
    (tmp_path / "e.txt").write_text("yes 1 2 3\nno 4 5 6\n")
    assert_closed(load(tmp_path / "e.txt").vectors)
