"""Dynamically quantised layers of PyTorch: modules, state_dicts and files keep their numbers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.ao.nn.quantized import dynamic  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch's, of what it will have instead

FORMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "two layers": {"num_layers": 2},
    "batch first, both directions": {"bidirectional": True, "batch_first": True},
    "two layers, both directions": {"num_layers": 2, "bidirectional": True},
}


def quantised(module: Any, dtype: Any = torch.qint8) -> Any:
    """The module with its layers quantised by PyTorch, each matrix with one scale or by rows."""
    kinds: Any = {nn.LSTM, nn.GRU}
    if dtype == "by rows":
        kinds = dict.fromkeys(kinds, torch.ao.quantization.per_channel_dynamic_qconfig)
        return torch.ao.quantization.quantize_dynamic(module, kinds)
    return torch.ao.quantization.quantize_dynamic(module, kinds, dtype=dtype)


def make(cls: Any = nn.LSTM, dtype: Any = torch.qint8, **options: Any) -> Any:
    torch.manual_seed(0)
    return quantised(nn.ModuleDict({"rnn": cls(5, 7, **options)}), dtype)


def as_sources(model: Any, folder: Path) -> dict[str, Any]:
    """The same model in all forms; those that do not say their options last."""
    paths = {name: folder / f"{name}.pt" for name in ("module", "state_dict", "older")}
    torch.save(model, paths["module"])
    torch.save(model.state_dict(), paths["state_dict"])
    torch.save(model.state_dict(), paths["older"], _use_new_zipfile_serialization=False)
    return {
        "in memory": model,
        "the layer": model["rnn"],
        "file": paths["module"],
        "state_dict": model.state_dict(),
        "file of a state_dict": paths["state_dict"],
        "file in the older format": paths["older"],
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.qint8, "by rows"], ids=["one scale", "by rows"])
@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
def test_numbers_and_scales_are_kept(cls: Any, dtype: Any, form: str, tmp_path: Path) -> None:
    model = make(cls, dtype, **FORMS[form])
    weights, biases = model["rnn"].get_weight(), model["rnn"].get_bias()
    for name, source in as_sources(model, tmp_path).items():
        batch_first = {"batch_first": True} if "batch" in form and "state_dict" in name else {}
        if "older" in name and "batch" in form:
            batch_first = {"batch_first": True}
        layer = fastlstm.from_torch(source, **batch_first)
        assert type(layer).__name__ == cls.__name__
        assert layer.quantization == ("int8", "float32")
        assert layer.batch_first == FORMS[form].get("batch_first", False)
        for key, weight in weights.items():
            assert np.array_equal(layer.stored[key], weight.int_repr().numpy()), (name, key)
            if dtype == "by rows":
                scales = weight.q_per_channel_scales().float().numpy()
            else:
                scales = np.full(len(weight), weight.q_scale(), np.float32)
            assert np.array_equal(layer.stored[f"{key}_scale"], scales)
            assert np.array_equal(layer.params[key], weight.dequantize().numpy())
        for key, bias in biases.items():
            assert np.array_equal(layer.params[key], bias.detach().numpy())


@pytest.mark.parametrize("cls", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_results_are_near(cls: Any, activations: str) -> None:
    """PyTorch rounds inputs and h to 7 bits for the whole batch; here they are exact, or 8."""
    module = make(cls, num_layers=2)["rnn"]
    layer = fastlstm.from_torch(module, activations=activations)
    assert layer.quantization == ("int8", activations)
    x = torch.randn(9, 3, 5, generator=torch.Generator().manual_seed(1))
    theirs = module(x)[0].detach().numpy()
    assert np.abs(layer(x)[0] - theirs).max() < 0.02  # 0.005 measured; outputs reach 0.5


def test_half_precision_becomes_a_layer_of_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exact = nn.LSTM(5, 7, bidirectional=True)
    model = quantised(nn.ModuleDict({"rnn": exact}), torch.float16)
    for source in as_sources(model, tmp_path).values():
        layer = fastlstm.from_torch(source)
        assert layer.quantization is None
        for name, value in exact.state_dict().items():
            half = value.half().float() if "weight" in name else value
            assert np.array_equal(layer.params[name], half.numpy())
    x = torch.randn(9, 3, 5)
    np.testing.assert_allclose(layer(x)[0], model["rnn"](x)[0].detach().numpy(), atol=1e-5)


def test_two_layers_or_two_directions() -> None:
    """Of as many inputs as units, two cells may be either; three and more tell by themselves."""
    options = ({"num_layers": 2}, {"bidirectional": True})
    for own, other in (options, options[::-1]):
        model = quantised(nn.ModuleDict({"rnn": nn.GRU(4, 4, **own)}))
        with pytest.raises(ValueError, match=r"rnn: a state_dict does not say whether .* got None"):
            fastlstm.from_torch(model.state_dict())
        both = own.get("bidirectional", False)
        layer = fastlstm.from_torch(model.state_dict(), bidirectional=both)
        assert np.array_equal(
            layer(np.ones((3, 4)))[0], fastlstm.from_torch(model)(np.ones((3, 4)))[0]
        )
        assert layer.bidirectional == both
        with pytest.raises(ValueError, match="expected"):
            fastlstm.from_torch(model, bidirectional="bidirectional" in other)
    for L, D in ((3, 1), (2, 2), (1, 1)):
        model = quantised(nn.ModuleDict({"rnn": nn.GRU(4, 4, L, bidirectional=D == 2)}))
        layer = fastlstm.from_torch(model.state_dict())
        assert (layer.num_layers, layer.bidirectional) == (L, D == 2)
    plain = nn.GRU(4, 4)
    assert not fastlstm.from_torch(plain, bidirectional=False).bidirectional
    with pytest.raises(ValueError, match="bidirectional: expected False, as its parameters"):
        fastlstm.from_torch(plain, bidirectional=True)


def with_weights(change: Any) -> Any:
    """A quantised GRU whose weights are quantised by `change`."""
    module = dynamic.GRU(5, 7)
    weights = nn.GRU(5, 7).state_dict()
    module.set_weight_bias(
        {name: change(value) if "weight" in name else value for name, value in weights.items()}
    )
    return module


@pytest.mark.parametrize("zero", [-20, 20])
def test_zero_points(zero: int, tmp_path: Path) -> None:
    def narrow(weight: Any) -> Any:
        return torch.quantize_per_tensor(0.5 * weight, 0.002, zero, torch.qint8)

    module = with_weights(narrow)
    torch.save(module, tmp_path / "m.pt")
    for source in (module, tmp_path / "m.pt"):
        layer = fastlstm.from_torch(source)
        for name, weight in module.get_weight().items():
            moved = weight.int_repr().numpy().astype(int) - zero
            assert np.array_equal(layer.stored[name], moved)
            assert np.array_equal(layer.params[name], weight.dequantize().numpy())

    def wide(weight: Any) -> Any:
        return torch.quantize_per_tensor(10 * weight, 0.002, zero, torch.qint8)

    with pytest.raises(ValueError, match=r"weight_ih_l0: less their zero points, .* expected -128"):
        fastlstm.from_torch(with_weights(wide))


def test_what_is_refused(tmp_path: Path) -> None:
    model = make()
    beside = {**model.state_dict(), "rnn.gain": torch.ones(3)}
    with pytest.raises(ValueError, match="the weights of a quantised layer alone, got gain"):
        fastlstm.from_torch(beside)
    missing = {**make(num_layers=2).state_dict()}
    del missing["rnn._all_weight_values.0.param"]
    with pytest.raises(ValueError, match="weights of all layers, from 0 on, got those of 1"):
        fastlstm.from_torch(missing)
    for cell in (dynamic.LSTMCell, dynamic.GRUCell, dynamic.RNNCell):
        with pytest.raises(ValueError, match=rf"dynamic\.modules\.rnn\.{cell.__name__}"):
            fastlstm.from_torch(nn.Sequential(cell(3, 5)))
    torch.jit.save(torch.jit.script(make(nn.GRU)["rnn"]), tmp_path / "script.pt")
    with pytest.raises(ValueError, match=r"dynamic\.modules\.rnn\.GRU"):
        fastlstm.from_torch(tmp_path / "script.pt")
    with pytest.raises(ValueError, match="activations: expected float32 or int8, got 'bfloat16'"):
        fastlstm.from_torch(model, activations="bfloat16")
    with pytest.raises(ValueError, match="activations: expected None, as the weights are not"):
        fastlstm.from_torch(nn.LSTM(5, 7), activations="int8")


def test_verify_does_not_compare_what_rounds_otherwise(tmp_path: Path) -> None:
    model = make()
    torch.save(model.state_dict(), tmp_path / "m.pt")
    for source in (model, tmp_path / "m.pt", make(dtype=torch.float16)):
        with pytest.raises(ValueError, match="source: a quantised layer of PyTorch"):
            fastlstm.verify(fastlstm.from_torch(model), source)


@pytest.mark.parametrize("weights", ["bfloat16", "int8"])
def test_files_of_our_own_quantized_layers(weights: str, tmp_path: Path) -> None:
    fastlstm.LSTM(3, 5).quantize(weights, weights).save(tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match=f"with quantization=.*{weights}.*: use fastlstm.load"):
        fastlstm.from_torch(tmp_path / "m.safetensors")


class Loud(dynamic.LSTM):
    def forward(self, x: Any, state: Any = None) -> Any:
        return 2 * super().forward(x, state)[0], state


class LoudInside(dynamic.GRU):
    def forward_impl(self, *args: Any) -> Any:
        output, state = super().forward_impl(*args)
        return 2 * output, state


class LoudWithTensors(dynamic.LSTM):
    def forward_tensor(self, x: Any, state: Any = None) -> Any:
        return 2 * super().forward_tensor(x, state)[0], state


class OtherWeights(dynamic.LSTM):
    _all_weight_values = property(lambda self: self._modules["others"], lambda *_: None)


@pytest.mark.parametrize(
    ("cls", "got"),
    [
        (Loud, "forward"),
        (LoudInside, "forward_impl"),
        (LoudWithTensors, "forward_tensor"),
        (OtherWeights, "_all_weight_values"),
    ],
)
def test_classes_that_change_a_call_are_refused(cls: Any, got: str) -> None:
    module = make(nn.GRU if issubclass(cls, dynamic.GRU) else nn.LSTM)["rnn"]
    module.__class__ = cls
    with pytest.raises(ValueError, match=rf"and no more, got {cls.__name__}\.{got}"):
        fastlstm.from_torch(module)


def test_layers_of_different_types() -> None:
    stack, half = (
        make(num_layers=2)["rnn"],
        quantised(nn.ModuleDict({"rnn": nn.LSTM(7, 7)}), torch.float16),
    )
    stack._all_weight_values[1] = half["rnn"]._all_weight_values[0]
    with pytest.raises(ValueError, match="in qint8, as weight_ih_l0, not weight_ih_l1"):
        fastlstm.from_torch(stack)


@pytest.mark.parametrize("name", ["forward_impl", "forward_tensor", "forward_packed"])
def test_methods_that_were_replaced_in_the_object(name: str) -> None:
    module = make()["rnn"]
    setattr(module, name, lambda *_: None)
    with pytest.raises(ValueError, match=f"and no more, got {name}"):
        fastlstm.from_torch(module)


def test_files_that_were_changed(tmp_path: Path) -> None:
    """Whatever byte of the description is another one: an error that says so, or a layer."""
    torch.save(make(nn.GRU).state_dict(), tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "m.pt").read_bytes()
    rng = np.random.default_rng(0)
    first = data.index(b"ScriptObject")
    for place in rng.integers(first, first + 1200, 150):
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        (tmp_path / "m.pt").write_bytes(changed)
        try:
            layer = fastlstm.from_torch(tmp_path / "m.pt")
        except ValueError:
            continue
        assert layer.hidden_size == 7


def test_weights_beside_a_quantised_layer() -> None:
    model = nn.ModuleDict({"rnn": make()["rnn"], "other": nn.GRU(3, 4)})
    assert fastlstm.from_torch(model, "rnn").quantization is not None
    assert fastlstm.from_torch(model, "other").quantization is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="'rnn', 'other'"):
            fastlstm.from_torch(model)
