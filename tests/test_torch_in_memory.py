"""What users hold in memory: checkpoints, containers, wrappers, and tensors of all kinds."""

from __future__ import annotations

import argparse
import collections
import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import fastlstm
import numpy as np
import pytest
from foreign import assert_computes_as

torch = pytest.importorskip("torch")

nn = torch.nn


def make(kind: str = "LSTM", **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(nn, kind)(3, 5, **options)


class AttributeDict(dict[str, Any]):
    """Keys as attributes: it seems to have whatever it is asked for."""

    __getattr__ = dict.get  # type: ignore[assignment]


class StrictAttributeDict(dict[str, Any]):
    __getattr__ = dict.__getitem__  # type: ignore[assignment]


class Saved(NamedTuple):
    epoch: int
    model: Any


class Slots:
    __slots__ = ("model",)

    def __init__(self, model: Any) -> None:
        self.model = model


class Holder:
    def __init__(self, model: Any) -> None:
        self.model = model
        self.itself = self


def in_a_circle(tensors: Any) -> Any:
    checkpoint: dict[str, Any] = {"model": tensors}
    checkpoint["best"] = checkpoint
    return checkpoint


CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "dictionary": lambda m: {"state_dict": m, "epoch": 3, "lr": np.float64(0.1), None: 1},
    "nested": lambda m: {"a": {"b": {7: [0, ({"model": m},)]}}},
    "list": lambda m: [m, {"lr": 0.1}],
    "tuple": lambda m: (m, None),
    "named tuple": lambda m: Saved(3, m),
    "defaultdict": lambda m: collections.defaultdict(dict, model=m),
    "UserDict": lambda m: {"model": collections.UserDict(model=m)},
    "proxy": lambda m: types.MappingProxyType({"model": m}),
    "attributes": lambda m: AttributeDict(model=m),
    "strict attributes": lambda m: StrictAttributeDict(model=m),
    "namespace": lambda m: argparse.Namespace(model=m, lr=0.1),
    "simple namespace": lambda m: types.SimpleNamespace(inner=types.SimpleNamespace(model=m)),
    "object": Holder,
    "slots": lambda m: [Slots(m)],
    "circle": in_a_circle,
    "words": lambda m: {"model": m, "words": {f"w{n}": n for n in range(100_000)}},
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_containers(container: str) -> None:
    module = make()
    arrays = {f"rnn.{name}": tensor.numpy() for name, tensor in module.state_dict().items()}
    for inner in (module.state_dict(), arrays, module, nn.Sequential(nn.Linear(2, 2), module)):
        assert_computes_as(fastlstm.from_torch(CONTAINERS[container](inner)), module)


def test_the_same_names_as_in_a_file(tmp_path: Path) -> None:
    module = make()
    tensors = {f"net.rnn.{name}": tensor for name, tensor in module.state_dict().items()}
    checkpoint = {"state_dict": tensors, "ema": [tensors | {"n": torch.ones(1)}], "epoch": 3}
    torch.save(checkpoint, tmp_path / "m.pt")
    for source in (checkpoint, tmp_path / "m.pt", torch.load(tmp_path / "m.pt")):
        with pytest.raises(ValueError, match=r"one of 'state_dict\.net\.rnn', 'ema\.0\.net\.rnn'"):
            fastlstm.from_torch(source)
        for prefix in ("state_dict.net.rnn", "state_dict", "ema"):
            assert_computes_as(fastlstm.from_torch(source, prefix), module)


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "DataParallel": nn.DataParallel,
    "average": torch.optim.swa_utils.AveragedModel,
    "ModuleDict": lambda m: nn.ModuleDict({"rnn": m}),
    "twice": lambda m: nn.ModuleList([m, m]),
    "compiled": lambda m: torch.compile(m, backend="eager"),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper: str) -> None:
    module = make()
    wrapped = WRAPPERS[wrapper](module)
    assert_computes_as(fastlstm.from_torch(wrapped), module)
    if wrapper != "twice":
        assert_computes_as(fastlstm.from_torch(wrapped.state_dict()), module)


