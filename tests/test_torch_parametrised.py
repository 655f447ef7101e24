"""Parameters that PyTorch computes from others: weight norm, spectral norm, pruning; stale copies.

Folded from a state_dict and from files; of a module what it would compute at its next call, also
where its attribute is still what the last call left.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from foreign import assert_computes_as

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

prune_of_torch = pytest.importorskip("torch.nn.utils.prune")

utils = torch.nn.utils
Module = Any


def make(kind: str = "LSTM", **options: Any) -> Module:
    torch.manual_seed(0)
    return getattr(torch.nn, kind)(3, 5, **options)


def weight_norm(module: Module, *names: str, dim: int | None = 0) -> Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        for name in names:
            utils.weight_norm(module, name, dim)
    return module


def new_weight_norm(module: Module, *names: str, dim: int | None = 0) -> Module:
    for name in names:
        utils.parametrizations.weight_norm(module, name, dim)
    return module


def spectral_norm(module: Module, *names: str, dim: int = 0) -> Module:
    for name in names:
        utils.spectral_norm(module, name, dim=dim)
    module(torch.zeros(1, 1, 3))  # an iteration
    return module


def new_spectral_norm(module: Module, *names: str, dim: int = 0) -> Module:
    for name in names:
        utils.parametrizations.spectral_norm(module, name, dim=dim)
    return module


def prune(module: Module, *names: str) -> Module:
    for name in names:
        prune_of_torch.random_unstructured(module, name, amount=0.3)
    return module


ALL = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
BY_HOOKS: dict[str, Callable[[], Module]] = {
    "weight norm": lambda: weight_norm(make(), "weight_hh_l0"),
    "of all parameters": lambda: weight_norm(make(), *ALL),
    "of columns": lambda: weight_norm(make(), *ALL[:2], dim=1),
    "of the whole": lambda: weight_norm(make(), *ALL, dim=None),
    "without biases": lambda: weight_norm(make(bias=False), *ALL[:2]),
    "of a stack": lambda: weight_norm(
        make(num_layers=2, bidirectional=True), "weight_hh_l1_reverse", "weight_ih_l1"
    ),
    "of one unit": lambda: weight_norm(torch.nn.RNN(3, 1), *ALL),
    "of a cell": lambda: weight_norm(make("GRUCell"), "weight_ih", "weight_hh"),
    "in float64": lambda: weight_norm(make("GRU", dtype=torch.float64), "weight_ih_l0"),
    "spectral norm": lambda: spectral_norm(make(), "weight_hh_l0"),
    "spectral norm of columns": lambda: spectral_norm(make(), "weight_ih_l0", dim=1),
    "spectral norm, square": lambda: spectral_norm(make("RNN"), "weight_hh_l0"),
    "pruning": lambda: prune(make(), "weight_hh_l0", "bias_ih_l0"),
    "pruning again": lambda: prune(make(), "weight_hh_l0", "weight_hh_l0"),
    "two of them": lambda: prune(weight_norm(make(), "weight_hh_l0"), "weight_ih_l0"),
}
WHEN_ASKED: dict[str, Callable[[], Module]] = {
    "new weight norm": lambda: new_weight_norm(make(), "weight_hh_l0"),
    "new weight norm, all": lambda: new_weight_norm(make(bias=False), *ALL[:2]),
    "new weight norm of columns": lambda: new_weight_norm(make(), *ALL[:2], dim=1),
    "new weight norm of the whole": lambda: new_weight_norm(make(), *ALL[:2], dim=None),
    "new spectral norm": lambda: new_spectral_norm(make(), *ALL[:2]),
    "new spectral norm of columns": lambda: new_spectral_norm(make(), "weight_hh_l0", dim=1),
    "new spectral norm, square": lambda: new_spectral_norm(make("RNN"), "weight_hh_l0"),
}
CASES = BY_HOOKS | WHEN_ASKED


def nonlinearity(module: Module) -> dict[str, str]:
    return {"nonlinearity": "tanh"} if isinstance(module, torch.nn.RNN) else {}


@pytest.mark.parametrize("case", CASES)
def test_state_dicts(case: str, tmp_path: Path) -> None:
    module = CASES[case]()
    state_dict = {f"a.rnn.{n}": t.clone() for n, t in module.state_dict().items()}
    torch.save(state_dict, tmp_path / "m.pt")
    safetensors_torch.save_file(state_dict, tmp_path / "m.safetensors")
    arrays = {name: tensor.numpy() for name, tensor in state_dict.items()}
    files = (tmp_path / "m.pt", tmp_path / "m.safetensors")
    for source in (state_dict, arrays, {"model": module.state_dict()}, *files):
        assert_computes_as(fastlstm.from_torch(source, **nonlinearity(module)), module)


@pytest.mark.parametrize("case", CASES)
def test_modules(case: str) -> None:
    module = CASES[case]().train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    layer = fastlstm.from_torch(torch.nn.Sequential(module))
    assert all(torch.equal(module.state_dict()[name], t) for name, t in before.items())
    assert all(part.training for part in module.modules())
    assert_computes_as(layer, module)


@pytest.mark.parametrize("case", BY_HOOKS)
def test_modules_whose_attributes_are_stale(case: str, tmp_path: Path) -> None:
    """As after load_state_dict, or a step of an optimiser, and before the next call."""
    module = BY_HOOKS[case]()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn_like(parameter)
    torch.save(module, tmp_path / "m.pt")
    layers = [fastlstm.from_torch(source) for source in (module, tmp_path / "m.pt")]
    for layer in layers:
        assert_computes_as(layer, module)


def test_any_parametrisation_of_a_module_in_memory() -> None:
    class Doubled(torch.nn.Module):
        def forward(self, weight: Any) -> Any:
            return 2 * weight

    module = new_weight_norm(make(), "weight_ih_l0")
    utils.parametrize.register_parametrization(module, "weight_ih_l0", Doubled())
    utils.parametrizations.orthogonal(module, "weight_hh_l0")
    assert_computes_as(fastlstm.from_torch(module), module)


def orthogonal() -> dict[str, Any]:
    module = make()
    utils.parametrizations.orthogonal(module, "weight_hh_l0")
    return dict(module.state_dict())


def custom() -> dict[str, Any]:
    module = make()
    utils.parametrize.register_parametrization(module, "weight_hh_l0", torch.nn.Identity())
    return dict(module.state_dict())


def two_in_a_row() -> dict[str, Any]:
    module = new_spectral_norm(make(), "weight_hh_l0")
    utils.parametrizations.spectral_norm(module, "weight_hh_l0")
    return dict(module.state_dict())


def with_copy(suffix: str, *, alone: bool) -> dict[str, Any]:
    """A weight and another of nearly its name, or that in its place."""
    tensors = dict(make().state_dict())
    copy = tensors.pop("weight_hh_l0") if alone else tensors["weight_hh_l0"].clone()
    return {**tensors, f"weight_hh_l0{suffix}": copy}


COPIES = ["_raw", "_orig", "_mask", "_g", "_v", "_u", "_mu", "_scale", "_quantised", ".lora_A"]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("suffix", COPIES)
def test_which_of_two_copies_counts_is_not_guessed(suffix: str, alone: bool) -> None:
    with pytest.raises(ValueError, match=f"got (.*, )?weight_hh_l0{suffix}"):
        fastlstm.from_torch(with_copy(suffix, alone=alone))


@pytest.mark.parametrize("make_tensors", [orthogonal, custom, two_in_a_row])
def test_parametrisations_that_a_state_dict_does_not_say(make_tensors: Any) -> None:
    with pytest.raises(ValueError, match=r"got parametrizations\.weight_hh_l0\.original"):
        fastlstm.from_torch(make_tensors())


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"_g": (5, 20)}, r"lengths of weight norm for \(20, 5\), got \(5, 20\)"),
        ({"_g": (20,)}, r"lengths of weight norm for \(20, 5\), got \(20,\)"),
        ({"_g": (20, 5)}, r"lengths of weight norm for \(20, 5\), got \(20, 5\)"),
        ({"_orig": (20, 5), "_mask": (5,)}, r"expected a mask \(20, 5\), got \(5,\)"),
        ({"_orig": (20, 5), "_u": (5,), "_v": (5,)}, "vectors of spectral norm for"),
    ],
)
def test_parts_that_do_not_fit(parts: dict[str, Any], message: str) -> None:
    tensors = dict(make().state_dict())
    shapes = {"_v": (20, 5), **parts} if "_g" in parts else parts
    del tensors["weight_hh_l0"]
    tensors |= {f"weight_hh_l0{suffix}": torch.ones(shape) for suffix, shape in shapes.items()}
    with pytest.raises(ValueError, match=message):
        fastlstm.from_torch(tensors)


def test_the_axis_of_a_square_matrix_must_be_clear() -> None:
    module = make("RNN")
    utils.parametrizations.spectral_norm(module, "weight_hh_l0", dim=1)
    with pytest.raises(ValueError, match="do not say which axis"):
        fastlstm.from_torch(module.state_dict(), nonlinearity="tanh")
    assert_computes_as(fastlstm.from_torch(module), module)  # it is asked itself


class WeightDrop(torch.nn.Module):
    """AWD-LSTM's scheme: the inner weight is what dropout left of the raw one in the last batch."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.weight_hh_l0_raw = torch.nn.Parameter(module.weight_hh_l0.detach().clone())

    def forward(self, x: Any) -> Any:
        weight = torch.nn.functional.dropout(self.weight_hh_l0_raw, 0.5, self.training)
        self.module.weight_hh_l0 = torch.nn.Parameter(weight.detach())
        return self.module(x)


