"""Calls of fastlstm.nn's blocks and losses: right by the reference and by bits, or refused."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import fastlstm
import numpy as np
from calls import BATCHES, SIZES, THREADS, odd_array, odd_thing
from fastlstm import nn, reference
from fastlstm.reference import blocks, losses
from support import assert_same_bits

# Of the largest value: sums of some thousand products, and what a softmax makes of them.
BOUNDS = {"float32": 1e-4, "float64": 1e-11}
MOST_VALUES = 20_000  # of a sequence: the reference is NumPy, row by row


class Drawn(NamedTuple):
    """Values of sequences, (T, B, n), of the lengths that the reference takes and a call may."""

    x: Any
    lengths: Any
    given: Any
    rng: np.random.Generator

    @property
    def exact(self) -> Any:
        return self.x.astype(np.float64)

    def close(self, got: Any, want: Any, what: str, least: float = 0.0) -> None:
        """least: how large the values may be, at the least, whose differences these are."""
        got, want = np.asarray(got), np.asarray(want)
        assert got.shape == want.shape, what
        scale = max(np.abs(want).max(initial=0), least) or 1.0
        assert np.abs(got - want).max(initial=0) <= BOUNDS[self.x.dtype.name] * scale, what


def case(random: Random) -> bool:
    """One block or loss, with the same bits for any number of threads; then odd arguments."""
    operation = random.choice(OPERATIONS)
    drawn = draw(random)
    results = []
    for threads in random.sample(THREADS, 2):
        with fastlstm.num_threads(threads):
            results.append(operation(drawn))
    for k, (a, b) in enumerate(zip(*results, strict=True)):
        assert_same_bits(np.asarray(a), np.asarray(b), f"{operation.__name__} {k}")
    odd(random, drawn)
    return True


def draw(random: Random) -> Drawn:
    rng = np.random.default_rng(random.getrandbits(32))
    B, n = random.choice(BATCHES), random.choice(SIZES)
    T = max(1, min(random.choice((1, 2, 3, 7, 20, 60)), MOST_VALUES // (B * n)))
    lengths = rng.integers(0, T, B, endpoint=True)
    given: Any = lengths
    if random.random() < 0.3:
        lengths, given = np.full(B, T), None
    x = rng.standard_normal((T, B, n)).astype(random.choice(("float32", "float64")))
    if random.random() < 0.3:
        x[np.arange(T)[:, None] >= lengths] = np.nan  # nobody reads it
    return Drawn(x, lengths, given, rng)


# --- what is called -------------------------------------------------------------------------------


def linear(d: Drawn) -> list[Any]:
    rows = np.nan_to_num(d.x).reshape(-1, d.x.shape[2])
    V = SIZES[d.x.size % len(SIZES)]
    block = nn.Linear(rows.shape[1], V, dtype=rows.dtype, seed=0)
    y, tape = block.forward(rows)
    d_y = np.cos(np.arange(y.size).reshape(y.shape)).astype(y.dtype)
    grads = tape.backward(d_y)
    W, b = block.params["weight"], block.params["bias"]
    exact = blocks.linear_backward(d_y.astype(np.float64), rows.astype(np.float64), W)
    d.close(y, blocks.linear(rows.astype(np.float64), W, b), "y")
    found = [grads.x, grads.params["weight"], grads.params["bias"]]
    for name, got, want in zip(("d_x", "d_W", "d_b"), found, exact, strict=True):
        d.close(got, want, name)
    return [y, *found]


def pool(d: Drawn) -> list[Any]:
    found = []
    for how in ("max", "mean", "last"):
        y, tape = nn.Pool(how).forward(d.x, d.given)
        d.close(y, blocks.pool(d.exact, d.lengths, how), how)
        d_x = tape.backward(y).x
        exact = blocks.pool_backward(y.astype(np.float64), d.exact, d.lengths, how)
        d.close(d_x, exact, f"d_x of {how}")
        found += [y, d_x]
    return found


def attention(d: Drawn) -> list[Any]:
    query = np.sin(np.arange(d.x[0].size)).reshape(d.x[0].shape).astype(d.x.dtype)
    y, tape = nn.Attention().forward(query, d.x, d.given)
    grads = tape.backward(query)
    q = query.astype(np.float64)[None]
    d.close(y, blocks.attention(q, d.exact, d.lengths, 1.0)[0][0], "context")
    d_query, d_states = blocks.attention_backward(q, q, d.exact, d.lengths, 1.0)
    d.close(grads.query, d_query[0], "d_query", least=1.0)
    d.close(grads.states, d_states, "d_states")
    return [y, grads.query, grads.states]


def cross_entropy(d: Drawn) -> list[Any]:
    T, B, V = d.x.shape
    y = np.arange(T * B).reshape(T, B) % V
    counts = np.arange(T)[:, None] < d.lengths
    loss, d_x = nn.cross_entropy(d.x, y, d.given, label_smoothing=0.25, reduction="sum")
    exact, of_counted = losses.cross_entropy(d.exact[counts], y[counts], np.ones(V), 0.25)
    d.close(loss, exact, "loss", least=T * B)
    d.close(d_x[counts], of_counted, "d_logits", least=1.0)
    assert not d_x[~counts].any()
    return [loss, d_x]


def crf(d: Drawn) -> list[Any]:
    T, B, n = d.x.shape
    block = nn.CRF(n, dtype=d.x.dtype, seed=0)
    tags = np.arange(T * B).reshape(T, B) % n
    loss, grads = block.loss(d.x, tags, d.given, reduction="sum")
    scores = [value.astype(np.float64) for value in block.params.values()]
    by_name = dict(zip(block.params, scores, strict=True))
    of_path = [by_name[f"{part}transitions"] for part in ("start_", "end_", "")]
    exact = 0.0
    for b, length in enumerate(d.lengths):
        if length:
            of_one, of_row = reference.crf_loss(d.exact[:length, b], tags[:length, b], *of_path)
            exact += of_one
            d.close(grads.x[:length, b], of_row.emissions, "d_emissions", least=1.0)
    d.close(loss, exact, "loss", least=T * B)
    best = block.decode(d.x, d.given)
    assert ((best >= 0) == (np.arange(T)[:, None] < d.lengths)).all()
    return [loss, grads.x, *grads.params.values(), best, block.marginals(d.x, d.given)]


def ctc(d: Drawn) -> list[Any]:
    T, B, V = d.x.shape
    S = 3 if V > 1 else 0
    targets = 1 + np.arange(B * S).reshape(B, S) % max(V - 1, 1)
    loss, d_x = nn.ctc(d.x, d.given, targets, reduction="sum", zero_infinity=True)
    exact = 0.0
    for b, length in enumerate(d.lengths):
        if length:
            of_one, of_row = reference.ctc_loss(d.exact[:length, b], targets[b].tolist())
            exact += of_one if np.isfinite(of_one) else 0.0
            d.close(d_x[:length, b], of_row, "d_logits", least=1.0)
    d.close(loss, exact, "loss", least=T * B)
    found = nn.ctc_decode(d.x, d.given, beam_size=2)
    return [loss, d_x, *(h.tokens for h in found), [h.log_prob for h in found]]


def odd(random: Random, d: Drawn) -> None:
    """Odd arguments are refused, or mean what they say."""
    n = d.x.shape[2]
    crf_block = nn.CRF(n, dtype=d.x.dtype, seed=0)
    calls: list[tuple[Callable[..., Any], list[Any]]] = [
        (nn.Linear(n, 3, dtype=d.x.dtype, seed=0).forward, [d.x]),
        (nn.Embedding(4, n, seed=0).forward, [np.zeros(3, np.int64)]),
        (nn.Pool("max").forward, [d.x, d.given]),
        (nn.Attention().forward, [d.x[0], d.x, d.given]),
        (nn.cross_entropy, [d.x, np.zeros(d.x.shape[:2], np.int64), d.given]),
        (crf_block.loss, [d.x, np.zeros(d.x.shape[:2], np.int64), d.given]),
        (nn.ctc, [d.x, d.given, np.ones((d.x.shape[1], 1), np.int64)]),
    ]
    for call, arguments in random.sample(calls, 3):
        place = random.randrange(len(arguments))
        value = arguments[place]
        if not isinstance(value, np.ndarray):
            value = np.zeros(d.x.shape[1], np.int64)
        arguments[place] = random.choice((odd_array, odd_thing))(random, value)
        try:
            call(*arguments)
        except (ValueError, TypeError):
            continue


OPERATIONS = [linear, pool, attention, cross_entropy, crf, ctc]
