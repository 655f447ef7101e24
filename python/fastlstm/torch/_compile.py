"""``torch.compile`` of models with recurrent modules."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn


def compile(model: Any = None, **options: Any) -> Any:
    """Compile a model with recurrent modules of :mod:`fastlstm.torch`, in one graph.

    Dynamo refuses every instance of ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``: after
    ``torch.compile``, functions that call one run as they did. Here it is allowed to look at them
    while it compiles calls of this model, and of no other. The modules become operators of the
    graph, ``fastlstm::forward`` and ``fastlstm::backward``.

    Parameters
    ----------
    model : nn.Module or callable, optional
        What to compile. None: return a decorator.
    **options
        Those of ``torch.compile``.

    Returns
    -------
    nn.Module or callable
        As of ``torch.compile``.

    Notes
    -----
    Modules of torch's own in the same model are allowed, too, and Dynamo writes out their steps one
    by one; ``fastlstm.torch.accelerate(model)`` comes first.

    Examples
    --------
    >>> layer = fastlstm.torch.LSTM(8, 16)
    >>> compiled = fastlstm.torch.compile(layer, fullgraph=True, backend="eager")
    >>> output, (h_n, c_n) = compiled(torch.zeros(5, 2, 8))
    """
    if model is None:
        return functools.partial(compile, **options)
    compiled = torch.compile(model, **options)
    if compiled is model:  # with `disable`
        return model
    from ._optimized import Optimized, allowing  # imports Dynamo, as torch.compile has

    return Optimized.of(compiled) if isinstance(model, nn.Module) else allowing(compiled)
