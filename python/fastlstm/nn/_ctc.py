"""Connectionist temporal classification: labels of sequences that say no frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastlstm import _core
from fastlstm._checks import FloatArray, IndexArray, as_bool, as_int, check_shape

from ._sequences import as_indices, as_reduction, as_sequences


def ctc(
    logits: Any,
    lengths: Any,
    targets: Any,
    target_lengths: Any = None,
    *,
    blank: int = 0,
    batch_first: bool = False,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> tuple[float, FloatArray]:
    """Return the loss of connectionist temporal classification, and its gradient.

    The softmax of the logits says for each frame which label it is, or none: the blank. Repeats
    merged and blanks left out, such a path of frames gives a target; the loss is -log of the sum
    over all paths that do (Graves et al.: Connectionist Temporal Classification, ICML 2006).

    Parameters
    ----------
    logits : array_like
        (T, B, V), or (B, T, V) with `batch_first`: of each class at each frame, the blank among
        them. In float32, or else computed in float64. Log probabilities do as well: their softmax
        are the probabilities.
    lengths : array_like of int, or None
        (B,), from 0 to T; None: all are of T frames.
    targets : array_like of int
        (B, S): labels from 0 to V - 1 without the blank; what is past a target's end is not read.
        Or (sum(target_lengths),): one target after the other.
    target_lengths : array_like of int, optional
        (B,); None: all are of S labels.
    blank : int
        The class that is none.
    batch_first : bool
        Whether the logits are (B, T, V).
    reduction : {"mean", "sum"}
        Of the losses of sequences. The mean is PyTorch's: each is divided by its number of labels,
        at least 1, and then the mean is over all B.
    zero_infinity : bool
        A target has no path where frames are too few, one for each label and one between equal
        ones, or where logits of -inf are in the way of all. Its loss is infinite, or with this
        option counts as 0. Its gradient is zero in either case.

    Returns
    -------
    loss : float
        0.0 of no sequences; NaN where a logit is NaN.
    d_logits : ndarray
        Like the logits; zero past a sequence's end.

    Raises
    ------
    ValueError, TypeError
        An argument has another shape, type or value than stated.

    Notes
    -----
    The gradient has the same bits for any number of threads.

    Examples
    --------
    >>> logits = np.zeros((5, 2, 4), np.float32)
    >>> loss, d_logits = ctc(logits, [5, 3], [[1, 2], [3, 0]], [2, 1])
    >>> d_logits.shape
    (5, 2, 4)
    >>> round(loss, 3)
    2.028
    """
    x = as_sequences("logits", logits, "V", lengths, as_bool("batch_first", batch_first))
    V = x.values.shape[2]
    if V == 0:
        raise ValueError("logits: expected at least one class, the blank, got none")
    blank = as_int("blank", blank, 0, V - 1)
    padded, labels = as_targets(targets, target_lengths, x.B)
    read = padded[np.arange(padded.shape[1]) < labels[:, None]]
    blanks = (read == blank).any()
    if read.size and (read.min() < 0 or read.max() >= V or blanks):
        raise ValueError(
            f"targets: expected labels from 0 to {V - 1} without the blank, {blank}, "
            f"got {read.min()} to {read.max()}" + (" and the blank" if blanks else "")
        )
    zero_infinity = as_bool("zero_infinity", zero_infinity)
    mean = as_reduction(reduction) == "mean"
    scales = 1.0 / (max(1, x.B) * np.maximum(labels, 1)) if mean else np.ones(x.B)
    d_logits = np.empty(x.values.shape, x.values.dtype)
    losses = np.empty(x.B)
    _core.ctc(x.values, x.batch_first, x.lengths, padded, labels, blank, scales, d_logits, losses)
    if zero_infinity:
        losses[np.isposinf(losses)] = 0.0
    return float((losses * scales).sum()), d_logits


def as_targets(targets: Any, target_lengths: Any, B: int) -> tuple[IndexArray, IndexArray]:
    """Return targets as (B, S), and their lengths."""
    padded = as_indices("targets", targets)
    if target_lengths is None:
        check_shape("targets", padded, (B, "S"))
        return padded, np.full(B, padded.shape[1], np.int64)
    labels = as_indices("target_lengths", target_lengths)
    check_shape("target_lengths", labels, (B,))
    if padded.ndim == 2:
        check_shape("targets", padded, (B, "S"))
    most = padded.shape[-1] if padded.ndim else 0
    if labels.size and (labels.min() < 0 or labels.max() > most):
        raise ValueError(
            f"target_lengths: expected values from 0 to {most}, "
            f"got {labels.min()} to {labels.max()}"
        )
    if padded.ndim == 1:
        check_shape("targets", padded, (int(labels.sum()),))
        joined = padded
        padded = np.zeros((B, labels.max(initial=0)), np.int64)
        padded[np.arange(padded.shape[1]) < labels[:, None]] = joined
    check_shape("targets", padded, (B, "S"))
    return padded, labels
