"""The search of containers and objects for what has a name."""

from __future__ import annotations

import argparse
import collections
import dataclasses
import types
from typing import Any, NamedTuple

import pytest
from fastlstm.interchange._torch.walk import contents_of, find


class Leaf:
    """What is looked for."""


LEAF = Leaf()


def names(root: Any) -> list[str]:
    def contents(thing: Any) -> Any:
        return None if isinstance(thing, Leaf) else contents_of(thing)

    return [*find(root, contents, lambda thing: isinstance(thing, Leaf))]


class Slots:
    __slots__ = ("model",)

    def __init__(self) -> None:
        self.model = LEAF


class Mangled:
    def __init__(self) -> None:
        self.__model = LEAF


class SlotsAndMore(Slots):
    def __init__(self) -> None:
        super().__init__()
        self.other = LEAF


class Dict(dict[str, Any]):
    pass


class Pair(NamedTuple):
    model: Leaf
    epoch: int


@dataclasses.dataclass
class Data:
    model: Leaf


def dict_that_is_its_attributes() -> Dict:
    value = Dict(model=LEAF)
    value.__dict__ = value
    return value


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (LEAF, [""]),
        ([LEAF, (LEAF, {"a": LEAF})], ["0", "1.0", "1.1.a"]),
        ({"a": {"b": {"c": LEAF}}, "d": LEAF}, ["a.b.c", "d"]),
        (collections.OrderedDict(a=LEAF), ["a"]),
        (collections.defaultdict(dict, a=LEAF), ["a"]),
        (collections.deque([LEAF]), ["0"]),
        (types.MappingProxyType({"a": LEAF}), ["a"]),
        (Dict(a=LEAF), ["a"]),
        (dict_that_is_its_attributes(), ["model"]),
        (Mangled(), ["_Mangled__model"]),
        (argparse.Namespace(a=LEAF), ["a"]),
        (types.SimpleNamespace(a=[LEAF]), ["a.0"]),
        (Data(LEAF), ["model"]),
        (Pair(LEAF, 3), ["0"]),
        (Slots(), ["model"]),
        (SlotsAndMore(), ["other", "model"]),
        ({1: LEAF, 2.5: LEAF, None: LEAF, False: LEAF}, ["1", "2.5", "None", "False"]),
        ({("a", 1): LEAF, (): LEAF, object(): LEAF}, ["(a, 1)", "()", "<2>"]),
        ({"a" * 300: LEAF, "": LEAF, 10**400: LEAF}, ["<0>", "<1>", "<2>"]),
        ([Leaf, types, print, "text", 3], []),
        ({}, []),
    ],
)
def test_names(root: Any, expected: list[str]) -> None:
    assert names(root) == expected


def test_shared_things_are_visited_once_and_leaves_have_all_their_names() -> None:
    shared = {"a": LEAF}
    assert names([shared, shared]) == ["0.a"]
    assert names([LEAF, LEAF]) == ["0", "1"]
    nested: Any = [LEAF]
    for _ in range(100):
        nested = [nested, nested]
    assert names(nested) == [".".join(["0"] * 101)]


def test_things_in_themselves() -> None:
    root: dict[str, Any] = {"model": LEAF}
    root["self"] = [root, root]
    root["list"] = root["self"]
    assert names(root) == ["model"]


def test_two_things_of_one_name_are_refused() -> None:
    assert names({1: LEAF, "1": LEAF}) == ["1"]
    with pytest.raises(ValueError, match="two things are called a"):
        names({"a": {1: LEAF, "1": Leaf()}})


def test_depth_and_leaves_are_no_hindrance() -> None:
    deep: Any = {"end": 1}
    for _ in range(19_000):
        deep = {"a": deep}
    words = {f"w{n}": n for n in range(300_000)}
    assert names({"deep": deep, "words": words, "back": words, "model": LEAF}) == ["model"]
    for end, levels in ((LEAF, 300), (1, 30_000)):
        deep = [end]
        for _ in range(levels):
            deep = [deep]
        with pytest.raises(ValueError, match="nested too deeply"):
            names(deep)