def test_lists_of_numbers(tmp_path: Path) -> None:
    tensors = make().state_dict()
    lists = {f"rec.{name}": tensor.tolist() for name, tensor in tensors.items()}
    for source in (lists, json.loads(json.dumps(lists)), {"model": lists}):
        with pytest.raises(
            ValueError, match="weight_ih_l0: expected a tensor or array, got a list"
        ):
            fastlstm.from_torch(source)
    biases = {name: lists[f"rec.{name}"] for name in ("bias_ih_l0", "bias_hh_l0")}
    with pytest.raises(ValueError, match="bias_ih_l0: expected a tensor or array, got a list"):
        fastlstm.from_torch({**tensors, **biases})
    torch.save({**tensors, **biases}, tmp_path / "m.pt")
    with pytest.raises(ValueError, match="bias_ih_l0: expected"):
        fastlstm.from_torch(tmp_path / "m.pt")


# --- tensors --------------------------------------------------------------------------------------


def with_weight(change: Callable[[Any], Any]) -> tuple[dict[str, Any], Any]:
    """A state_dict with a weight of its own kind, and a module with what it stands for."""
    module = make()
    tensors = dict(module.state_dict())
    tensors["weight_hh_l0"] = changed = change(tensors["weight_hh_l0"])
    with torch.no_grad():
        module.weight_hh_l0.copy_(changed)
    return tensors, module


def conjugated(tensor: Any) -> Any:
    """With the bit that says that the memory has the negative."""
    return torch.complex(tensor, tensor).conj().imag


@pytest.mark.parametrize(
    "change",
    [
        conjugated,
        lambda t: t[:1, :1].expand(20, 5),
        lambda t: t.T.contiguous().T,
        lambda t: t.repeat_interleave(2, 1)[:, ::2],
        lambda t: t.flip(0),
        lambda t: nn.Parameter(t),
        lambda t: t.as_subclass(nn.Buffer) if hasattr(nn, "Buffer") else t,
    ],
    ids=["negative", "stride 0", "transposed", "steps", "flipped", "parameter", "buffer"],
)
def test_views(change: Callable[[Any], Any]) -> None:
    tensors, module = with_weight(change)
    assert_computes_as(fastlstm.from_torch(tensors), module)


def test_a_layer_has_memory_of_its_own() -> None:
    module = make()
    arrays = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    layers = [fastlstm.from_torch(source) for source in (module, arrays)]
    with torch.no_grad():
        before = module.weight_hh_l0.clone()
        module.weight_hh_l0.zero_()
    for layer in layers:
        assert np.array_equal(layer.params["weight_hh_l0"], before.numpy())


def test_shared_parameters() -> None:
    module = nn.LSTM(5, 5, num_layers=2)
    module.weight_ih_l1, module.weight_hh_l1 = module.weight_hh_l0, module.weight_ih_l0
    assert_computes_as(fastlstm.from_torch(module), module)


def fake(tensor: Any) -> Any:
    from torch._subclasses.fake_tensor import FakeTensorMode

    return FakeTensorMode().from_tensor(tensor)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors", "ignore:.*quantize")
@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.to("meta"),
        fake,
        lambda t: t.to_sparse(),
        lambda t: torch.nested.nested_tensor([t[0], t[1, :2]]),
        lambda t: nn.UninitializedParameter(),
        lambda t: t.to(torch.complex64),
        lambda t: t.int(),
        lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    ],
    ids=["meta", "fake", "sparse", "nested", "uninitialised", "complex", "integers", "quantised"],
)
def test_tensors_without_values_that_a_layer_can_have(change: Callable[[Any], Any]) -> None:
    tensors = {f"rnn.{name}": tensor for name, tensor in make().state_dict().items()}
    tensors["rnn.weight_hh_l0"] = change(tensors["rnn.weight_hh_l0"])
    with pytest.raises(ValueError, match=r"^state_dict: rnn: weight_hh_l0: (?!weight_hh_l0)"):
        fastlstm.from_torch(tensors)
    # Elsewhere they are nobody's concern.
    tensors["other"] = tensors.pop("rnn.weight_hh_l0")
    tensors["rnn.weight_hh_l0"] = make().weight_hh_l0
    assert_computes_as(fastlstm.from_torch(tensors), make())
