"""Connectionist temporal classification, for one sequence.

Graves, Fernandez, Gomez and Schmidhuber: Connectionist Temporal Classification, ICML 2006. A path
gives each frame a class; repeats are merged, then blanks are left out. The probability of a target
is the sum over all paths that give it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ._arrays import Array, logsumexp


def log_softmax(logits: Array) -> Array:
    """Return the logarithms of the probabilities of classes, along the last axis."""
    return logits - logsumexp(logits, axis=-1)[..., None]


def ctc_loss(logits: Array, target: Sequence[int], blank: int = 0) -> tuple[float, Array]:
    """Return -log p(target) and its gradient by the logits, (T, V).

    The places s of a path are the labels with blanks around them: alpha[t, s] is the log of the sum
    over all paths up to frame t that are at s, beta[t, s] over all that go on from there. Where no
    path gives the target, the loss is infinite, and the gradient here zero.
    """
    T, V = logits.shape
    log_p = log_softmax(logits)
    places = [blank]
    for label in target:
        places += [label, blank]
    S = len(places)
    if T == 0:
        return (0.0 if S == 1 else np.inf), np.zeros((T, V))
    skips = [s >= 2 and places[s] not in (blank, places[s - 2]) for s in range(S)]
    alpha = np.full((T, S), -np.inf)
    alpha[0, :2] = log_p[0, places[:2]]
    for t in range(1, T):
        for s in range(S):
            before = [alpha[t - 1, s]]
            if s >= 1:
                before.append(alpha[t - 1, s - 1])
            if skips[s]:
                before.append(alpha[t - 1, s - 2])
            alpha[t, s] = logsumexp(np.array(before)) + log_p[t, places[s]]
    beta = np.full((T, S), -np.inf)
    beta[-1, -2:] = 0.0
    for t in range(T - 2, -1, -1):
        for s in range(S):
            after = [beta[t + 1, s] + log_p[t + 1, places[s]]]
            if s + 1 < S:
                after.append(beta[t + 1, s + 1] + log_p[t + 1, places[s + 1]])
            if s + 2 < S and skips[s + 2]:
                after.append(beta[t + 1, s + 2] + log_p[t + 1, places[s + 2]])
            beta[t, s] = logsumexp(np.array(after))
    log_all = logsumexp(alpha[-1, -2:])
    if log_all == -np.inf:
        return np.inf, np.zeros((T, V))
    d_logits = np.exp(log_p)
    for s, label in enumerate(places):
        d_logits[:, label] -= np.exp(alpha[:, s] + beta[:, s] - log_all)
    return -float(log_all), d_logits


def ctc_greedy(logits: Array, blank: int = 0) -> list[int]:
    """Return the labels of the likeliest path."""
    path = logits.argmax(axis=-1)
    return [int(c) for t, c in enumerate(path) if c != blank and (t == 0 or c != path[t - 1])]


def ctc_beam_search(
    logits: Array, beam_size: int, blank: int = 0
) -> list[tuple[tuple[int, ...], float]]:
    """Return the likeliest targets and the logs of their probabilities, best first.

    Prefix beam search (Hannun et al.: First-Pass Large Vocabulary Continuous Speech Recognition
    using Bi-Directional Recurrent DNNs, 2014), without a language model: of all prefixes of
    targets, the beam_size likeliest ones go on to the next frame. Each has two sums over paths,
    those that end with a blank and those that do not: after the latter a repeat is no new label.
    """
    log_p = log_softmax(logits)
    beams: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -np.inf)}
    for frame in log_p:
        new: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [-np.inf, -np.inf])
        for prefix, (in_blank, in_label) in beams.items():
            either = np.logaddexp(in_blank, in_label)
            for c, log_c in enumerate(frame):
                longer = (*prefix, c)
                if c == blank:
                    new[prefix][0] = np.logaddexp(new[prefix][0], either + log_c)
                elif prefix and c == prefix[-1]:
                    new[prefix][1] = np.logaddexp(new[prefix][1], in_label + log_c)
                    new[longer][1] = np.logaddexp(new[longer][1], in_blank + log_c)
                else:
                    new[longer][1] = np.logaddexp(new[longer][1], either + log_c)
        by_sum = sorted(new.items(), key=lambda item: -np.logaddexp(item[1][0], item[1][1]))
        beams = {prefix: (sums[0], sums[1]) for prefix, sums in by_sum[:beam_size]}
    return [(prefix, float(np.logaddexp(*sums))) for prefix, sums in beams.items()]
