"""Existing models: their recurrent modules become ours, and torch's again."""

from __future__ import annotations

from torch import nn

from ._modules import GRU, LSTM, RNN

_OURS = {nn.LSTM: LSTM, nn.GRU: GRU, nn.RNN: RNN}


def accelerate(model: nn.Module, verbose: bool = False) -> nn.Module:
    """Make every recurrent module of a model ours, in place; return the model."""
    for module in model.modules():
        if type(module) in _OURS:
            module.__class__ = _OURS[type(module)]
    if verbose:
        print(report(model))
    return model


def restore(model: nn.Module) -> nn.Module:
    """Undo :func:`accelerate`."""
    theirs = {ours: its for its, ours in _OURS.items()}
    for module in model.modules():
        if type(module) in theirs:
            module.__dict__.pop("_engine", None)
            module.__class__ = theirs[type(module)]
    return model


def report(model: nn.Module) -> str:
    """Say of each recurrent module whether it is ours."""
    lines = [
        f"{name or '(the model)'}: {'ours' if type(module) in _OURS.values() else 'torch'}"
        for name, module in model.named_modules()
        if isinstance(module, nn.RNNBase)
    ]
    return "\n".join(lines)
