"""Decoding: greedy, sampling, beam search and CTC's ways, against all sequences and references."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn, reference
from hypothesis import given, settings
from hypothesis import strategies as st

END = 0


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


class Decoder:
    """The next token depends on all before it, of each source in its own way."""

    def __init__(self, B: int, K: int, V: int, seed: int = 0, first_source: int = 0) -> None:
        self.K, self.V, self.seed = K, V, seed
        self.prefixes: list[tuple[int, ...]] = [
            (first_source + b,) for b in range(B) for _ in range(K)
        ]

    def scores(self, prefix: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng([self.seed, *prefix]).normal(0, 1.5, self.V)

    def __call__(self, tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert (rows // self.K == np.arange(len(rows)) // self.K).all()
        self.prefixes = [(*self.prefixes[r], int(t)) for r, t in zip(rows, tokens, strict=True)]
        return np.array([self.scores(prefix) for prefix in self.prefixes])

    def log_prob(self, source: int, start: int, tokens: tuple[int, ...]) -> float:
        prefix, total = (source, start), 0.0
        for token in tokens:
            total += log_softmax(self.scores(prefix))[token]
            prefix = (*prefix, token)
        return total


def all_ended(decoder: Decoder, source: int, most: int, penalty: float) -> list[tuple[float, Any]]:
    """All sequences with an end, the best first."""
    found = []
    for n in range(most):
        for tokens in itertools.product(range(1, decoder.V), repeat=n):
            log_p = decoder.log_prob(source, 1, (*tokens, END))
            found.append((log_p / (n + 1) ** penalty, tokens))
    return sorted(found, reverse=True)


# --- beam search --------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_the_best_of_all(seed: int, penalty: float) -> None:
    decoder = Decoder(B=2, K=40, V=3, seed=seed)
    found = nn.beam_search(
        decoder, 2, 40, start=1, end=END, max_length=5, length_penalty=penalty, n_best=4
    )
    for source in range(2):
        wanted = all_ended(decoder, source, 5, penalty)[:4]
        assert [tuple(h.tokens) for h in found[source]] == [tokens for _, tokens in wanted]
        assert np.allclose([h.score for h in found[source]], [score for score, _ in wanted])
        assert all(h.ended for h in found[source])
        for h in found[source]:
            assert h.log_prob == pytest.approx(decoder.log_prob(source, 1, (*h.tokens, END)))


def test_a_beam_of_one_is_greedy() -> None:
    for seed in range(20):
        beam = nn.beam_search(Decoder(3, 1, 5, seed), 3, 1, start=2, end=END, max_length=7)
        greedy = nn.greedy(Decoder(3, 1, 5, seed), 3, start=2, end=END, max_length=7)
        for (h,), g in zip(beam, greedy, strict=True):
            assert h.tokens.tolist() == g.tokens.tolist()
            assert h.log_prob == pytest.approx(g.log_prob)
            assert h.ended == g.ended


def test_sources_do_not_depend_on_each_other() -> None:
    options: dict[str, Any] = {"start": 1, "end": END, "max_length": 8, "n_best": 3}
    together = nn.beam_search(Decoder(4, 3, 6), 4, 3, **options)
    (alone,) = nn.beam_search(Decoder(1, 3, 6, first_source=2), 1, 3, **options)
    for h, other in zip(together[2], alone, strict=True):
        assert h.tokens.tolist() == other.tokens.tolist()
        assert h.score == other.score


def test_a_stream_as_the_decoder() -> None:
    """Each hypothesis' probability is that of its tokens by a whole call of the layer."""
    V, K, B = 7, 4, 3
    layer = fastlstm.GRU(V, V, 2, seed=1, dtype="float64")
    stream = layer.stream(B * K)
    state = np.random.default_rng(0).normal(size=(2, B, V))
    stream.state = np.repeat(state, K, axis=1)
    one_hot = np.eye(V)

    def step(tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
        stream.reorder(rows)
        return 5 * stream.step(one_hot[tokens])

    found = nn.beam_search(step, B, K, start=[1, 2, 3], end=END, max_length=6, n_best=K)
    for b, of_source in enumerate(found):
        assert len({tuple(h.tokens) for h in of_source}) == len(of_source) == K
        for h in of_source:
            target = [*h.tokens, END] if h.ended else list(h.tokens)
            inputs = one_hot[[b + 1, *target[:-1]]][:, None]
            output, _ = layer(inputs, state[:, b : b + 1])
            log_p = log_softmax(5 * output[:, 0])[np.arange(len(target)), target]
            assert h.log_prob == pytest.approx(log_p.sum())


def test_without_an_end_the_open_ones_come() -> None:
    def step(tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.tile([-np.inf, 1.0, 0.0], (len(tokens), 1))

    (found,) = nn.beam_search(step, 1, 3, start=1, end=END, max_length=3, n_best=3)
    assert [h.ended for h in found] == [False] * 3
    assert found[0].tokens.tolist() == [1, 1, 1]
    assert [len(h.tokens) for h in found] == [3, 3, 3]


def test_fewer_sequences_than_rows() -> None:
    def step(tokens: np.ndarray, rows: np.ndarray) -> np.ndarray:
        return np.tile([0.0, -np.inf], (len(tokens), 1))

    (found,) = nn.beam_search(step, 1, 4, start=1, end=END, max_length=9, n_best=4)
    assert [(h.tokens.tolist(), h.log_prob, h.ended) for h in found] == [([], 0.0, True)]
    assert nn.beam_search(step, 0, 4, start=1, end=END, max_length=9) == []


# --- greedy and sampling ------------------------------------------------------------------------


def test_greedy() -> None:
    decoder = Decoder(2, 1, 4)
    for source, h in enumerate(nn.greedy(decoder, 2, start=1, end=END, max_length=6)):
        prefix = (source, 1)
        for token in h.tokens:
            assert token == decoder.scores(prefix).argmax()
            prefix = (*prefix, int(token))
        assert h.ended == (len(h.tokens) < 6)
        assert (decoder.scores(prefix).argmax() == END) or not h.ended
    for h in nn.greedy(Decoder(2, 1, 4), 2, start=1, max_length=6):
        assert len(h.tokens) == 6
        assert not h.ended
    assert nn.greedy(Decoder(0, 1, 4), 0, start=1, max_length=6) == []


def test_samples_have_their_seed_and_their_probability() -> None:
    def run(seed: int) -> list[nn.Hypothesis]:
        return nn.sample(Decoder(50, 1, 4), 50, start=1, end=END, max_length=6, seed=seed)

    decoder = Decoder(50, 1, 4)
    first = run(1)
    assert [h.tokens.tolist() for h in first] == [h.tokens.tolist() for h in run(1)]
    assert [h.tokens.tolist() for h in first] != [h.tokens.tolist() for h in run(2)]
    for source, h in enumerate(first):
        tokens = (*h.tokens, END) if h.ended else tuple(h.tokens)
        assert h.log_prob == pytest.approx(decoder.log_prob(source, 1, tokens))


def frequencies(scores: list[float], n: int = 20_000, **options: Any) -> np.ndarray:
    drawn = nn.draw(np.tile(scores, (n, 1)), seed=0, **options)
    return np.bincount(drawn, minlength=len(scores)) / n


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, [0.4, 0.1, 0.3, 0.2]),
        ({"temperature": 0.5}, [16 / 30, 1 / 30, 9 / 30, 4 / 30]),
        ({"temperature": 1e9}, [0.25] * 4),
        ({"temperature": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 2}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_k": 99}, [0.4, 0.1, 0.3, 0.2]),
        ({"top_p": 0.69}, [4 / 7, 0, 3 / 7, 0]),
        ({"top_p": 0.71}, [4 / 9, 0, 3 / 9, 2 / 9]),
        ({"top_p": 1e-9}, [1, 0, 0, 0]),
        ({"top_k": 3, "top_p": 0.5}, [4 / 7, 0, 3 / 7, 0]),
    ],
    ids=str,
)
def test_draws(options: dict[str, Any], wanted: list[float]) -> None:
    actual = frequencies(np.log([0.4, 0.1, 0.3, 0.2]).tolist(), **options)
    assert np.allclose(actual, wanted, rtol=0, atol=0.015)
    assert (actual[np.array(wanted) == 0] == 0).all()


