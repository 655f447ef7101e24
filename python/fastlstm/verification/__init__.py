"""Whether a layer is what it was converted from: compared with PyTorch, Keras or ONNX Runtime.

:mod:`._sources` runs the frameworks, :mod:`._inputs` makes what both sides get, :mod:`._results`
says how far rounding can take them apart, :mod:`._pair` compares. Where they differ by more,
:mod:`._locate` finds the first step and unit, :mod:`._causes` and :mod:`._fit` the gate and what is
wrong with it. :mod:`._precision` compares a layer of few bits with the one that it was made of.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from fastlstm._checks import as_bool, as_int, as_real
from fastlstm._extras import needs_extra
from fastlstm.interchange._description import build
from fastlstm.layers import check_layer

from ._inputs import make_inputs
from ._locate import Difference, locate
from ._pair import Compared, Pair
from ._precision import Precision, compare_layers
from ._report import Check, Report
from ._results import SMALLEST
from ._sources import Source, find_source

__all__ = ["Check", "Difference", "Precision", "Report", "compare_layers", "convert", "verify"]


@needs_extra("verify", "verify")
def verify(
    layer: Any,
    source: Any,
    which: str | None = None,
    *,
    nonlinearity: str | None = None,
    tolerance: float | None = None,
    special: bool = False,
    seed: int = 0,
) -> Report:
    """Compare a layer with what it was converted from, run by its own framework.

    Parameters
    ----------
    layer : LSTM, GRU or RNN
        Of fastlstm.
    source : module, layer, model, mapping or path-like
        What :func:`fastlstm.from_torch`, :func:`fastlstm.from_keras` or :func:`fastlstm.from_onnx`
        reads; but of a file that holds a whole module, or Keras weights only, the loaded module or
        model. PyTorch, Keras or ONNX Runtime must be installed.
    which : str, optional
        Which layer of the source: the ``prefix``, ``name`` or ``node`` of these functions.
    nonlinearity : str, optional
        For the state_dict of an RNN of PyTorch.
    tolerance : float, optional
        The largest difference that is allowed, as a part of the largest value at the same time
        step; by default what rounding explains (docs/verify.md).
    special : bool
        Also compare where NaN and infinity are among the inputs.
    seed : int
        Of the random inputs.

    Returns
    -------
    Report
        Whether they are the same (``ok``), the largest errors for each kind of inputs, and the
        first step, gate and unit that differ; what of the source did not take part
        (``not_looked_at``). It prints as a table.

    Raises
    ------
    ModuleNotFoundError
        The source's framework is not installed; the message says what is missing.
    ValueError, TypeError
        The source cannot be read or run, or is not a layer of the same kind and sizes.

    Examples
    --------
    >>> import torch  # doctest: +SKIP
    >>> module = torch.nn.LSTM(8, 64)  # doctest: +SKIP
    >>> layer = fastlstm.from_torch(module)  # doctest: +SKIP
    >>> fastlstm.verify(layer, module).ok  # doctest: +SKIP
    True
    """
    check_layer(layer)
    if tolerance is not None:
        tolerance = as_real("tolerance", tolerance, 0.0, 1.0)
    special, seed = as_bool("special", special), as_int("seed", seed, 0, 2**32 - 1)
    pair = make_pair(layer, find_source(source, which, nonlinearity), tolerance, seed)
    return compare(pair, special=special)


@needs_extra("verify", "verify")
def convert(source: Any, which: str | None = None, *, nonlinearity: str | None = None) -> Any:
    """Convert a layer, whatever its framework: the arguments are those of :func:`verify`.

    Initial states and lengths that an ONNX model has as constants are left out: a comparison is of
    the layer and brings its own.
    """
    return build(find_source(source, which, nonlinearity).describe())


def make_pair(layer: Any, source: Source, tolerance: float | None, seed: int) -> Pair:
    """Check that a layer and a source can be compared."""
    fresh = build(source.describe())
    kind = ("input_size", "hidden_size", "num_layers", "bidirectional", "proj_size", "layer_norm")
    if type(layer) is not type(fresh) or any(
        getattr(layer, name, 0) != getattr(fresh, name, 0) for name in kind
    ):
        raise ValueError(f"layer: expected the kind and sizes of {fresh!r}, got {layer!r}")
    eps = max(float(np.finfo(dtype).eps) for dtype in (layer.dtype, source.dtype))
    return Pair(layer, source, fresh, eps, tolerance, seed)


def compare(pair: Pair, *, special: bool) -> Report:
    """Compare all kinds of inputs, and locate the first difference."""
    dtype = "float32" if pair.eps > 1e-10 else "float64"
    kinds = make_inputs(
        pair.layer, dtype, lengths=pair.source.takes_lengths, special=special, seed=pair.seed
    )
    alone = (pair.compare(inputs) for inputs in kinds)
    in_place = (pair.judge(*both) for both in pair.source.in_place(pair.seed))
    checks, first = [], None
    for compared in itertools.chain(alone, in_place):
        checks.append(_check(compared))
        if first is None and not compared.ok:
            first = locate(pair, compared)
    source = pair.source
    return Report(repr(pair.layer), source.title, tuple(checks), first, source.not_looked_at)


def _check(compared: Compared) -> Check:
    T, B, _ = compared.inputs.x.shape
    relative, parts = [0.0], [0.0]
    for ours, apart, bound in zip(
        compared.ours.arrays(), compared.apart, compared.bounds, strict=True
    ):
        largest = float(np.max(np.abs(ours[np.isfinite(ours)]), initial=0.0))
        most = float(np.max(apart, initial=0.0))
        relative.append(most / largest if largest > SMALLEST[ours.dtype.name] else 0.0)
        parts.append(float(np.max(apart / bound, initial=0.0)))
    error = max(float(np.max(apart, initial=0.0)) for apart in compared.apart)
    return Check(compared.inputs.name, T, B, error, max(relative), max(parts))
