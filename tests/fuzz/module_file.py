"""Files of modules and of estimators: a tree of blocks as text, beside their tensors."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import fastlstm
import numpy as np
from fastlstm import nn
from safetensors_file import mutated

__all__ = ["mutated"]


def originals(folder: Path) -> None:
    parts = {
        "words": nn.Embedding(5, 3, seed=0),
        "encoder": fastlstm.LSTM(3, 4, bidirectional=True, seed=0),
        "dropout": nn.Dropout(0.5),
        "out": nn.Linear(8, 2, seed=0),
    }
    module = nn.Module(**parts)
    module.meta["labels"] = ["a", "b"]
    module.save(folder / "module.safetensors")
    if importlib.util.find_spec("sklearn") is not None:
        from fastlstm.sklearn import Forecaster, SequenceClassifier

        brief = {"hidden_size": 4, "epochs": 1, "early_stopping": None, "random_state": 0}
        X = [np.full((3, 2), k, np.float32) for k in range(8)]
        classifier = SequenceClassifier(**brief).fit(X, ["a", "b"] * 4)
        classifier.save(folder / "classifier.safetensors")
        Forecaster(**brief).fit(np.sin(np.arange(99.0))).save(folder / "forecaster.safetensors")


def read(path: str) -> object:
    try:
        return nn.Module.load(path)
    except ValueError:
        return fastlstm.load(path)