def test_what_has_no_probability_is_never_drawn() -> None:
    assert frequencies([-np.inf, 0.0, -np.inf])[1] == 1
    assert nn.draw(np.zeros((2, 3, 1))).shape == (2, 3)
    assert nn.draw(np.zeros(4), seed=3).shape == ()
    assert nn.draw(np.zeros((0, 3))).shape == (0,)
    generator = np.random.default_rng(5)
    several = [int(nn.draw(np.zeros(1000), seed=generator)) for _ in range(5)]
    assert len(set(several)) > 1


# --- CTC ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(T=st.integers(0, 8), V=st.integers(1, 5), seed=st.integers(0, 99), blank=st.integers(0, 4))
def test_ctc_against_the_reference(T: int, V: int, seed: int, blank: int) -> None:
    blank = blank % V
    logits = np.random.default_rng(seed).normal(0, 1.5, (T + 2, 2, V))
    lengths = [T, T + 2]
    options: dict[str, Any] = {"lengths": lengths, "blank": blank}
    greedy = nn.ctc_decode(logits, **options)
    beams = nn.ctc_decode(logits, **options, beam_size=4, n_best=4)
    first = nn.ctc_decode(logits.swapaxes(0, 1), **options, beam_size=4, batch_first=True)
    for b, length in enumerate(lengths):
        x = logits[:length, b]
        assert greedy[b].tokens.tolist() == reference.ctc_greedy(x, blank)
        wanted = reference.ctc_beam_search(x, 4, blank)
        found = [(tuple(h.tokens.tolist()), h.log_prob) for h in beams[b]]
        possible = [(tokens, log_p) for tokens, log_p in wanted if log_p > -np.inf]
        assert [tokens for tokens, _ in found] == [tokens for tokens, _ in possible]
        assert np.allclose([log_p for _, log_p in found], [log_p for _, log_p in possible])
        assert first[b].tokens.tolist() == beams[b][0].tokens.tolist()