def test_weights_that_dropout_left_are_refused(tmp_path: Path) -> None:
    model = torch.nn.Sequential(WeightDrop(make()))
    model(torch.zeros(1, 1, 3))
    torch.save(model.state_dict(), tmp_path / "state_dict")
    torch.save(model, tmp_path / "module")
    for source in (model, model.state_dict(), tmp_path / "state_dict", tmp_path / "module"):
        with pytest.raises(ValueError, match=r"got 0\.weight_hh_l0_raw around it"):
            fastlstm.from_torch(source)


def test_a_weight_that_is_an_attribute() -> None:
    module = make()
    weight = torch.randn(20, 5)
    del module.weight_hh_l0
    module.weight_hh_l0 = weight
    assert_computes_as(fastlstm.from_torch(module), module)
    module.register_parameter("weight_hh_l0_raw", torch.nn.Parameter(weight * 2))
    with pytest.raises(ValueError, match="got weight_hh_l0_raw, weight_hh_l0: which"):
        fastlstm.from_torch(module)


def test_parts_without_the_hook_that_computes() -> None:
    module = weight_norm(make(), "weight_hh_l0")
    module._forward_pre_hooks.clear()
    with pytest.raises(ValueError, match="got weight_hh_l0_g, weight_hh_l0_v, weight_hh_l0"):
        fastlstm.from_torch(module)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_widened_before(half: Any, tmp_path: Path) -> None:
    module = prune(weight_norm(make(), "weight_hh_l0"), "weight_ih_l0")
    halves = {name: tensor.to(half) for name, tensor in module.state_dict().items()}
    torch.save(halves, tmp_path / "m.pt")
    module.load_state_dict({name: tensor.float() for name, tensor in halves.items()})
    for source in (halves, tmp_path / "m.pt"):
        assert_computes_as(fastlstm.from_torch(source), module)


def test_parts_are_floats() -> None:
    tensors = dict(prune(make(), "weight_hh_l0").state_dict())
    for part in ("weight_hh_l0_orig", "weight_hh_l0_mask"):
        with pytest.raises(ValueError, match=r"weight_hh_l0: .*floats, got one of int32"):
            fastlstm.from_torch({**tensors, part: tensors[part].int()})


def test_norms_of_zeros_are_what_pytorch_makes_of_them() -> None:
    tensors = dict(weight_norm(make(), "weight_hh_l0").state_dict())
    tensors["weight_hh_l0_v"] = torch.zeros(20, 5)
    assert np.isnan(fastlstm.from_torch(tensors).params["weight_hh_l0"]).all()
