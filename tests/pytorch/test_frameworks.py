"""Models of frameworks over PyTorch run unchanged, with and without `accelerate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fastlstm.torch
import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytestmark = pytest.mark.slow


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(3, 16, batch_first=True)
        self.out = nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])  # type: ignore[no-any-return]


def make_data() -> tuple[Tensor, Tensor]:
    x = torch.randn(64, 6, 3, generator=torch.Generator().manual_seed(0))
    return x, (x.sum((1, 2)) > 0).long()


def is_ours(model: nn.Module) -> bool:
    (row,) = fastlstm.torch.report(model).rows
    return row.replaced


@pytest.mark.filterwarnings("ignore")  # the frameworks' own, of many versions
def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = Classifier()
            self.losses: list[float] = []

        def training_step(self, batch: Any, _: int) -> Tensor:
            loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), 1e-2)

    def losses_of(ours: bool) -> list[float]:
        torch.manual_seed(0)
        module = Module()
        if ours:
            fastlstm.torch.accelerate(module)
        trainer = lightning.Trainer(
            max_epochs=3,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            default_root_dir=tmp_path,
        )
        data = torch.utils.data.TensorDataset(*make_data())
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=16))
        assert is_ours(module) == ours
        file = tmp_path / f"{ours}.ckpt"
        trainer.save_checkpoint(file)
        again = Module.load_from_checkpoint(file)
        x, _ = make_data()
        torch.testing.assert_close(again.model(x), module.model(x), rtol=1e-4, atol=1e-5)
        return module.losses

    torchs, ours = losses_of(False), losses_of(True)
    assert ours == pytest.approx(torchs, rel=1e-5)
    assert torchs[-1] < torchs[0]


@pytest.mark.filterwarnings("ignore")
def test_skorch() -> None:
    skorch = pytest.importorskip("skorch")
    sklearn = pytest.importorskip("sklearn.base")

    def fitted(module: nn.Module) -> Any:
        net = skorch.NeuralNetClassifier(
            module,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.Adam,
            lr=1e-2,
            max_epochs=3,
            batch_size=16,
            train_split=None,
            iterator_train__shuffle=False,
            verbose=0,
        )
        net = sklearn.clone(net)  # as its grid search does: a deep copy
        x, y = make_data()
        return net.fit(x.numpy(), y.numpy())

    torch.manual_seed(0)
    module = Classifier()
    torchs = fitted(module)
    ours = fitted(fastlstm.torch.accelerate(module))
    assert not is_ours(torchs.module_)
    assert is_ours(ours.module_)
    x, _ = make_data()
    chances = [net.predict_proba(x.numpy()) for net in (torchs, ours)]
    np.testing.assert_allclose(chances[1], chances[0], rtol=1e-4)
    losses = [net.history[:, "train_loss"] for net in (torchs, ours)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