def test_a_wide_beam_has_the_probability_of_the_loss() -> None:
    logits = np.random.default_rng(2).normal(size=(5, 1, 3))
    (found,) = nn.ctc_decode(logits, beam_size=500, n_best=500)
    for h in found:
        loss, _ = nn.ctc(logits, None, h.tokens[None], reduction="sum")
        assert h.log_prob == pytest.approx(-loss)
    assert np.exp([h.log_prob for h in found]).sum() == pytest.approx(1)


def test_the_search_sums_over_paths() -> None:
    """The likeliest path, two blanks, is not of the likeliest target."""
    frames = np.log([[0.6, 0.4], [0.6, 0.4]])[:, None]
    assert nn.ctc_decode(frames)[0].tokens.tolist() == []
    (h,) = nn.ctc_decode(frames, beam_size=2)
    assert h.tokens.tolist() == [1]
    assert np.exp(h.log_prob) == pytest.approx(0.64)


def test_what_is_past_an_end_is_not_read() -> None:
    logits = np.random.default_rng(2).normal(size=(5, 1, 3))
    logits[3:] = np.nan
    assert len(nn.ctc_decode(logits, [3])) == 1
    assert nn.ctc_decode(np.zeros((4, 0, 3))) == []


# --- errors -------------------------------------------------------------------------------------


def returns(value: Any) -> Callable[..., Any]:
    return lambda tokens, rows: value


def greedy(step: Any = None, B: Any = 2, **options: Any) -> Any:
    return nn.greedy(step or Decoder(2, 1, 3), B, **{"start": 1, "max_length": 2, **options})


def beam_search(**options: Any) -> Any:
    options = {"start": 1, "end": END, "max_length": 2, **options}
    return nn.beam_search(Decoder(2, 2, 3), 2, 2, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: greedy(B=-1), ValueError, "batch_size: expected"),
        (lambda: greedy(start=[1]), ValueError, "start: expected"),
        (lambda: greedy(start=1.5), TypeError, "start: expected"),
        (lambda: greedy(max_length=0), ValueError, "max_length: expected"),
        (
            lambda: greedy(returns(np.zeros((3, 4)))),
            ValueError,
            r"step: expected \(2, V\), got \(3, 4\)",
        ),
        (
            lambda: greedy(returns(np.full((2, 4), np.nan))),
            ValueError,
            "step: expected finite scores or -inf, got NaN",
        ),
        (lambda: beam_search(end=3), ValueError, "end: expected a token from 0 to 2, got 3"),
        (lambda: beam_search(n_best=3), ValueError, "n_best: expected an integer from 1 to 2"),
        (lambda: beam_search(length_penalty=-1), ValueError, "length_penalty: expected"),
        (lambda: nn.draw(1.0), ValueError, r"scores: expected \(..., V\)"),
        (lambda: nn.draw([np.nan, 1.0]), ValueError, "scores: expected finite"),
        (lambda: nn.draw([-np.inf, -np.inf]), ValueError, "scores: expected a score above"),
        (lambda: nn.draw([1.0], temperature=0), ValueError, "temperature: expected a number above"),
        (lambda: nn.draw([1.0], top_k=0), ValueError, "top_k: expected"),
        (lambda: nn.draw([1.0], top_p=0), ValueError, "top_p: expected"),
        (lambda: nn.draw([1.0], top_p=1.5), ValueError, "top_p: expected"),
        (lambda: nn.ctc_decode(np.zeros((3, 4))), ValueError, r"logits: expected \(T, B, V\)"),
        (lambda: nn.ctc_decode(np.zeros((3, 1, 4)), blank=4), ValueError, "blank: expected"),
        (lambda: nn.ctc_decode(np.zeros((3, 1, 4)), beam_size=0), ValueError, "beam_size: expec"),
        (lambda: nn.ctc_decode(np.zeros((3, 1, 4)), n_best=2), ValueError, "n_best: expected"),
        (lambda: nn.ctc_decode(np.full((3, 1, 4), np.nan)), ValueError, "logits: expected finite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
