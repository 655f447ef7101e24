"""Weights are never stale: every way of changing one, between two calls that pack them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")

import fastlstm.torch
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune
from twins import CELLS, SEQUENCES, assert_alike, outcome, tensors, twins

KINDS = (*SEQUENCES, *CELLS)


def hh(module: Any) -> str:
    return "weight_hh" if isinstance(module, nn.RNNCellBase) else "weight_hh_l0"


def weight(module: Any) -> torch.Tensor:
    tensor: torch.Tensor = getattr(module, hh(module))
    return tensor


def optimise(make: Callable[[Any], torch.optim.Optimizer]) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        make(module.parameters()).step()

    return change


def no_grad(change: Callable[[Any], Any]) -> Callable[[Any], None]:
    def changed(module: Any) -> None:
        with torch.no_grad():
            change(module)

    return changed


def half_the_values(module: Any) -> None:
    memory = weight(module).detach().numpy()
    memory[: len(memory) // 2] *= 1.5


def one_value(module: Any) -> None:
    memory = weight(module).detach().numpy()
    memory.flat[-1] += 1e-3


def two_values_change_places(module: Any) -> None:
    memory = weight(module).detach().numpy()
    memory[[0, 1]] = memory[[1, 0]]


def load_state_dict(assign: bool) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        state = {name: value * 1.5 for name, value in module.state_dict().items()}
        module.load_state_dict(state, assign=assign)

    return change


def set_parameter(module: Any) -> None:
    setattr(module, hh(module), nn.Parameter(weight(module).detach() * 1.5))


def set_data(module: Any) -> None:
    weight(module).data = weight(module).data * 1.5


def set_data_of_another_layout(module: Any) -> None:
    value = weight(module).data * 1.5
    weight(module).data = value.t().contiguous().t()
    assert not weight(module).is_contiguous()


def swap(module: Any) -> None:
    module._flat_weight_refs = []  # which torch's modules keep, and no tensor with those is swapped
    torch.utils.swap_tensors(weight(module), nn.Parameter(weight(module).detach() * 1.5))
    if isinstance(module, nn.RNNBase):
        module._init_flat_weights()


def move_with_swaps(module: Any) -> None:
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        module.float()
        module.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)


def average(module: Any) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5)
    )
    for p in module.parameters():
        p.data.mul_(2)
    averaged.update_parameters(module)
    averaged.update_parameters(module)
    for p, mean in zip(module.parameters(), averaged.module.parameters(), strict=True):
        p.data.copy_(mean.data)


def vector(module: Any) -> None:
    flat = nn.utils.parameters_to_vector(module.parameters()) * 1.5
    nn.utils.vector_to_parameters(flat, module.parameters())


def one_vector(module: Any) -> None:
    """All parameters as parts of one vector, as some optimisers have them."""
    flat = nn.utils.parameters_to_vector(module.parameters()).detach()
    nn.utils.vector_to_parameters(flat, module.parameters())
    flat.mul_(1.5)


def shared(module: Any) -> None:
    module.share_memory()
    weight(module).data.mul_(1.5)


class Doubled(nn.Module):
    def forward(self, value: torch.Tensor) -> torch.Tensor:
        return value * 1.5


def old_weight_norm(module: Any) -> None:
    nn.utils.weight_norm(module, hh(module))
    with torch.no_grad():
        getattr(module, hh(module) + "_g").mul_(1.5)


def new_weight_norm(module: Any) -> None:
    parametrizations.weight_norm(module, hh(module))
    with torch.no_grad():
        getattr(module.parametrizations, hh(module)).original0.mul_(1.5)


def remove_parametrisation(module: Any) -> None:
    parametrize.register_parametrization(module, hh(module), Doubled())
    module(*example(module))
    parametrize.remove_parametrizations(module, hh(module))


def prune_half(module: Any) -> None:
    prune.l1_unstructured(module, hh(module), amount=0.5)


def prune_for_good(module: Any) -> None:
    prune_half(module)
    module(*example(module))
    prune.remove(module, hh(module))


def tie(module: Any) -> None:
    other = copy.deepcopy(module)
    with torch.no_grad():
        weight(other).mul_(1.5)
    setattr(module, hh(module), weight(other))
    module(*example(module))
    with torch.no_grad():
        weight(other).mul_(1.5)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "mul_": no_grad(lambda m: weight(m).mul_(1.5)),
    "copy_": no_grad(lambda m: weight(m).copy_(weight(m) * 1.5)),
    "an element": no_grad(lambda m: weight(m)[0].zero_()),
    "data.mul_": lambda m: weight(m).data.mul_(1.5),
    "data.copy_": lambda m: weight(m).data.copy_(weight(m) * 1.5),
    "data[...] =": lambda m: weight(m).data.__setitem__(0, 0.0),
    "detach().mul_": lambda m: weight(m).detach().mul_(1.5),
    "view of data": lambda m: weight(m).data.view(-1)[3:].mul_(1.5),
    "NumPy": half_the_values,
    "NumPy, one value": one_value,
    "NumPy, two rows change places": two_values_change_places,
    "data =": set_data,
    "data = of another layout": set_data_of_another_layout,
    "set_": no_grad(lambda m: weight(m).set_((weight(m) * 1.5).detach())),
    "setattr": set_parameter,
    "register_parameter": lambda m: m.register_parameter(
        hh(m), nn.Parameter(weight(m).detach() * 1.5)
    ),
    "load_state_dict": load_state_dict(assign=False),
    "load_state_dict, assign": load_state_dict(assign=True),
    "reset_parameters": lambda m: m.reset_parameters(),
    "init": lambda m: nn.init.orthogonal_(weight(m)),
    "SGD": optimise(lambda p: torch.optim.SGD(p, 0.1, foreach=False)),
    "SGD, foreach": optimise(lambda p: torch.optim.SGD(p, 0.1, foreach=True)),
    "Adam": optimise(lambda p: torch.optim.Adam(p, 0.1, foreach=False)),
    "Adam, foreach": optimise(lambda p: torch.optim.Adam(p, 0.1, foreach=True)),
    "Adam, fused": optimise(lambda p: torch.optim.Adam(p, 0.1, fused=True)),
    "averages": average,
    "swap_tensors": swap,
    "conversions with swaps": move_with_swaps,
    "vector_to_parameters": vector,
    "one vector": one_vector,
    "share_memory": shared,
    "tied": tie,
    "parametrisation": lambda m: parametrize.register_parametrization(m, hh(m), Doubled()),
    "parametrisation, removed": remove_parametrisation,
    "weight_norm of old": old_weight_norm,
    "weight_norm": new_weight_norm,
    "spectral_norm": lambda m: parametrizations.spectral_norm(m, hh(m)),
    "orthogonal": lambda m: parametrizations.orthogonal(m, hh(m)),
    "prune": prune_half,
    "prune, for good": prune_for_good,
}
NOTHING = {"conversions with swaps"}


def example(module: Any) -> tuple[torch.Tensor, Any]:
    """An input and a state, which lets R have its say in the first step."""
    cell = isinstance(module, nn.RNNCellBase)
    x = torch.linspace(-1, 1, 24, dtype=torch.float64).view((8, 3) if cell else (4, 2, 3))
    h = torch.linspace(-2, 1, 40 if cell else 10, dtype=torch.float64).view(-1, 5)
    h = h if cell else h.view(1, 2, 5)
    return x, (h, h.flip(-1)) if "LSTM" in type(module).__name__ else h


def results(module: Any) -> list[torch.Tensor]:
    return [t.detach().clone() for t in tensors(module(*example(module)))]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("training", [True, False], ids=["gradients", "no_grad"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_seen_in_the_next_call(kind: str, change: str, training: bool) -> None:
    got = []
    for module in twins(kind, 3, 5):
        with torch.set_grad_enabled(training):
            before, again = results(module), results(module)
        torch.manual_seed(5)
        CHANGES[change](module)
        torch.manual_seed(6)  # spectral norm draws
        with torch.set_grad_enabled(training):
            after = results(module)
        assert_alike(again, before)
        moved = max(float((a - b).abs().max()) for a, b in zip(after, before, strict=True))
        assert (moved > 1e-6) == (change not in NOTHING)
        got.append(after)
    assert_alike(*got)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change", ["parametrisation", "weight_norm", "weight_norm of old", "prune", "spectral_norm"]
)
def test_gradients_reach_what_weights_are_made_of(kind: str, change: str) -> None:
    got = []
    for module in twins(kind, 3, 5):
        torch.manual_seed(5)
        CHANGES[change](module)
        torch.manual_seed(6)
        sum(t.sin().sum() for t in tensors(module(*example(module)))).backward()
        got.append({name: p.grad for name, p in module.named_parameters()})
    assert list(got[0]) == list(got[1])
    for mine, its in zip(*(g.values() for g in got), strict=True):
        assert_alike(mine, its)


@pytest.mark.parametrize("kind", KINDS)
def test_functional_call(kind: str) -> None:
    ours, theirs = twins(kind, 3, 5)
    before = results(ours)
    others = {n: (p.detach() * 1.5).requires_grad_() for n, p in ours.named_parameters()}
    got = []
    for module in (ours, theirs):
        result = torch.func.functional_call(module, others, example(module))
        loss = sum(t.sin().sum() for t in tensors(result))
        got.append(torch.autograd.grad(loss, list(others.values())))
    assert_alike(*got)
    assert_alike(results(ours), before)


def test_changes_between_calls_of_one_graph() -> None:
    """A tape has the weights of its own call, whatever comes later."""
    ours, theirs = twins("LSTM", 3, 5)
    grads = []
    for module in (ours, theirs):
        x = example(module)[0].requires_grad_()
        first = module(x)[0]
        module.weight_ih_l0.data.mul_(2)  # which autograd does not see
        second = module(x)[0]
        if module is ours:
            second.sum().backward()
            x.grad = None
            first.sum().backward()
            grads.append(x.grad)
    again = twins("LSTM", 3, 5)[1]
    x = example(again)[0].requires_grad_()
    again(x)[0].sum().backward()
    assert_alike(grads[0], x.grad)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "how", ["another shape", "fewer values", "a row", "float32", "none", "a list", "int64"]
)
def test_weights_that_do_not_fit_give_torchs_errors(kind: str, how: str) -> None:
    got = []
    for module in twins(kind, 3, 5):
        results(module)
        name, w = hh(module), weight(module).detach()
        if how == "a list":
            del module._parameters[name]
            module.__dict__[name] = [1.0]
            if isinstance(module, nn.RNNBase):
                module._flat_weights[1] = [1.0]
        elif how == "none":
            module._parameters[name] = None
        else:
            weight(module).data = {
                "another shape": lambda w: w.t().contiguous(),
                "fewer values": lambda w: w[:, :-1].contiguous(),
                "a row": lambda w: w[:1],
                "float32": lambda w: w.float(),
                "int64": lambda w: w,
            }[how](w)
            if how == "int64":
                module._parameters[name] = nn.Parameter(w.long(), requires_grad=False)
        got.append(outcome(lambda m=module: results(m)))
    assert got[0][0] == got[1][0]
    if got[1][0] != "value":
        assert got[0][1] == got[1][1]


def test_frozen_weights_are_those_of_their_versions() -> None:
    ours, theirs = twins("LSTM", 3, 5)
    results(ours)
    ours._core_engine.frozen = True
    before = results(ours)  # the first frozen call sees what there is
    ours.weight_hh_l0.data.mul_(1.5)
    assert_alike(results(ours), before)  # what the promise costs whoever breaks it
    with torch.no_grad():
        ours.weight_hh_l0.mul_(2)
        theirs.weight_hh_l0.mul_(3)
    assert_alike(results(ours), results(theirs))
    ours._core_engine.frozen = False
    ours.weight_hh_l0.data.mul_(0.5)
    theirs.weight_hh_l0.data.mul_(0.5)
    assert_alike(results(ours), results(theirs))


def test_what_was_written_before_freezing_is_seen() -> None:
    ours, theirs = twins("LSTM", 3, 5)
    for _ in range(2):
        results(ours)
        ours._core_engine.frozen = False
        for module in (ours, theirs):
            module.weight_hh_l0.data.mul_(1.5)
        ours._core_engine.frozen = True
        assert_alike(results(ours), results(theirs))


def test_negative_views_at_known_addresses() -> None:
    ours, theirs = twins("LSTM", 3, 5)
    x = torch.randn(6, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        ours(x)
        negative = {name: torch._neg_view(p.data) for name, p in ours.named_parameters()}
        found = torch.func.functional_call(ours, negative, (x,))
        expected = torch.func.functional_call(theirs, negative, (x,))
    assert_alike(found, expected)


def as_it_lies(x: torch.Tensor) -> torch.Tensor:
    return x


def transposed(x: torch.Tensor) -> torch.Tensor:
    """The same values, which the core cannot read as they lie."""
    return x.transpose(0, 1).contiguous().transpose(0, 1)


@pytest.mark.parametrize("laid", [as_it_lies, transposed])
@pytest.mark.parametrize("hidden_size", [16, 64, 256])
def test_frozen_weights_that_are_copied_for_each_call(hidden_size: int, laid: Any) -> None:
    """Copies come to lie at the addresses of earlier ones, and nobody has written to them."""
    ours = fastlstm.torch.freeze(fastlstm.torch.LSTM(32, hidden_size).bfloat16().eval())
    x = laid(torch.randn(5, 2, 32, dtype=torch.bfloat16))
    with torch.no_grad():
        for k in range(20):
            ours(x)
            for parameter in ours.parameters():
                parameter.mul_(1.3 if k % 2 else 0.7)
            found = ours(x)
            expected = fastlstm.torch.freeze(copy.deepcopy(ours), False)(x)
            assert_alike(found, expected)


@pytest.mark.parametrize("laid", [as_it_lies, transposed])
def test_frozen_weights_of_functional_calls(laid: Any) -> None:
    ours, theirs = twins("LSTM", 32, 64)
    fastlstm.torch.freeze(ours.eval())
    x = laid(torch.randn(5, 2, 32, dtype=torch.float64))
    with torch.no_grad():
        for _ in range(20):
            weights = {name: torch.randn_like(p) for name, p in ours.named_parameters()}
            found = torch.func.functional_call(ours, weights, (x,))
            assert_alike(found, torch.func.functional_call(theirs, weights, (x,)))


def test_a_frozen_call_that_cannot_be_read_looks_at_no_weights() -> None:
    ours, theirs = twins("LSTM", 3, 5)
    x = transposed(torch.randn(6, 4, 3, dtype=torch.float64))
    with torch.no_grad():
        ours(x)
        for module in (ours, theirs):
            module.weight_hh_l0.data.mul_(1.5)
        fastlstm.torch.freeze(ours.eval())
        for _ in range(2):
            assert_alike(ours(x), theirs(x))


def test_frozen_weights_without_counts() -> None:
    with torch.inference_mode():
        ours = fastlstm.torch.freeze(fastlstm.torch.LSTM(3, 5).eval())
        x = torch.randn(6, 4, 3)
        before = ours(x)[0]
        ours.load_state_dict({name: 2 * value for name, value in ours.state_dict().items()})
        assert not torch.equal(ours(x)[0], before)
