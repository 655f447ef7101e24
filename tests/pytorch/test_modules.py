"""What torch's modules are beside their calls: construction, names, text, copies, files, moves."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch import nn
from twins import CELLS, SEQUENCES, assert_alike, outcome, tensors, twins

KINDS = (*SEQUENCES, *CELLS)
of_kinds = pytest.mark.parametrize("kind", KINDS)


def options_of(kind: str) -> list[dict[str, Any]]:
    options: list[dict[str, Any]] = [{}, {"bias": False}, {"dtype": torch.float32}]
    if kind.startswith("RNN"):
        options.append({"nonlinearity": "relu"})
    if kind in SEQUENCES:
        options += [
            {"num_layers": 2, "dropout": 0.25},
            {"bidirectional": True, "batch_first": True},
            {"num_layers": 3, "bidirectional": True, "bias": False},
        ]
    if kind == "LSTM":
        options.append({"proj_size": 2, "num_layers": 2, "bidirectional": True})
    return options


CASES = [(kind, options) for kind in KINDS for options in options_of(kind)]
with_options = pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=[f"{k}-{i}" for i, (k, _) in enumerate(CASES)]
)


def example(module: Any) -> torch.Tensor:
    shape = (2, 3) if isinstance(module, nn.RNNCellBase) else (4, 2, 3)
    return torch.linspace(
        -1, 1, torch.Size(shape).numel(), dtype=next(module.parameters()).dtype
    ).view(shape)


def assert_computes_as(module: Any, other: Any) -> None:
    assert_alike(module(example(module)), other(example(module)))


@with_options
def test_a_module_is_torchs(kind: str, options: dict[str, Any]) -> None:
    ours, theirs = twins(kind, 3, 5, **options)
    assert isinstance(ours, getattr(nn, kind))
    assert repr(ours) == repr(theirs)
    assert ours.extra_repr() == theirs.extra_repr()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for (name, mine), (_, its) in zip(
        ours.named_parameters(), theirs.named_parameters(), strict=True
    ):
        assert torch.equal(mine, its), name  # of the same seed
        assert mine.dtype == its.dtype
    for name, value in vars(theirs).items():
        if not name.startswith("_"):
            assert getattr(ours, name) == value, name
    assert [list(vars(m)) for m in (ours,)] == [list(vars(theirs))]
    if kind in SEQUENCES:
        assert_alike(ours.all_weights, theirs.all_weights)
        assert ours._flat_weights_names == theirs._flat_weights_names
        ours.flatten_parameters()


@with_options
def test_state_dicts_go_both_ways(kind: str, options: dict[str, Any]) -> None:
    ours, theirs = twins(kind, 3, 5, **options)
    ours.reset_parameters()
    assert str(theirs.load_state_dict(ours.state_dict())) == "<All keys matched successfully>"
    assert_computes_as(ours.eval(), theirs.eval())
    theirs.reset_parameters()
    ours.load_state_dict(theirs.state_dict())
    assert_computes_as(ours, theirs)
    with pytest.raises(RuntimeError, match="Missing key"):
        ours.load_state_dict({})


@with_options
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(
    "how", ["copy", "deepcopy", "pickle", "torch.save", "deepcopy of a model", "twice"]
)
def test_copies(kind: str, options: dict[str, Any], used: bool, how: str) -> None:
    ours, theirs = twins(kind, 3, 5, **options)
    ours.eval(), theirs.eval()
    if used:
        ours(example(ours))

    def saved(module: Any) -> Any:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        return torch.load(file, weights_only=False)

    copied = {
        "copy": lambda: copy.copy(ours),
        "deepcopy": lambda: copy.deepcopy(ours),
        "pickle": lambda: pickle.loads(pickle.dumps(ours)),
        "torch.save": lambda: saved(ours),
        "deepcopy of a model": lambda: copy.deepcopy(nn.Sequential(ours))[0],
        "twice": lambda: copy.deepcopy(copy.deepcopy(ours)),
    }[how]()
    assert type(copied) is type(ours)
    assert repr(copied) == repr(ours)
    assert set(vars(copied)) - {"_core_engine"} == set(vars(ours)) - {"_core_engine"}
    assert_computes_as(copied, theirs)
    if how != "copy":  # which shares its parameters
        with torch.no_grad():
            for p in copied.parameters():
                p.mul_(2)
        assert_computes_as(ours, theirs)
    else:
        assert next(copied.parameters()) is next(ours.parameters())


def test_copies_of_parametrised_modules() -> None:
    ours, theirs = twins("LSTM", 3, 5)
    nn.utils.parametrizations.weight_norm(ours, "weight_hh_l0")
    with torch.no_grad():  # with gradients, nobody can copy torch's either
        ours(example(ours))
    copied = copy.deepcopy(ours)
    assert copied._core_engine is not ours._core_engine
    assert_computes_as(copied, theirs)


@of_kinds
def test_moves_between_types(kind: str) -> None:
    ours, theirs = twins(kind, 3, 5)
    for move in ("float", "double", "bfloat16", "float"):
        getattr(ours, move)(), getattr(theirs, move)()
        assert next(ours.parameters()).dtype == next(theirs.parameters()).dtype
        assert_computes_as(ours, theirs)
    for module in (ours, theirs):
        module.to("meta")
    x = example(ours).to("meta")
    assert_alike(ours(x), theirs(x))
    for module in (ours, theirs):
        module.to_empty(device="cpu")
        with torch.no_grad():
            for p in module.parameters():
                p.fill_(0.1)
    assert_computes_as(ours, theirs)


@of_kinds
def test_on_the_meta_device(kind: str) -> None:
    with torch.device("meta"):
        ours, theirs = getattr(fastlstm.torch, kind)(3, 5), getattr(nn, kind)(3, 5)
    assert all(p.is_meta for p in ours.parameters())
    assert_alike(ours(example(ours).to("meta")), theirs(example(theirs).to("meta")))


@of_kinds
def test_in_a_context_of_a_device(kind: str) -> None:
    ours, theirs = twins(kind, 3, 5)
    with torch.device("cpu"):
        assert_computes_as(ours, theirs)
    x = example(ours)
    with torch.device("meta"):  # what calls make is not what users make
        assert_alike(ours(x, state_of_zeros(kind)), theirs(x, state_of_zeros(kind)))


def state_of_zeros(kind: str) -> Any:
    shape = (2, 5) if kind in CELLS else (1, 2, 5)
    h = torch.zeros(shape, dtype=torch.float64, device="cpu")
    return (h, h) if kind.startswith("LSTM") else h


CONSTRUCTIONS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "positional": ((3, 5, 2, True, True, 0.0, True), {}),
    "no layers": ((3, 5, 0), {}),
    "no inputs": ((0, 5), {}),
    "no units": ((3, 0), {}),
    "negative": ((3, -5), {}),
    "a float": ((3, 5.0), {}),
    "input a float": ((3.0, 5), {}),
    "bias a number": ((3, 5), {"bias": 1}),
    "batch_first a number": ((3, 5), {"batch_first": 1}),
    "dropout above 1": ((3, 5), {"dropout": 1.5}),
    "dropout below 0": ((3, 5), {"dropout": -0.5}),
    "dropout a bool": ((3, 5), {"dropout": True}),
    "dropout text": ((3, 5), {"dropout": "0.5"}),
    "proj_size": ((3, 5), {"proj_size": 2}),
    "proj_size too large": ((3, 5), {"proj_size": 5}),
    "proj_size negative": ((3, 5), {"proj_size": -1}),
    "nonlinearity": ((3, 5), {"nonlinearity": "relu"}),
    "another nonlinearity": ((3, 5), {"nonlinearity": "sin"}),
    "unknown": ((3, 5), {"unknown": 1}),
    "nothing": ((), {}),
    "one size": ((3,), {}),
    "too many": ((3, 5, 1, True, False, 0.0, False, 0, None, None, 3, 4), {}),
    "float16": ((3, 5), {"dtype": torch.float16}),
    "complex": ((3, 5), {"dtype": torch.complex64}),
    "integers": ((3, 5), {"dtype": torch.int64}),
}


@of_kinds
@pytest.mark.parametrize("which", CONSTRUCTIONS)
def test_constructions_give_what_they_give_torchs(kind: str, which: str) -> None:
    args, kwargs = CONSTRUCTIONS[which]
    torch.manual_seed(0)
    expected = outcome(lambda: getattr(nn, kind)(*args, **kwargs))
    torch.manual_seed(0)
    got = outcome(lambda: getattr(fastlstm.torch, kind)(*args, **kwargs))
    assert got[0] == expected[0], (got, expected)
    if expected[0] == "value":
        assert repr(got[1]) == repr(expected[1])
        for mine, its in zip(got[1].parameters(), expected[1].parameters(), strict=True):
            assert torch.equal(mine, its)
    else:
        assert got[1] == expected[1]


def test_dropout_of_one_layer_warns_as_torchs() -> None:
    for module in (fastlstm.torch, nn):
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
            module.GRU(3, 5, dropout=0.5)


@of_kinds
def test_a_module_in_a_model(kind: str) -> None:
    class Model(nn.Module):
        def __init__(self, kinds: Any) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.ModuleList([getattr(kinds, kind)(3, 3), getattr(kinds, kind)(3, 3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = tensors(layer(x))[0]
            return x

    ours, theirs = Model(fastlstm.torch), Model(nn)
    assert repr(ours) == repr(theirs)
    for model in (ours, theirs):
        assert set(model.layers[0]._parameters) <= {
            name.split(".")[-1] for name in model.state_dict()
        }
    x = torch.randn((2, 3) if kind in CELLS else (4, 2, 3))
    assert_alike(ours(x), theirs(x))


@of_kinds
def test_users_may_subclass(kind: str) -> None:
    class Mine(getattr(fastlstm.torch, kind)):  # type: ignore[misc]
        def __init__(self, size: int) -> None:
            super().__init__(size, size + 2)

        def forward(self, input: Any, hx: Any = None) -> Any:
            return super().forward(input * 2, hx)

    torch.manual_seed(0)
    mine = Mine(3)
    torch.manual_seed(0)
    theirs = getattr(nn, kind)(3, 5)
    assert_alike(mine(example(mine)), theirs(example(mine) * 2))
    assert repr(mine).startswith("Mine(3, 5")


@of_kinds
def test_initial_values_are_in_torchs_bounds(kind: str) -> None:
    module = getattr(fastlstm.torch, kind)(30, 64)
    for p in module.parameters():
        assert 0.9 / 8 < float(p.detach().abs().max()) <= 1 / 8


@of_kinds
def test_no_warning(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = getattr(fastlstm.torch, kind)(3, 5)
        sum(t.sum() for t in tensors(ours(example(ours)))).backward()
        ours.state_dict()


@of_kinds
def test_a_state_goes_from_call_to_call(kind: str) -> None:
    ours, theirs = twins(kind, 3, 5)
    got = []
    for module in (ours, theirs):
        state, results = None, []
        for step in range(4):
            torch.manual_seed(step)
            x = torch.randn((2, 3) if kind in CELLS else (2, 2, 3), dtype=torch.float64)
            result = module(x, state)
            state = result if kind in CELLS else result[1]
            results += tensors(result)
        sum(t.sin().sum() for t in results).backward()
        got.append([*results, *(p.grad for p in module.parameters())])
    assert_alike(*got)
