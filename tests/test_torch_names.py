"""What else stands beside a layer of PyTorch: refused by name where it may change results.

The same of modules in memory, their state_dicts, and files of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from foreign import assert_computes_as

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

nn = torch.nn


def make(kind: str = "LSTM", **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(nn, kind)(3, 5, **options)


# --- more than a layer's parameters ---------------------------------------------------------------

# What hand-written cells and layers have beside those of PyTorch.
BESIDE = [
    *("bias", "bias_n", "gamma", "h0", "weight_ch", "weight_ci", "peephole", "zoneout_mask"),
    *("layernorm_i.weight", "ln_cell.bias", "norms.0.weight", "skip.weight", "cell.weight_ih"),
    *("weight_ih_l0.lora_A", "bn_ih.running_mean", "parametrizations.h.original"),
]


@pytest.mark.parametrize("prefix", ["", "encoder.", "a.cells.0."])
@pytest.mark.parametrize("kind", ["LSTM", "GRUCell"])
@pytest.mark.parametrize("beside", BESIDE)
def test_in_state_dicts(beside: str, kind: str, prefix: str, tmp_path: Path) -> None:
    tensors = {prefix + name: tensor for name, tensor in make(kind).state_dict().items()}
    tensors[prefix + beside] = torch.ones(5)
    tensors["other"] = torch.ones(5)
    if not prefix:
        del tensors["other"]
    torch.save(tensors, tmp_path / "m.pt")
    safetensors_torch.save_file(tensors, tmp_path / "m.safetensors")
    for source in (tensors, tmp_path / "m.pt", tmp_path / "m.safetensors"):
        with pytest.raises(ValueError, match=beside.replace(".", r"\.")):
            fastlstm.from_torch(source, prefix.rstrip("."))


def test_what_is_not_below_the_prefix_is_another_matter() -> None:
    module = make()
    tensors = {f"encoder.{name}": tensor for name, tensor in module.state_dict().items()}
    others = ("encoder_norm.weight", "fc.weight", "bias", "decoder.encoder.gamma", "encoder2.bias")
    tensors |= dict.fromkeys(others, torch.ones(5))
    assert_computes_as(fastlstm.from_torch(tensors), module)


def test_two_forms_of_one_parameter() -> None:
    tensors = dict(make().state_dict())
    tensors["weight_ih"] = tensors["weight_ih_l0"]
    with pytest.raises(ValueError, match="got weight_ih and weight_ih_l0"):
        fastlstm.from_torch(tensors)


def with_child(module: Any) -> Any:
    module.skip = nn.Linear(3, 5)
    return module


def with_child_without_tensors(module: Any) -> Any:
    module.skip = nn.Dropout(0.5)
    return module


def with_shared_child(module: Any) -> Any:
    shared = nn.Linear(3, 5)
    module.skip = shared
    return nn.ModuleDict({"shared": shared, "rnn": module})


def with_buffer(module: Any) -> Any:
    module.register_buffer("skip", torch.ones(5), persistent=False)
    return module


def with_parameter(module: Any) -> Any:
    module.skip = nn.Parameter(torch.ones(5))
    return module


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize(
    "change",
    [with_child, with_child_without_tensors, with_shared_child, with_buffer, with_parameter],
)
def test_in_modules(change: Any, tmp_path: Path) -> None:
    module = change(make())
    torch.save(module, tmp_path / "m.pt")
    for source in (module, tmp_path / "m.pt"):
        with pytest.raises(ValueError, match="got skip"):
            fastlstm.from_torch(source)


# --- modules that compute something else ----------------------------------------------------------


class Forward(nn.LSTM):
    def forward(self, x: Any, state: Any = None) -> Any:
        return 2 * super().forward(x, state)[0], state


class Call(nn.GRU):
    def __call__(self, *args: Any) -> Any:
        return None


class Mixin:
    def permute_hidden(self, state: Any, permutation: Any) -> Any:
        return state


class Mixed(Mixin, nn.LSTM):
    pass


class Cell(nn.LSTMCell):
    def forward(self, x: Any, state: Any = None) -> Any:
        return state


class Inherited(Forward):
    pass


class Halved(nn.LSTM):
    @property
    def _flat_weights(self) -> Any:
        return [0.5 * weight for weight in self.weights]

    @_flat_weights.setter
    def _flat_weights(self, weights: Any) -> None:
        self.weights = weights


class Relu(nn.RNN):
    mode = property(lambda _: "RNN_RELU", lambda *_: None)


class BatchFirst(nn.GRU):
    batch_first = property(lambda _: True, lambda *_: None)


class Twin(nn.Module):
    """Not derived from a layer, with its parameters."""

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        for name, parameter in nn.LSTM(*sizes).named_parameters():
            self.register_parameter(name, parameter)


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
@pytest.mark.parametrize(
    "cls",
    [*(Forward, Call, Mixed, Cell, Inherited, Twin), *(Halved, Relu, BatchFirst)],
)
def test_classes_that_compute_otherwise(cls: Any, tmp_path: Path) -> None:
    torch.save(nn.Sequential(cls(3, 5)), tmp_path / "m.pt")
    for source in (cls(3, 5), nn.Sequential(cls(3, 5)), tmp_path / "m.pt"):
        with pytest.raises(ValueError, match=f"got.*{cls.__name__}.*pass its state_dict"):
            fastlstm.from_torch(source)


class OtherWeight(nn.LSTMCell):
    @property
    def weight_hh(self) -> Any:
        return 2 * self._parameters["weight_hh"]


def test_a_property_in_a_parameters_place() -> None:
    cell = nn.LSTMCell(3, 5)
    cell.__class__ = OtherWeight
    with pytest.raises(ValueError, match=r"got OtherWeight\.weight_hh: pass its state_dict"):
        fastlstm.from_torch(cell)


class Harmless(nn.LSTM):
    """Changes nothing that a call runs."""

    output_size = property(lambda self: self.hidden_size)
    bias: bool = True  # each object has its own

    def __init__(self, *sizes: int, name: str = "") -> None:
        super().__init__(*sizes)
        self.name = name

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.bias_hh_l0)

    def first_state(self) -> Any:
        return torch.zeros(1, 1, self.hidden_size)

    def forward_impl(self) -> None:
        """Only of a quantised layer it would be called."""


def test_classes_that_do_not() -> None:
    torch.manual_seed(0)
    module = Harmless(3, 5, name="a")
    module.flatten_parameters = lambda: None  # as dropout of weights does
    assert_computes_as(fastlstm.from_torch(nn.Sequential(module)), module)


def hook(*_: Any) -> None:
    pass


def hooked(module: Any) -> Any:
    module.register_forward_hook(hook)
    return module


def hooked_before(module: Any) -> Any:
    module.register_forward_pre_hook(hook)
    return module


def patched(module: Any) -> Any:
    module.forward = hook
    return module


def other_list(module: Any) -> Any:
    module._flat_weights = [weight * 0.5 for weight in module._flat_weights]
    return module


def other_weight(module: Any) -> Any:
    module._flat_weights[1] = nn.Parameter(module._flat_weights[1] * 0.5)
    return module


def other_order(module: Any) -> Any:
    for values in (module._flat_weights, module._flat_weights_names):
        values[2:4] = values[3], values[2]
    return module


@pytest.mark.parametrize(
    "change", [hooked, hooked_before, patched, other_list, other_weight, other_order]
)
def test_modules_that_were_changed(change: Any, tmp_path: Path) -> None:
    module = change(make())
    torch.save(module, tmp_path / "m.pt")
    for source in (module, tmp_path / "m.pt"):
        got = r"forward|.*\bhook\b|_flat_weights"
        with pytest.raises(ValueError, match=f"computes and no more, got ({got})"):
            fastlstm.from_torch(source)


@pytest.mark.parametrize("kind", ["forward_pre", "forward"])
def test_hooks_of_all_modules(kind: str) -> None:
    handle = getattr(nn.modules.module, f"register_module_{kind}_hook")(hook)
    try:
        with pytest.raises(ValueError, match="got the hook hook of all modules"):
            fastlstm.from_torch(nn.Sequential(make()))
    finally:
        handle.remove()


def test_attributes_that_do_not_fit_the_parameters() -> None:
    module = make()
    module.hidden_size = 6
    with pytest.raises(ValueError, match="hidden_size: expected 5, as its parameters, got 6"):
        fastlstm.from_torch(module)
    # A layer's forward asks for the mode, a cell's for the nonlinearity.
    rnn = make("RNN")
    rnn.nonlinearity = "relu"
    assert_computes_as(fastlstm.from_torch(rnn), rnn)
    cell = make("RNNCell")
    cell.nonlinearity = "relu"
    assert_computes_as(fastlstm.from_torch(cell), cell)


def test_attributes_that_would_take_for_ever_to_print(tmp_path: Path) -> None:
    bomb: Any = ()
    for _ in range(100):
        bomb = (bomb, bomb)
    for name in ("batch_first", "dropout", "hidden_size", "mode"):
        module = make("RNN")
        setattr(module, name, bomb)
        torch.save(module, tmp_path / "m.pt")
        with pytest.raises(ValueError, match=f"{name}: expected a number or text, got tuple"):
            fastlstm.from_torch(tmp_path / "m.pt")
    module = make()
    module._forward_pre_hooks[0] = {"type": [bomb]}
    torch.save(module, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="got the hook dict"):
        fastlstm.from_torch(tmp_path / "m.pt")


@pytest.mark.filterwarnings("ignore")  # of tracing
def test_code_of_torchscript(tmp_path: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight_ih_l0 = nn.Parameter(torch.ones(20, 3))
            self.weight_hh_l0 = nn.Parameter(torch.ones(20, 5))

        def forward(self, x: Any) -> Any:
            return x @ self.weight_ih_l0.T

    torch.jit.trace(Other(), torch.zeros(2, 3)).save(tmp_path / "m.pt")
    with pytest.raises(ValueError, match=r"expected a layer of torch\.nn, got .*Other"):
        fastlstm.from_torch(tmp_path / "m.pt")
    module = make("RNN", nonlinearity="relu", batch_first=True)
    torch.jit.trace(module, torch.zeros(1, 1, 3)).save(tmp_path / "m.pt")
    layer = fastlstm.from_torch(tmp_path / "m.pt")
    assert layer.nonlinearity == "relu"
    assert_computes_as(layer, module)


# --- messages -------------------------------------------------------------------------------------


def test_what_there_is_instead(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(1, 1, 1), nn.Linear(4, 5))
    with pytest.raises(ValueError, match="found none among the modules Sequential, Linear, Conv1d"):
        fastlstm.from_torch(model)
    tensors = {f"block.{n}.weight": torch.ones(2) for n in range(12)}
    torch.save(tensors, tmp_path / "m.pt")
    for source in (tensors, tmp_path / "m.pt"):
        with pytest.raises(ValueError, match=r"the tensors block\.0\.weight, .* and 2 more"):
            fastlstm.from_torch(source)
    with pytest.raises(ValueError, match="found none: there are no tensors"):
        fastlstm.from_torch([{"lr": 0.1, "words": ["a", "b"]}])


@pytest.mark.parametrize(
    ("source", "got"),
    [
        (nn.LSTM, "the class LSTM: pass an object of it"),
        (dict, "the class dict"),
        (3, "int"),
        (None, "NoneType"),
        (np.ones(3), "ndarray"),
        (torch.ones(3), "Tensor"),
        (b"m.pt", "bytes"),
        (make, "function"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_types(source: Any, got: str) -> None:
    with pytest.raises(TypeError, match=f"source: expected a module, .* or a path, got {got}"):
        fastlstm.from_torch(source)


def scaled_result(module: Any) -> Any:
    call = module.forward
    module.forward = lambda x: (call(x)[0] * 3, call(x)[1])
    return module


def weight_made_outside(module: Any) -> Any:
    def replace(module: Any, _: Any) -> None:
        module._flat_weights[1] = module._parameters["weight_hh_l0"] * 0.5

    module.register_forward_pre_hook(replace)
    return module


def scaled_weight(module: Any) -> Any:
    def call(x: Any) -> Any:
        W = [module.weight_ih_l0, module.weight_hh_l0 * 0.5, module.bias_ih_l0, module.bias_hh_l0]
        return torch._VF.gru(x, torch.zeros(1, 2, 5), W, True, 1, 0.0, False, False, False)

    module.forward = call
    return module


def weights_exchanged(module: Any) -> Any:
    def call(x: Any) -> Any:
        W = [module.weight_ih_l0, module.weight_hh_l0, module.bias_hh_l0, module.bias_ih_l0]
        return torch._VF.gru(x, torch.zeros(1, 2, 5), W, True, 1, 0.0, False, False, False)

    module.forward = call
    return module


def scaled_cell(cell: Any) -> Any:
    call = cell.forward
    cell.forward = lambda x: call(x) * 2
    return cell


def packed(module: Any) -> Any:
    class Packing(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = module

        def forward(self, x: Any) -> Any:
            return self.rnn(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 3])))[1]

    return Packing()


@pytest.mark.filterwarnings("ignore")  # of tracing
@pytest.mark.parametrize(
    "change",
    [scaled_result, weight_made_outside, scaled_weight, weights_exchanged, packed, scaled_cell],
)
def test_traced_code_that_is_not_the_layers(change: Any, tmp_path: Path) -> None:
    cell = change is scaled_cell
    model = nn.Sequential(change(make("GRUCell" if cell else "GRU")))
    x = torch.zeros(2, 3) if cell else torch.zeros(4, 2, 3)
    torch.jit.trace(model, x, check_trace=False).save(tmp_path / "m.pt")
    with pytest.raises(ValueError, match="got traced code that is not its call"):
        fastlstm.from_torch(tmp_path / "m.pt")


class Twice(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, module: Any) -> None:
        super().__init__()
        self.rnn = module

    def forward(self, x: Any, h: Any) -> Any:
        return self.rnn(x)[0] + self.rnn(x[:, 0], h)[0]


@pytest.mark.filterwarnings("ignore")  # of tracing
@pytest.mark.parametrize(("kind", "bias"), [("GRU", True), ("RNN", False)])
def test_traced_code_of_several_calls(kind: str, bias: bool, tmp_path: Path) -> None:
    module = make(kind, bias=bias, num_layers=11)
    model = Twice(module)
    torch.jit.trace(model, (torch.zeros(4, 1, 3), torch.zeros(11, 5))).save(tmp_path / "m.pt")
    assert_computes_as(fastlstm.from_torch(tmp_path / "m.pt"), module)


@pytest.mark.filterwarnings("ignore")  # of scripting
def test_torchscript_in_memory() -> None:
    with pytest.raises(ValueError, match=r"pass the file of torch\.jit\.save, or its state_dict"):
        fastlstm.from_torch(torch.jit.script(make()))
