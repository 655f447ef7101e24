"""How far a quantized layer is from the one that it was made of: in a step, and in the end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.cli import main

MAKERS: dict[str, Any] = {
    "LSTM": lambda: fastlstm.LSTM(3, 9, 2, bidirectional=True, proj_size=4, seed=0),
    "GRU": lambda: fastlstm.GRU(3, 9, batch_first=True, seed=0),
    "RNN": lambda: fastlstm.RNN(3, 9, reverse=True, seed=0),
    "separate": lambda: fastlstm.LSTM(3, 9, bidirectional=True, merge=None, seed=0),
}


@pytest.mark.parametrize("name", MAKERS)
def test_errors_by_step_and_unit(name: str) -> None:
    layer = MAKERS[name]()
    small = layer.quantize("int8")
    x = np.random.default_rng(0).standard_normal((7, 7, 3)).astype(np.float32)
    found = fastlstm.compare_layers(small, layer, x)
    cells = layer.num_layers * (2 if layer.bidirectional else 1)
    P = getattr(layer, "proj_size", 0) or 9
    assert found.by_step.shape == (7,)
    assert found.by_unit.shape == (cells, P)
    assert found.step_errors["h"].shape == (cells, 7, P)
    assert set(found.step_errors) == ({"h", "c"} if "c" in layer.trace(x)[0][0]._fields else {"h"})
    ours, exact = (np.asarray(each(x)[0]) for each in (small, layer))
    assert found.error == np.abs(ours.astype(float) - exact).max()
    assert found.relative_error == found.error / np.abs(exact).max()
    rms = np.sqrt(np.mean((ours.astype(float) - exact) ** 2) / np.mean(exact.astype(float) ** 2))
    assert found.rms == pytest.approx(rms)
    assert 0 < found.error < 0.1


def test_a_step_by_itself_begins_with_the_exact_state() -> None:
    """Written out for one step of one direction."""
    layer = fastlstm.GRU(3, 5, seed=1)
    small = layer.quantize("int8")
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype(np.float32)
    found = fastlstm.compare_layers(small, layer, x)
    h = np.zeros((1, 2, 5), np.float32)
    for t in range(6):
        after = layer(x[t : t + 1], h)[1]
        error = np.abs(small(x[t : t + 1], h)[1].astype(float) - after).max(axis=1)
        assert np.array_equal(found.step_errors["h"][:, t], error)
        h = after


def test_a_unit_that_is_wrong_is_found() -> None:
    layer = fastlstm.LSTM(3, 8, seed=0)
    weights = layer.params["weight_ih_l0"].copy()
    weights[2 * 8 + 5, 1] = 1000.0  # an outlier makes the rest of its row coarse
    layer.update({"weight_ih_l0": weights})
    x = np.random.default_rng(0).standard_normal((20, 4, 3)).astype(np.float32)
    x[:, :, 1] = 0
    found = fastlstm.compare_layers(layer.quantize("int8"), layer, x)
    assert found.by_unit[0].argmax() == 5
    lines = str(found).splitlines()
    first = next(k for k, line in enumerate(lines) if line.split()[:1] == ["layer"])
    assert lines[first + 1].split()[:3] == ["0", "0", "5"]


def test_of_itself() -> None:
    layer = fastlstm.LSTM(3, 4, seed=0)
    same = fastlstm.compare_layers(layer, layer)
    assert same.error == same.rms == same.relative_error == 0
    assert not same.by_step.any()
    one = fastlstm.compare_layers(layer, layer, np.ones((5, 3)))
    assert one.sequences == 1


def test_mistakes() -> None:
    layer = fastlstm.LSTM(3, 4)
    for other in (fastlstm.GRU(3, 4), fastlstm.LSTM(3, 5), fastlstm.LSTM(3, 4, reverse=True)):
        with pytest.raises(ValueError, match="small: expected the kind and sizes of LSTM"):
            fastlstm.compare_layers(other, layer)
    with pytest.raises(TypeError, match="expected an LSTM, GRU or RNN"):
        fastlstm.compare_layers(3, layer)
    for shape in ((2, 4), (0, 2, 3), (3,)):
        with pytest.raises(
            ValueError, match=re.escape(f"x: expected (T, B, 3) and some, got {shape}")
        ):
            fastlstm.compare_layers(layer, layer, np.ones(shape))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layer = fastlstm.LSTM(3, 16, seed=0)
    layer.save(tmp_path / "layer.safetensors")
    layer.quantize("int8", "int8").save(tmp_path / "small.safetensors")
    argv = ["verify", str(tmp_path / "small.safetensors"), "--with"]
    argv.append(str(tmp_path / "layer.safetensors"))
    assert main([*argv, "--seed", "3"]) == 0
    out = capsys.readouterr().out
    found = fastlstm.compare_layers(layer.quantize("int8", "int8"), layer, seed=3)
    assert out == f"{found}\n"
    assert out.startswith("LSTM(3, 16).quantize('int8', 'int8')\ncompared with LSTM(3, 16), 100 st")
    assert main([*argv, "--tolerance", "0.5"]) == 0
    assert main([*argv, "--tolerance", "1e-6"]) == 1
    capsys.readouterr()
    assert main([*argv, "--node", "a"]) == 2
    assert "--with: expected neither --node" in capsys.readouterr().err
    assert main([*argv[:-1], str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
