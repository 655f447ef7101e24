"""From scores to sequences: greedy, beam search and sampling around a decoder; CTC's own ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastlstm._checks import (
    MOST_SIZE,
    FloatArray,
    IndexArray,
    as_bool,
    as_float_array,
    as_int,
    as_real,
    check_shape,
)

from ._sequences import as_indices, as_sequences

Step = Callable[[IndexArray, IndexArray], Any]


class Hypothesis(NamedTuple):
    """What a decoder came to."""

    tokens: IndexArray
    """(n,): without the start and the end."""
    log_prob: float
    """The sum of the logarithms of the tokens' probabilities, the end's among them."""
    score: float
    """What hypotheses are ranked by."""
    ended: bool
    """Whether the end came, and not only the most tokens."""


def greedy(
    step: Step, batch_size: int, *, start: Any, end: int | None = None, max_length: int
) -> list[Hypothesis]:
    """Take the likeliest token at each step.

    Parameters
    ----------
    step : callable
        ``step(tokens, rows)``, the decoder: tokens (R,) are each row's last ones, the start at
        first, and row r goes on from what row ``rows[r]`` was, which a stream's ``reorder(rows)``
        does. It returns (R, V): log probabilities of the next tokens, or logits, which are
        normalised to such. Here R is `batch_size`, and the rows always stay as they are.
    batch_size : int
        B, the number of sequences.
    start : int or array_like of int
        The token that all begin with, or (B,).
    end : int, optional
        The token after which a sequence has ended; None: none has before `max_length`.
    max_length : int
        The most tokens of a sequence, the end among them.

    Returns
    -------
    list of Hypothesis
        One a sequence; the score is the log probability.

    Raises
    ------
    ValueError, TypeError
        An argument, or what `step` returns, is not as stated, or has a NaN.

    Examples
    --------
    A decoder that counts: after each token the next one is likeliest.

    >>> def step(tokens, rows):
    ...     return np.eye(6)[(tokens + 1) % 6]
    >>> [h.tokens.tolist() for h in greedy(step, 2, start=[0, 3], end=5, max_length=9)]
    [[1, 2, 3, 4], [4]]
    """
    return _token_by_token(step, batch_size, start, end, max_length, lambda p: p.argmax(axis=-1))


def sample(
    step: Step,
    batch_size: int,
    *,
    start: Any,
    end: int | None = None,
    max_length: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: Any = None,
) -> list[Hypothesis]:
    """Draw each token at random, by its probability.

    Parameters
    ----------
    step, batch_size, start, end, max_length
        As of :func:`greedy`.
    temperature, top_k, top_p, seed
        As of :func:`draw`.

    Returns
    -------
    list of Hypothesis
        One a sequence. Log probabilities are those of the decoder, without temperature, `top_k`
        and `top_p`.

    Raises
    ------
    ValueError, TypeError
        An argument, or what `step` returns, is not as stated, or has a NaN.
    """
    random = np.random.default_rng(seed)

    def choose(log_p: FloatArray) -> IndexArray:
        return draw(log_p, temperature=temperature, top_k=top_k, top_p=top_p, seed=random)

    return _token_by_token(step, batch_size, start, end, max_length, choose)


def draw(
    scores: Any,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: Any = None,
) -> IndexArray:
    """Draw a token of each row at random.

    Parameters
    ----------
    scores : array_like
        (..., V): logits or log probabilities; -inf is never drawn.
    temperature : float
        Above 0. The logits are divided by it: below 1 likely tokens become likelier.
    top_k : int, optional
        Only the k likeliest tokens; of equal ones the first.
    top_p : float, optional
        Above 0 and at most 1. Only the fewest tokens whose probabilities, with the temperature and
        within `top_k`, add up to it: the likeliest ones.
    seed : int or numpy.random.Generator, optional
        Makes the draws reproducible.

    Returns
    -------
    ndarray of int64
        (...).

    Raises
    ------
    ValueError, TypeError
        An argument is not as stated, a score is NaN, or all scores of a row are -inf.

    Examples
    --------
    >>> draw([[0.0, 1.0, 5.0], [9.0, 0.0, 0.0]], top_k=1)
    array([2, 0])
    """
    array = as_float_array("scores", scores, np.dtype(np.float64))
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(f"scores: expected (..., V) with V of at least 1, got {array.shape}")
    temperature = as_real("temperature", temperature, 0.0, np.inf)
    if temperature == 0:
        raise ValueError("temperature: expected a number above 0, got 0 (greedy takes the best)")
    V = array.shape[-1]
    k = V if top_k is None else min(V, as_int("top_k", top_k, 1, MOST_SIZE))
    p = 1.0 if top_p is None else as_real("top_p", top_p, 0.0, 1.0)
    if p == 0:
        raise ValueError("top_p: expected a number above 0, got 0")
    log_p = _log_softmax("scores", array)
    if log_p.size and np.isneginf(log_p.max(axis=-1)).any():
        raise ValueError("scores: expected a score above -inf in each row")
    order = np.argsort(-log_p, axis=-1, kind="stable")[..., :k]
    chosen = np.take_along_axis(log_p, order, axis=-1)
    weights = np.exp((chosen - chosen[..., :1]) / temperature)
    weights /= weights.sum(axis=-1, keepdims=True)
    before = weights.cumsum(axis=-1) - weights
    weights = np.where(before < p, weights, 0.0)  # the first always stays
    until = weights.cumsum(axis=-1)
    uniform = np.random.default_rng(seed).random(array.shape[:-1])[..., None]
    place = (until <= uniform * until[..., -1:]).sum(axis=-1, keepdims=True)
    # What rounding could make of it is never a token of no probability.
    place = np.minimum(place, (weights > 0).sum(axis=-1, keepdims=True) - 1)
    drawn: IndexArray = np.take_along_axis(order, place, axis=-1)[..., 0].astype(np.int64)
    return drawn


def beam_search(
    step: Step,
    batch_size: int,
    beam_size: int,
    *,
    start: Any,
    end: int,
    max_length: int,
    length_penalty: float = 0.0,
    n_best: int = 1,
) -> list[list[Hypothesis]]:
    """Search for the likeliest sequences, `beam_size` at a time for each source.

    Parameters
    ----------
    step : callable
        As of :func:`greedy`, with R = `batch_size` * `beam_size` rows: first those of the first
        source, then of the second. What the decoder begins with is the same for all rows of a
        source: ``np.repeat(state, beam_size, axis=1)``. From the second step on ``rows`` says where
        each row goes on from, always of the same source.
    batch_size : int
        B, the number of sources.
    beam_size : int
        K, the sequences of a source that go on side by side.
    start : int or array_like of int
        The token that all begin with, or (B,).
    end : int
        The token after which a sequence has ended.
    max_length : int
        The most tokens of a sequence, the end among them.
    length_penalty : float
        Sequences are ranked by log probability / (number of tokens, end included) **
        length_penalty: 0 favours short ones, 1 is the mean of the tokens.
    n_best : int
        How many to return of each source, at most `beam_size`.

    Returns
    -------
    list of list of Hypothesis
        By source, best first. Those without an end come after all that have one, and only where
        these are fewer than `n_best`.

    Raises
    ------
    ValueError, TypeError
        An argument, or what `step` returns, is not as stated, or has a NaN.

    Notes
    -----
    A source is done when nothing that its beam could still become would be among its best.

    Examples
    --------
    >>> lstm = fastlstm.LSTM(5, 5, seed=0)
    >>> stream = lstm.stream(batch_size=2 * 3)
    >>> def step(tokens, rows):
    ...     stream.reorder(rows)
    ...     return stream.step(np.eye(5, dtype=np.float32)[tokens])
    >>> found = beam_search(step, 2, 3, start=0, end=4, max_length=6, n_best=2)
    >>> [len(of_source) for of_source in found]
    [2, 2]
    """
    B = as_int("batch_size", batch_size, 0, MOST_SIZE)
    K = as_int("beam_size", beam_size, 1, MOST_SIZE)
    n_best = as_int("n_best", n_best, 1, K)
    end = as_int("end", end, 0, MOST_SIZE)
    max_length = as_int("max_length", max_length, 1, MOST_SIZE)
    penalty = as_real("length_penalty", length_penalty, 0.0, np.inf)
    last = np.repeat(_starts(start, B), K)
    rows = np.arange(B * K)
    log_probs = np.full((B, K), -np.inf)
    log_probs[:, 0] = 0.0  # all rows are the same: one of them counts
    tokens = np.empty((B, K, 0), np.int64)
    ended: list[list[Hypothesis]] = [[] for _ in range(B)]
    done = np.zeros(B, np.bool_)
    source = np.arange(B)[:, None]
    length = 0
    while length < max_length and not done.all():
        length += 1
        log_p = _scores_of(step, last, rows).reshape(B, K, -1)
        V = log_p.shape[2]
        if end >= V:
            raise ValueError(f"end: expected a token from 0 to {V - 1}, got {end}")
        totals = (log_probs[:, :, None] + log_p).reshape(B, K * V)
        # As many as there are rows end at most: of twice as many a beam is left.
        best = _largest(totals, min(2 * K, K * V))
        best_totals = totals[source, best]
        beam, token = np.divmod(best, V)
        ends = token == end
        for b, place in np.argwhere(ends & np.isfinite(best_totals)):
            if place < K and not done[b]:
                log_prob = float(best_totals[b, place])
                score = log_prob / length**penalty
                ended[b].append(Hypothesis(tokens[b, beam[b, place]], log_prob, score, True))
        best_totals[ends] = -np.inf
        going_on = np.argsort(-best_totals, axis=1, kind="stable")[:, :K]
        log_probs = best_totals[source, going_on]
        beam, token = beam[source, going_on], token[source, going_on]
        tokens = np.concatenate([tokens[source, beam], token[:, :, None]], axis=2)
        last = token.reshape(-1)
        rows = (source * K + beam).reshape(-1)
        # Log probabilities only fall, and a longer sequence divides by more.
        could_be = log_probs.max(axis=1) / max_length**penalty
        for b in range(B):
            ended[b] = sorted(ended[b], key=lambda h: -h.score)[:n_best]
            enough = len(ended[b]) == n_best and ended[b][-1].score >= could_be[b]
            done[b] = done[b] or enough or np.isneginf(could_be[b])
    for b in range(B):
        open_ones = [
            Hypothesis(tokens[b, k], float(p), float(p) / length**penalty, False)
            for k, p in enumerate(log_probs[b])
            if np.isfinite(p)
        ]
        if len(ended[b]) < n_best:
            open_ones.sort(key=lambda h: -h.score)
            ended[b] += open_ones[: n_best - len(ended[b])]
    return ended


def ctc_decode(
    logits: Any,
    lengths: Any = None,
    *,
    blank: int = 0,
    beam_size: int = 1,
    n_best: int | None = None,
    batch_first: bool = False,
) -> list[Any]:
    """Return the labels that frames classified for :func:`ctc` say.

    Parameters
    ----------
    logits : array_like
        (T, B, V), or (B, T, V) with `batch_first`: logits or log probabilities.
    lengths : array_like of int, optional
        (B,), from 0 to T.
    blank : int
        The class that is none.
    beam_size : int
        1: the labels of the likeliest path, whose probability is that of this path alone. Above:
        prefix beam search (Hannun et al. 2014), which sums over paths: of all beginnings so many go
        on from frame to frame. An empty sequence is one, too.
    n_best : int, optional
        With it, the so many best of each sequence, at most `beam_size`.
    batch_first : bool
        Whether the logits are (B, T, V).

    Returns
    -------
    list of Hypothesis, or with `n_best` list of list of Hypothesis
        By sequence, best first. The log probability of a search is that of the paths it has
        followed: at most the target's.

    Raises
    ------
    ValueError, TypeError
        An argument is not as stated, or a logit before a sequence's end is NaN.

    Examples
    --------
    >>> frames = np.log([[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]])
    >>> [h.tokens.tolist() for h in ctc_decode(frames[:, None])]
    [[1, 1]]
    >>> [h.tokens.tolist() for h in ctc_decode(frames[:, None], beam_size=4)]
    [[1, 1]]
    """
    x = as_sequences("logits", logits, "V", lengths, as_bool("batch_first", batch_first))
    V = x.values.shape[2]
    if V == 0:
        raise ValueError("logits: expected at least one class, the blank, got none")
    blank = as_int("blank", blank, 0, V - 1)
    beam_size = as_int("beam_size", beam_size, 1, MOST_SIZE)
    most = None if n_best is None else as_int("n_best", n_best, 1, beam_size)
    found = []
    for b, length in enumerate(x.all_lengths()):
        frames = x.values[b, :length] if x.batch_first else x.values[:length, b]
        log_p = _log_softmax("logits", frames.astype(np.float64))
        if beam_size == 1:
            of_sequence = [_ctc_greedy(log_p, blank)]
        else:
            of_sequence = _ctc_prefixes(log_p, blank, beam_size)
        found.append(of_sequence[0] if most is None else of_sequence[:most])
    return found


def _ctc_greedy(log_p: FloatArray, blank: int) -> Hypothesis:
    path = log_p.argmax(axis=1)
    changes = np.ones(len(path), np.bool_)
    changes[1:] = path[1:] != path[:-1]
    log_prob = float(log_p.max(axis=1).sum())
    return Hypothesis(path[changes & (path != blank)], log_prob, log_prob, True)


class _Prefix(NamedTuple):
    """A beginning of a target: the one without its last label, and this; None: nothing."""

    before: Any
    label: int

    def labels(self) -> IndexArray:
        labels = []
        prefix = self
        while prefix.before is not None:
            labels.append(prefix.label)
            prefix = prefix.before
        return np.array(labels[::-1], np.int64)


def _ctc_prefixes(log_p: FloatArray, blank: int, beam_size: int) -> list[Hypothesis]:
    """Search by prefixes. Each has two sums over paths: that end in a blank, and in its label."""
    V = log_p.shape[1]
    empty = _Prefix(None, -1)
    # One object for each prefix, so that it is found again: by the one before and the label.
    known: dict[tuple[int, int], _Prefix] = {}
    prefixes = [empty]
    in_blank, in_label = np.zeros(1), np.full(1, -np.inf)
    for frame in log_p:
        n = len(prefixes)
        label = np.array([prefix.label for prefix in prefixes])
        either = np.logaddexp(in_blank, in_label)
        longer = either[:, None] + frame  # by prefix and label
        has_label = label >= 0
        repeats = np.flatnonzero(has_label)
        longer[repeats, label[repeats]] = in_blank[repeats] + frame[label[repeats]]
        longer[:, blank] = -np.inf
        stay_label = np.where(has_label, in_label + frame[label], -np.inf)
        stay_blank = either + frame[blank]
        # What becomes a prefix that is in the beam already adds to it.
        places = {id(prefix): k for k, prefix in enumerate(prefixes)}
        for k in repeats:
            before = places.get(id(prefixes[k].before))
            if before is not None:
                stay_label[k] = np.logaddexp(stay_label[k], longer[before, label[k]])
                longer[before, label[k]] = -np.inf
        candidates = np.concatenate([np.logaddexp(stay_blank, stay_label), longer.reshape(-1)])
        best = _largest(candidates[None], min(beam_size, candidates.size))[0]
        best = best[np.isfinite(candidates[best])]
        chosen, blanks, labels = [], [], []
        for place in best.tolist():
            if place < n:
                chosen.append(prefixes[place])
                blanks.append(stay_blank[place])
                labels.append(stay_label[place])
            else:
                k, c = divmod(place - n, V)
                new = known.setdefault((id(prefixes[k]), c), _Prefix(prefixes[k], c))
                chosen.append(new)
                blanks.append(-np.inf)
                labels.append(longer[k, c])
        prefixes, in_blank, in_label = chosen, np.array(blanks), np.array(labels)
    sums = np.logaddexp(in_blank, in_label)
    return [
        Hypothesis(prefixes[k].labels(), float(sums[k]), float(sums[k]), True)
        for k in np.argsort(-sums, kind="stable")
    ]


def _token_by_token(
    step: Step,
    batch_size: int,
    start: Any,
    end: int | None,
    max_length: int,
    choose: Callable[[FloatArray], IndexArray],
) -> list[Hypothesis]:
    """One token of each sequence at a time: choose(log probabilities (B, V)) says which."""
    B = as_int("batch_size", batch_size, 0, MOST_SIZE)
    max_length = as_int("max_length", max_length, 1, MOST_SIZE)
    if end is not None:
        end = as_int("end", end, 0, MOST_SIZE)
    last, rows = _starts(start, B), np.arange(B)
    log_probs, lengths = np.zeros(B), np.zeros(B, np.int64)
    going = np.ones(B, np.bool_)
    tokens: list[IndexArray] = []
    while going.any() and len(tokens) < max_length:
        log_p = _scores_of(step, last, rows)
        last = choose(log_p)
        log_probs[going] += log_p[rows, last][going]
        going = going & (last != end) if end is not None else going
        lengths[going] += 1
        tokens.append(last)
    all_tokens = np.array(tokens, np.int64).reshape(len(tokens), B)
    return [
        Hypothesis(
            all_tokens[: lengths[b], b].copy(), float(log_probs[b]), float(log_probs[b]), not open_
        )
        for b, open_ in enumerate(going)
    ]


def _starts(start: Any, B: int) -> IndexArray:
    tokens = as_indices("start", start)
    check_shape("start", tokens, (), (B,))
    return np.broadcast_to(tokens, (B,)).copy()


def _scores_of(step: Step, tokens: IndexArray, rows: IndexArray) -> FloatArray:
    """What the decoder says next, as log probabilities in float64."""
    # Copies: the decoder may keep or change what it is given.
    scores = as_float_array("step", step(tokens.copy(), rows.copy()), np.dtype(np.float64))
    check_shape("step", scores, (len(tokens), "V"))
    if scores.shape[1] == 0:
        raise ValueError("step: expected scores of at least one token, got none")
    return _log_softmax("step", scores)


def _log_softmax(name: str, scores: FloatArray) -> FloatArray:
    """Along the last axis; what is -inf stays, also where all are."""
    most = scores.max(axis=-1, keepdims=True)
    if not (most < np.inf).all():  # nor is NaN
        raise ValueError(f"{name}: expected finite scores or -inf, got NaN or infinity")
    log_p: FloatArray = scores - np.maximum(most, np.finfo(scores.dtype).min)
    # At least 1, the likeliest's, but where all are -inf.
    total = np.exp(log_p).sum(axis=-1, keepdims=True)
    log_p -= np.log(np.maximum(total, 1.0))
    return log_p


def _largest(values: FloatArray, n: int) -> IndexArray:
    """The places of the n largest of each row, largest first, of equal ones the first."""
    negative = -values
    if n == values.shape[1]:
        return np.argsort(negative, axis=1, kind="stable")
    row = np.arange(len(values))[:, None]
    best = np.argpartition(negative, n - 1, axis=1)[:, :n]
    best.sort(axis=1)
    places: IndexArray = best[row, np.argsort(negative[row, best], axis=1, kind="stable")]
    return places
