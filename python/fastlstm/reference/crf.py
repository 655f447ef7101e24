"""A linear-chain conditional random field over tags, for one sequence.

Lafferty, McCallum and Pereira: Conditional Random Fields, ICML 2001. The score of a path y is

.. code-block:: text

    score(y) = start[y_0] + sum_t emissions[t, y_t] + sum_t transitions[y_{t-1}, y_t] + end[y_{T-1}]

and its probability exp(score(y)) / Z, with Z the sum of exp(score) over all paths.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ._arrays import Array, logsumexp


class CRFGradients(NamedTuple):
    """Gradients of the loss, by what it depends on."""

    emissions: Array
    start: Array
    end: Array
    transitions: Array


def crf_score(
    emissions: Array, tags: np.ndarray, start: Array, end: Array, transitions: Array
) -> float:
    """Return the score of one path. emissions: (T, n), tags: (T,)."""
    score = start[tags[0]] + end[tags[-1]]
    score += sum(emissions[t, y] for t, y in enumerate(tags))
    score += sum(transitions[i, j] for i, j in pairwise(tags))
    return float(score)


def crf_forward(emissions: Array, start: Array, transitions: Array) -> Array:
    """Return alpha (T, n): the log of the sum over all paths up to step t that end with a tag."""
    alpha = np.empty_like(emissions)
    alpha[0] = start + emissions[0]
    for t in range(1, len(emissions)):
        alpha[t] = logsumexp(alpha[t - 1][:, None] + transitions, axis=0) + emissions[t]
    return alpha


def crf_backward(emissions: Array, end: Array, transitions: Array) -> Array:
    """Return beta (T, n): the log of the sum over all that may follow a tag at step t."""
    beta = np.empty_like(emissions)
    beta[-1] = end
    for t in range(len(emissions) - 2, -1, -1):
        beta[t] = logsumexp(transitions + emissions[t + 1] + beta[t + 1], axis=1)
    return beta


def crf_marginals(emissions: Array, start: Array, end: Array, transitions: Array) -> Array:
    """Return p (T, n): the probability of each tag at each step."""
    alpha = crf_forward(emissions, start, transitions)
    beta = crf_backward(emissions, end, transitions)
    return np.exp(alpha + beta - logsumexp(alpha[-1] + end))


def crf_loss(
    emissions: Array, tags: np.ndarray, start: Array, end: Array, transitions: Array
) -> tuple[float, CRFGradients]:
    """Return -log p(tags) and its gradients.

    The gradient of log Z by a score is how often paths use it, on average; that of the score of the
    tags is how often they do.
    """
    T, n = emissions.shape
    alpha = crf_forward(emissions, start, transitions)
    beta = crf_backward(emissions, end, transitions)
    log_z = logsumexp(alpha[-1] + end)
    p = np.exp(alpha + beta - log_z)
    used = np.eye(n)[tags]
    d_transitions = np.zeros((n, n))
    for t in range(1, T):
        pairs = alpha[t - 1][:, None] + transitions + emissions[t] + beta[t]
        d_transitions += np.exp(pairs - log_z) - np.outer(used[t - 1], used[t])
    loss = log_z - crf_score(emissions, tags, start, end, transitions)
    d = p - used
    return float(loss), CRFGradients(d, d[0], d[-1], d_transitions)


def crf_decode(emissions: Array, start: Array, end: Array, transitions: Array) -> np.ndarray:
    """Return the path with the highest score, (T,), by Viterbi's algorithm."""
    T = len(emissions)
    best = start + emissions[0]
    come_from = np.zeros(emissions.shape, np.int64)
    for t in range(1, T):
        scores = best[:, None] + transitions
        come_from[t] = scores.argmax(axis=0)
        best = scores.max(axis=0) + emissions[t]
    tags = np.empty(T, np.int64)
    tags[-1] = (best + end).argmax()
    for t in range(T - 1, 0, -1):
        tags[t - 1] = come_from[t, tags[t]]
    return tags
