"""Existing models: which modules become ours, what stays the same, and the way back."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import fastlstm
import fastlstm.torch
import pytest
import torch
from fastlstm.torch import accelerate, freeze, report, restore
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

KINDS = ["LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"]
OURS = {kind: getattr(fastlstm.torch, kind) for kind in KINDS}
TORCHS = {kind: getattr(nn, kind) for kind in KINDS}


class OutputOnly(nn.LSTM):
    """A class of a user's, as many are."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        output, _ = super().forward(input, hx)
        return output


class Renamed(nn.GRU):
    pass


class SuperByName(nn.RNN):
    @torch.no_grad()
    def forward(self, input: Tensor, hx: Any = None) -> Any:
        return super(SuperByName, self).forward(input, hx)  # noqa: UP008


class Twice(nn.LSTM):
    def forward(self, input: Tensor, hx: Any = None) -> Any:
        return nn.LSTM.forward(self, input, hx)


class Permuting(nn.LSTM):
    def permute_hidden(self, hx: Any, permutation: Any) -> Any:
        return super().permute_hidden(hx, permutation)


class OwnRNN(nn.RNNBase):
    def __init__(self) -> None:
        super().__init__("LSTM", 3, 4)


class Slotted(nn.LSTM):
    __slots__ = ("extra",)


class OfOurs(fastlstm.torch.LSTM):
    pass


class Double(nn.Module):
    """A parametrisation."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight * 2

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight / 2


def make(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return TORCHS[kind](3, 4)  # type: ignore[no-any-return]


def computed_by_us(output: Any) -> bool:
    """Whether the graph of a result has a node of ours."""
    output = output[0] if isinstance(output, tuple) else output
    seen, nodes = set(), [output.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if type(node).__name__ == "RecurrentBackward":
            return True
        nodes += [other for other, _ in node.next_functions]
    return False


def results(module: nn.Module) -> list[Tensor]:
    """Outputs and gradients for the same input each time."""
    cell = isinstance(module, nn.RNNCellBase)
    x = torch.linspace(-1, 1, 6 if cell else 30).view(2, 3) if cell else None
    x = torch.linspace(-1, 1, 30).view(5, 2, 3) if x is None else x
    module.zero_grad()
    result = module(x)
    output = result[0] if isinstance(result, tuple) else result
    output.square().sum().backward()
    gradients = [p.grad for p in module.parameters()]
    return [output.detach(), *(g for g in gradients if g is not None)]


def assert_close(ones: list[Tensor], others: list[Tensor]) -> None:
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


# --- what is replaced -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_module_becomes_ours_and_torchs_again(kind: str) -> None:
    module = make(kind)
    attributes, expected = set(vars(module)), results(module)
    parameters, state = list(module.parameters()), module.state_dict()
    assert not isinstance(module, OURS[kind])
    assert accelerate(module) is module
    assert type(module) is OURS[kind]
    assert isinstance(module, TORCHS[kind])
    assert all(p is q for p, q in zip(module.parameters(), parameters, strict=True))
    assert list(module.state_dict()) == list(state)
    assert repr(module) == repr(make(kind))
    assert_close(results(module), expected)
    assert restore(module) is module
    assert type(module) is TORCHS[kind]
    assert set(vars(module)) == attributes
    assert_close(results(module), expected)


def test_all_modules_of_a_model() -> None:
    shared = nn.GRU(3, 4)
    model = nn.ModuleDict({kind: make(kind) for kind in KINDS})
    model["deep"] = nn.Sequential(nn.ModuleList([shared, nn.Linear(2, 2)]), shared)
    accelerate(model)
    assert [type(model[kind]) for kind in KINDS] == list(OURS.values())
    assert type(shared) is fastlstm.torch.GRU
    assert [row.name for row in report(model).rows] == [*KINDS, "deep.0.0"]  # shared ones once
    assert type(model["deep"][0][1]) is nn.Linear
    restore(model)
    assert [type(model[kind]) for kind in KINDS] == list(TORCHS.values())
    assert type(shared) is nn.GRU


@pytest.mark.parametrize("cls", [OutputOnly, Renamed, Slotted])
def test_classes_of_users(cls: type[nn.RNNBase]) -> None:
    torch.manual_seed(0)
    module = cls(3, 4)
    expected = results(module)
    accelerate(module)
    assert isinstance(module, cls)
    assert isinstance(module, fastlstm.torch.LSTM | fastlstm.torch.GRU)
    assert computed_by_us(module(torch.ones(5, 2, 3)))
    assert_close(results(module), expected)
    assert type(module).__name__ == cls.__name__
    accelerate(module)  # again: nothing more
    restore(module)
    assert type(module) is cls
    assert_close(results(module), expected)


def test_a_decorated_forward_that_names_its_class() -> None:
    module = accelerate(SuperByName(3, 4))
    assert report(module).rows == (("", "SuperByName", True, ""),)
    assert not module(torch.ones(5, 2, 3))[0].requires_grad


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Sequential(nn.LSTM(3, 4)))  # type: ignore[no-any-return]


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = nn.Sequential(nn.GRU(3, 4))
        return torch.jit.trace(net, torch.ones(5, 2, 3))  # type: ignore[no-any-return]


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.LSTM(3, 4))
        return torch.ao.quantization.quantize_dynamic(model, {nn.LSTM})  # type: ignore[no-any-return]


def forward_replaced() -> nn.Module:
    module = nn.LSTM(3, 4)
    module.forward = lambda x: x  # type: ignore[method-assign, assignment]
    return nn.Sequential(module)


def lazy() -> nn.Module:
    class LazyLSTM(nn.modules.lazy.LazyModuleMixin, nn.LSTM):
        pass

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(LazyLSTM(3, 4))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scripted": (scripted, "scripted or traced: its code is compiled"),
    "traced": (traced, "scripted or traced: its code is compiled"),
    "quantised": (quantised, "quantised"),
    "forward of its own": (
        lambda: nn.Sequential(Twice(3, 4)),
        "Twice.forward does not call super().forward",
    ),
    "another method": (
        lambda: nn.Sequential(Permuting(3, 4)),
        "Permuting.permute_hidden is not torch's",
    ),
    "another base": (
        lambda: nn.Sequential(OwnRNN()),
        "OwnRNN derives from none of torch's recurrent classes",
    ),
    "replaced in the object": (forward_replaced, "forward was replaced in the object"),
    "lazy": (lazy, "lazy: its parameters have no values before the first call"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_why_not(name: str) -> None:
    build, reason = REFUSED[name]
    model = build()
    before = [type(module) for module in model.modules()]
    accelerate(model)
    assert [type(module) for module in model.modules()] == before
    (row,) = report(model).rows
    assert (row.name, row.replaced, row.reason) == ("0", False, reason)


def test_hooks_of_classes_are_not_called() -> None:
    """A list of classes by name has the user's; what else a hook asks for, it need not be given."""
    registry: dict[str, type] = {}

    class Registered(nn.LSTM):
        def __init_subclass__(cls, *, name: str) -> None:
            super().__init_subclass__()
            registry[name] = cls
            cls.known_as = name  # type: ignore[attr-defined]

    class Encoder(Registered, name="encoder"):
        pass

    torch.manual_seed(0)
    module = Encoder(3, 4)
    expected = results(module)
    (row,) = report(accelerate(module)).rows
    assert row.replaced
    assert module.known_as == "encoder"  # type: ignore[attr-defined]
    assert computed_by_us(module(torch.ones(5, 2, 3)))
    assert_close(results(module), expected)
    assert registry == {"encoder": Encoder}

    class Derived(type(module), name="derived"):  # type: ignore[misc]
        pass

    assert registry == {"encoder": Encoder, "derived": Derived}
    assert type(restore(module)) is Encoder


