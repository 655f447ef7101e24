"""Layers of modules, and modules of layers: `from_torch` and `to_torch`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import fastlstm
import fastlstm.torch
import numpy as np
import pytest
import torch
from fastlstm import torch as ft
from torch import nn

MODULES = {
    "projection, peepholes, zoneout": lambda: ft.LSTM(
        3, 5, 2, bidirectional=True, proj_size=2, peepholes=True, zoneout=0.1
    ),
    "layer norm": lambda: ft.LSTM(3, 5, layer_norm=True, recurrent_dropout=0.2),
    "functions": lambda: ft.LSTM(
        3, 5, input_forget=True, clip=0.5, activations=("HardSigmoid", "Tanh", "Softsign")
    ),
    "from the end": lambda: ft.LSTM(3, 5, reverse=True, batch_first=True, bias=False),
    "reset before": lambda: ft.GRU(3, 5, reset_after=False, dtype=torch.float64),
    "function of an RNN": lambda: ft.RNN(3, 5, activations=("Softsign",)),
    "merged": lambda: ft.RNN(3, 5, 2, "relu", merge="sum", bidirectional=True, dropout=0.25),
    "accelerated": lambda: ft.accelerate(nn.GRU(3, 5, 2, batch_first=True)),
}
CELLS = {
    "LSTMCell": lambda: ft.LSTMCell(3, 5, peepholes=True),
    "normed": lambda: ft.LSTMCell(3, 5, layer_norm=True),
    "GRUCell": lambda: ft.GRUCell(3, 5, zoneout=0.3),
    "RNNCell": lambda: ft.RNNCell(3, 5, nonlinearity="relu"),
    "accelerated": lambda: ft.accelerate(nn.LSTMCell(3, 5)),
}


def first(thing: Any) -> Any:
    return thing[0] if isinstance(thing, tuple) else thing


@pytest.mark.parametrize("name", MODULES)
def test_a_module_its_layer_and_its_module(name: str, tmp_path: Path) -> None:
    module = MODULES[name]().eval()
    x = torch.randn(4, 2, 3, dtype=next(module.parameters()).dtype)
    expected = module(x)[0].detach().numpy()
    torch.save(nn.Sequential(module), tmp_path / "model.pt")
    layer = fastlstm.from_torch(module)
    for one in (layer, fastlstm.from_torch(tmp_path / "model.pt", "0")):
        assert repr(one) == repr(layer)
        np.testing.assert_array_equal(one(x.numpy())[0], expected)
    back = layer.to_torch().eval()
    assert type(back) is type(module)
    assert repr(back) == repr(module)
    np.testing.assert_array_equal(back(x)[0].detach(), expected)
    with torch.no_grad():
        back.weight_ih_l0.zero_()  # a copy
    np.testing.assert_array_equal(layer(x.numpy())[0], expected)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_becomes_a_layer(name: str, tmp_path: Path) -> None:
    cell = CELLS[name]().eval()
    x = torch.randn(2, 3)
    torch.save(cell, tmp_path / "cell.pt")
    for source in (cell, tmp_path / "cell.pt"):
        output, _ = fastlstm.from_torch(source)(x[None].numpy())
        np.testing.assert_array_equal(output[0], first(cell(x)).detach())


def test_nothing_is_drawn() -> None:
    """to_torch leaves torch's random numbers alone."""
    torch.manual_seed(0)
    expected = torch.rand(())
    torch.manual_seed(0)
    fastlstm.LSTM(3, 5, layer_norm=True).to_torch()
    assert torch.rand(()) == expected


def test_a_module_trains_after_to_torch() -> None:
    module = fastlstm.LSTM(3, 5).to_torch()
    assert module.training
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in module.parameters())
    module(torch.ones(4, 2, 3))[0].sum().backward()
    assert all(p.grad is not None for p in module.parameters())


class Changed(fastlstm.torch.LSTM):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return super().forward(*args, **kwargs)


def with_peepholes_lost() -> nn.Module:
    module = ft.LSTM(3, 5, peepholes=True)
    del module.weight_peephole_l0
    return module


def with_option(name: str, value: Any) -> nn.Module:
    module = ft.LSTM(3, 5)
    module.__dict__[name] = value  # as a damaged file may have it
    return module


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Changed(3, 5), r"got Changed\.forward"),
        (with_peepholes_lost, r"missing: weight_peephole_l0"),
        (lambda: with_option("clip", "much"), r"clip: expected"),
        (lambda: with_option("num_layers", 10**8), r"num_layers: expected parameters of 100000000"),
        (lambda: with_option("hidden_size", 7), r"weight_ih_l0: expected \(28, 3\), got \(20, 3\)"),
    ],
)
def test_what_is_no_layer(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fastlstm.from_torch(make())


def test_the_module_says_it_all() -> None:
    with pytest.raises(ValueError, match=r"batch_first: expected None, as the module says"):
        fastlstm.from_torch(ft.LSTM(3, 5), batch_first=True)


@pytest.mark.parametrize("code", ["import fastlstm.torch", "fastlstm.LSTM(3, 5).to_torch()"])
def test_without_pytorch(code: str) -> None:
    program = (
        "import sys, fastlstm; assert 'torch' not in sys.modules; sys.modules['torch'] = None\n"
        f"try:\n    {code}\nexcept ModuleNotFoundError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    expected = "fastlstm.torch needs the package torch: pip install 'fastlstm[torch]'\n"
    assert done.stdout == expected
