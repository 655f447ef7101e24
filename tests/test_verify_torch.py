"""What is compared with a source of PyTorch: the source as it stands, or it is said what is not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import fastlstm
import pytest
from fastlstm.cli import main

torch = pytest.importorskip("torch")

prune = pytest.importorskip("torch.nn.utils.prune")
nn = torch.nn


def make(kind: str = "LSTM", **options: Any) -> Any:
    torch.manual_seed(0)
    return getattr(nn, kind)(3, 5, **options)


def weight_norm(module: Any, name: str, dim: int | None = 0) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(module, name, dim)


def verified(layer: Any, source: Any, **options: Any) -> Any:
    report = fastlstm.verify(layer, source, **options)
    assert report.ok, report
    return report


def test_what_is_around_a_layer() -> None:
    model = nn.ModuleDict({"embedding": nn.Embedding(4, 3), "rnn": make(), "fc": nn.Linear(5, 2)})
    layer = fastlstm.from_torch(model)
    (line,) = verified(layer, model).not_looked_at
    assert line == "what ModuleDict computes around rnn: embedding, fc"
    assert verified(layer, model["rnn"]).not_looked_at == ()
    report = verified(layer, [model.state_dict(), None])
    assert report.not_looked_at == (
        "what a model does with these weights: a layer of torch.nn was made of them",
        "other tensors of the source: 0.embedding.weight, 0.fc.bias, 0.fc.weight",
    )


def test_parametrised_state_dicts_are_computed_by_pytorch() -> None:
    cases = [
        weight_norm(make(), "weight_hh_l0"),
        weight_norm(make("GRU", dtype=torch.float64), "weight_ih_l0", dim=1),
        weight_norm(make("LSTMCell"), "weight_hh", dim=None),
        nn.utils.parametrizations.weight_norm(make(), "weight_hh_l0"),
        nn.utils.parametrizations.spectral_norm(make(), "weight_hh_l0", dim=1),
        nn.utils.spectral_norm(make("GRU"), "weight_hh_l0"),
        prune.random_unstructured(make(), "weight_hh_l0", amount=0.3),
    ]
    for module in cases:
        layer = fastlstm.from_torch(module)
        report = verified(layer, {"rnn": module.state_dict()})
        assert len(report.not_looked_at) == 1
        with torch.no_grad():
            next(module.parameters()).mul_(1.1)
        assert not fastlstm.verify(layer, module.state_dict()).ok


def test_a_module_is_run_as_it_stands(tmp_path: Path) -> None:
    """Not as its attributes have been since the last call."""
    module = weight_norm(make(), "weight_hh_l0")
    before = fastlstm.from_torch(module)
    with torch.no_grad():
        module.weight_hh_l0_g.mul_(1.1)
    torch.save(module, tmp_path / "m.pt")
    layer = fastlstm.from_torch(tmp_path / "m.pt")
    for source in (module, tmp_path / "m.pt"):
        assert verified(layer, source).not_looked_at == ()
        assert not fastlstm.verify(before, source).ok
    with pytest.raises(ValueError, match=r"cannot be copied, pass its \.float\(\)"):
        fastlstm.verify(layer, weight_norm(make(), "weight_hh_l0").half())


class Doubled(nn.LSTM):
    def forward(self, x: Any, state: Any = None) -> Any:
        output, state = super().forward(x, state)
        return 2 * output, state


@pytest.mark.parametrize("beside", ["weight_hh_l0_raw", "layernorm.weight", "bias"])
def test_what_is_not_understood_is_not_called_the_same(
    beside: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = {**make().state_dict(), beside: torch.ones(5)}
    torch.save(tensors, tmp_path / "m.pt")
    assert main(["verify", str(tmp_path / "m.pt")]) == 2
    assert beside in capsys.readouterr().err
    module = Doubled(3, 5)
    with pytest.raises(ValueError, match=r"got Doubled\.forward"):
        fastlstm.verify(fastlstm.from_torch(module.state_dict()), module)


def test_files_that_hold_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Sequential(make()), tmp_path / "m.pt")
    assert main(["verify", str(tmp_path / "m.pt")]) == 2
    assert "PyTorch would run its code" in capsys.readouterr().err