class Stateful(nn.LSTM):
    """Attributes and methods as users call them, some of which are options of ours, or were."""

    merge = "by hand"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._state: Any = None
        self._engine = self._weights = self._layer = "mine"
        self.reverse, self.clip, self.forget_bias = True, 0.01, 5.0

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        output, self._state = super().forward(input.flip(0), self._state)
        return output

    def zoneout(self) -> None:
        raise AssertionError("nobody calls it")


class CellOfLayers(nn.GRUCell):
    """What it says of layers is its user's business."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_layers, self.dropout, self.bidirectional, self.batch_first = 2, 0.5, True, True


@pytest.mark.parametrize("cls", [Stateful, CellOfLayers])
def test_attributes_of_users_mean_what_they_meant(cls: type[nn.Module]) -> None:
    torch.manual_seed(0)
    module = cls(3, 4)
    theirs, attributes, text = copy.deepcopy(module), set(vars(module)), repr(module)
    (row,) = report(accelerate(module)).rows
    assert row.replaced
    x = torch.linspace(-1, 1, 6).view(2, 3)
    for _ in range(2):
        found = []
        for each in (theirs, module):
            output = each(x[:, None] if cls is Stateful else x)
            grads = torch.autograd.grad(output.sum(), list(each.parameters()))
            found.append([output.detach(), *grads])
            if isinstance(each, Stateful):
                each._state = tuple(part.detach() for part in each._state)
        assert_close(*found)
    assert repr(module) == text
    for each in (theirs, module):
        torch.manual_seed(1)
        each.reset_parameters()  # type: ignore[operator]
    assert_close(list(module.parameters()), list(theirs.parameters()))
    restore(module)
    assert type(module) is cls
    assert set(vars(module)) == attributes


class Doubled(nn.LSTM):
    """Neither torch.jit.script nor torch.fx can look into its forward."""

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        return super().forward(input, hx)[0] * 2


class DoubledOurs(fastlstm.torch.LSTM):
    def forward(self, input: Tensor, hx: Any = None) -> Any:
        return super().forward(input, hx)[0] * 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_a_forward_of_a_users_is_not_lost_to_those_who_read_it() -> None:
    with pytest.raises(RuntimeError, match="has no attribute or method 'forward'"):  # torch's
        torch.jit.script(accelerate(nn.Sequential(Doubled(3, 4))))
    for of in (nn.Sequential(Doubled(3, 4)), accelerate(nn.Sequential(Doubled(3, 4)))):
        with pytest.raises(torch.fx.proxy.TraceError):
            torch.fx.symbolic_trace(of)
    with pytest.raises(RuntimeError, match="DoubledOurs has a forward of its own"):
        torch.jit.script(nn.Sequential(DoubledOurs(3, 4)))


def test_an_attribute_that_would_be_an_option() -> None:
    module = make("LSTM")
    module.reverse = True  # type: ignore[assignment]
    (row,) = report(accelerate(module)).rows
    assert row.reason == "its attribute reverse would be an option of ours"


def test_from_torch_of_a_class_that_became_ours() -> None:
    module = Renamed(3, 4)
    module.reverse = True  # type: ignore[assignment]
    accelerate(module)
    assert fastlstm.from_torch(module).reverse is False


def test_a_class_that_cannot_be_derived_from() -> None:
    class Meta(type):
        def __new__(cls, name: str, bases: tuple[type, ...], names: Any) -> Any:
            if bases != (nn.LSTM,):
                raise TypeError("no")
            return super().__new__(cls, name, bases, names)

    class Final(nn.LSTM, metaclass=Meta):
        pass

    (row,) = report(accelerate(Final(3, 4))).rows
    assert row.reason == "no class can derive from Final and from ours: no"


def test_what_torch_computes_all_the_same() -> None:
    model = nn.ModuleDict(
        {"narrow": nn.LSTM(3, 4, dtype=torch.float16), "away": nn.GRU(3, 4, device="meta")}
    )
    rows = report(accelerate(model)).rows
    assert rows == (
        ("narrow", "LSTM", True, "float16 is computed by torch"),
        ("away", "GRU", True, "on the device meta torch computes"),
    )
    assert model["away"](torch.ones(5, 2, 3, device="meta"))[0].device.type == "meta"
    model["narrow"].float()
    assert not report(model).rows[0].reason


# --- reports and errors ---------------------------------------------------------------------------


def test_reports(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.ModuleDict({"encoder": nn.LSTM(3, 4), "decoder": Twice(3, 4)})
    assert str(report(model)) == (
        "encoder  LSTM   not replaced: it can be, by accelerate(model)\n"
        "decoder  Twice  not replaced: Twice.forward does not call super().forward"
    )
    accelerate(model)
    assert capsys.readouterr().out == ""
    accelerate(model, verbose=True)
    assert capsys.readouterr().out == (
        "encoder  LSTM   replaced\n"
        "decoder  Twice  not replaced: Twice.forward does not call super().forward\n"
    )
    assert repr(report(nn.LSTM(3, 4))).startswith("(the model)  LSTM  not replaced")
    assert repr(report(nn.Linear(3, 4))) == "no recurrent modules"


@pytest.mark.parametrize("function", [accelerate, restore, report, freeze])
@pytest.mark.parametrize("thing", [nn.LSTM, [nn.LSTM(3, 4)], None, fastlstm.LSTM(3, 4)])
def test_no_module(function: Any, thing: Any) -> None:
    with pytest.raises(TypeError, match=r"^model: expected a torch\.nn\.Module, got "):
        function(thing)


def test_restore_leaves_what_torch_does_not_have() -> None:
    model = nn.ModuleDict(
        {
            "zoned": fastlstm.torch.LSTM(3, 4, zoneout=0.1),
            "derived": OfOurs(3, 4),
            "plain": fastlstm.torch.LSTM(3, 4, zoneout=0.0, forget_bias=1.0),
        }
    )
    text = (
        r"^restore: torch has no such modules: zoned \(zoneout=\(0.1, 0.1\)\), derived \(OfOurs\)$"
    )
    with pytest.warns(UserWarning, match=text) as caught:
        restore(model)
    assert caught[0].filename == __file__
    assert type(model["zoned"]) is fastlstm.torch.LSTM
    assert type(model["derived"]) is OfOurs
    assert type(model["plain"]) is nn.LSTM
    assert set(vars(model["plain"])) == set(vars(nn.LSTM(3, 4)))


# --- what holds modules ---------------------------------------------------------------------------


def test_an_optimiser_from_before_goes_on() -> None:
    models, losses = [make("LSTM") for _ in range(2)], []
    for model, ours in zip(models, (False, True), strict=True):
        optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
        for step in range(6):
            if ours and step == 2:
                accelerate(model)
            if ours and step == 4:
                restore(model)
            optimiser.zero_grad()
            loss = model(torch.ones(5, 2, 3))[0].square().sum()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    assert losses[6:] == pytest.approx(losses[:6], rel=1e-5)
    assert losses[0] != pytest.approx(losses[5], rel=1e-3)


def test_hooks_stay() -> None:
    module = make("LSTM")
    seen = []
    module.register_forward_hook(lambda *_: seen.append("forward"))
    module.register_full_backward_hook(lambda *_: seen.append("backward"))
    next(module.parameters()).register_hook(lambda g: seen.append("gradient"))
    x = torch.ones(5, 2, 3, requires_grad=True)
    accelerate(module)(x)[0].sum().backward()
    assert sorted(seen) == ["backward", "forward", "gradient"]


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRUCell, OutputOnly])
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "pickle 0", "torch.save"])
def test_copies(cls: type[nn.Module], how: str) -> None:
    module = accelerate(cls(3, 4))
    module.frozen_note = "kept"
    expected = results(module)
    if how == "deepcopy":
        other = copy.deepcopy(module)
    elif how.startswith("pickle"):
        protocol = 0 if how.endswith("0") else None
        other = pickle.loads(pickle.dumps(module, protocol=protocol))
    else:
        file = io.BytesIO()
        torch.save(module, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    assert type(other) is type(module)
    assert other.frozen_note == "kept"
    assert_close(results(other), expected)
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    assert not torch.equal(results(other)[0], expected[0])  # it has weights of its own
    assert torch.equal(results(module)[0], expected[0])
    assert type(restore(other)) is cls


def test_a_pickle_imports_what_it_needs() -> None:
    code = (
        "import pickle, sys; module = pickle.load(sys.stdin.buffer); import torch;"
        "print(type(module).__module__, module(torch.ones(5, 2, 3))[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(accelerate(nn.LSTM(3, 4))),
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert done.stdout.decode().split(None, 1) == ["fastlstm.torch", "torch.Size([5, 2, 4])\n"]


def test_state_dicts_go_both_ways() -> None:
    plain, ours = make("LSTM"), accelerate(nn.LSTM(3, 4))
    assert ours.load_state_dict(plain.state_dict()) == plain.load_state_dict(ours.state_dict())
    assert all(
        torch.equal(a, b) for a, b in zip(plain.parameters(), ours.parameters(), strict=True)
    )
    assert_close(results(plain), results(ours))


def test_what_compile_returns() -> None:
    model = nn.Sequential(nn.LSTM(3, 4))
    compiled = torch.compile(model, backend="eager")
    assert [row.name for row in report(accelerate(compiled)).rows] == ["_orig_mod.0"]
    assert type(model[0]) is fastlstm.torch.LSTM
    restore(compiled)
    assert type(model[0]) is nn.LSTM


def test_nothing_keeps_modules_alive() -> None:
    class Local(nn.LSTM):
        pass

    module = accelerate(Local(3, 4))
    module(torch.ones(5, 2, 3))
    references = [weakref.ref(module), weakref.ref(Local), weakref.ref(type(module))]
    del module, Local
    gc.collect()  # the class of ours,
    gc.collect()  # and then the user's, from which it derived
    assert [reference() for reference in references] == [None] * 3


# --- parametrised modules -------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["accelerate", "parametrise"])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRUCell, OutputOnly])
def test_parametrised(cls: type[nn.Module], first: str) -> None:
    torch.manual_seed(0)
    module = cls(3, 4)
    name = next(n for n, _ in module.named_parameters() if n.startswith("weight_hh"))
    twin = copy.deepcopy(module)
    parametrize.register_parametrization(twin, name, Double())
    expected = results(twin)
    if first == "accelerate":
        accelerate(module)
        parametrize.register_parametrization(module, name, Double())
    else:
        parametrize.register_parametrization(module, name, Double())
        accelerate(module)
    (row,) = report(module).rows
    assert row.replaced
    assert_close(results(module), expected)
    assert type(module).__name__ == type(twin).__name__

    restore(module)
    assert not report(module).rows[0].replaced
    assert_close(results(module), expected)
    accelerate(module)
    other = name.replace("hh", "ih")
    for model in (module, twin):
        parametrize.register_parametrization(model, other, Double())
    assert_close(results(module), results(twin))

    for each in (name, other):
        parametrize.remove_parametrizations(module, each)
    assert isinstance(module, OURS[type(twin).__mro__[2 - (cls is not OutputOnly)].__name__])
    assert_close(results(module), results(accelerate(restored(twin, (name, other)))))
    assert type(restore(module)) is cls


def restored(module: nn.Module, names: tuple[str, ...]) -> nn.Module:
    for name in names:
        parametrize.remove_parametrizations(module, name)
    return module


def test_parametrised_modules_are_copied() -> None:
    module = parametrizations.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    other = copy.deepcopy(accelerate(module))
    assert_close(results(other), results(module))
    assert computed_by_us(other(torch.ones(5, 2, 3)))


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_weight_norm_of_old() -> None:
    torch.manual_seed(0)
    module = nn.utils.weight_norm(nn.LSTM(3, 4), "weight_hh_l0")
    expected = results(module)
    assert_close(results(accelerate(module)), expected)
    with torch.no_grad():
        module.weight_hh_l0_g.mul_(2)
    changed = results(module)
    assert not torch.equal(changed[0], expected[0])
    assert_close(results(restore(module)), changed)


# --- freeze ---------------------------------------------------------------------------------------


@pytest.fixture
def frozen() -> tuple[nn.Module, Callable[[], bool]]:
    """A frozen module in evaluation, and whether it has seen a write that nobody counted."""
    model = freeze(accelerate(nn.Sequential(nn.LSTM(3, 4))).eval())
    x = torch.ones(5, 2, 3)

    def sees() -> bool:
        with torch.no_grad():
            before = model(x)[0].clone()
            model[0].weight_ih_l0.detach().numpy()[:] += 0.5
            return not torch.equal(before, model(x)[0])

    return model, sees


def test_frozen_weights_are_not_looked_at(frozen: tuple[nn.Module, Callable[[], bool]]) -> None:
    model, sees = frozen
    assert not sees()
    assert freeze(model, False) is model
    assert sees()
    freeze(model)
    assert not sees()
    model.eval()
    assert not sees()
    model.train()
    assert sees()
    model.eval()
    assert sees()


def test_frozen_before_the_first_call() -> None:
    model = freeze(accelerate(nn.LSTM(3, 4)).eval())
    x = torch.ones(5, 2, 3)
    with torch.no_grad():
        for other in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            before = other(x)[0].clone()
            other.weight_ih_l0.detach().numpy()[:] += 0.5
            assert torch.equal(before, other(x)[0])
            other.weight_ih_l0.add_(0.0)  # PyTorch counts it
            assert not torch.equal(before, other(x)[0])


def test_frozen_modules_see_what_pytorch_counts(
    frozen: tuple[nn.Module, Callable[[], bool]],
) -> None:
    model, _ = frozen
    x = torch.ones(5, 2, 3)
    with torch.no_grad():
        before = model(x)[0].clone()
        model.load_state_dict(nn.Sequential(nn.LSTM(3, 4)).state_dict())
        loaded = model(x)[0].clone()
        assert not torch.equal(before, loaded)
        model[0].weight_hh_l0 = nn.Parameter(torch.zeros(16, 4))
        assert not torch.equal(loaded, model(x)[0])


def test_freeze_is_forgotten_by_restore(frozen: tuple[nn.Module, Callable[[], bool]]) -> None:
    model, sees = frozen
    accelerate(restore(model))
    assert sees()


def test_freeze_takes_a_bool() -> None:
    with pytest.raises(TypeError, match=r"^frozen: expected a bool, got int$"):
        freeze(nn.LSTM(3, 4), 1)  # type: ignore[arg-type]


def test_a_forward_that_is_replaced_afterwards_is_reported() -> None:
    model = fastlstm.torch.accelerate(nn.Sequential(nn.LSTM(3, 4)))
    forward = model[0].forward
    model[0].forward = lambda x: forward(x)
    (row,) = fastlstm.torch.report(model).rows
    assert not row.replaced
    assert row.reason == "forward was replaced in the object"
    del model[0].forward
    assert fastlstm.torch.report(model).rows[0].replaced
