"""The decoder with attention: values and gradients, streams, files, errors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn, optim
from fastlstm.reference import blocks as reference
from finite_differences import relative_error, slope_error

pytestmark = pytest.mark.every_isa

V, D, P, S, T, B, U = 7, 3, 4, 6, 5, 3, 4
LENGTHS = np.array([5, 2, 3])
TOKENS = np.random.default_rng(1).integers(0, V, (U, B))
TOKEN_LENGTHS = np.array([2, 4, 3])


def make(cell: str = "LSTM", **options: Any) -> nn.AttentionDecoder:
    options = {"dtype": "float64", "seed": 0, **options}
    return nn.AttentionDecoder(V, getattr(fastlstm, cell)(D, P, **options), S, seed=1)


@pytest.fixture
def states(rng: np.random.Generator) -> np.ndarray:
    """(T, B, S): past the ends is nothing that is read."""
    x = rng.normal(size=(T, B, S))
    x[np.arange(T)[:, None] >= LENGTHS] = np.nan
    return x


def test_the_reference(rng: np.random.Generator) -> None:
    sizes = [(U, B, P), (T, B, S), (S, P), (P, P + S), (P,), (U, B, P)]
    *arrays, d = (rng.normal(size=size) for size in sizes)
    h, states, *weights = arrays
    lengths = np.array([5, 0, 3])

    def loss() -> float:
        return float(np.sum(reference.attend(h, states, lengths, *weights)[0] * d))

    grads = reference.attend_backward(d, h, states, lengths, *weights)
    for array, gradient in zip(arrays, grads, strict=True):
        assert slope_error(gradient, loss, array) < 1e-9


@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("LSTM", {}),
        ("LSTM", {"num_layers": 2, "proj_size": 2}),
        ("LSTM", {"batch_first": True}),
        ("GRU", {"num_layers": 2}),
        ("RNN", {}),
    ],
)
def test_values_and_gradients(cell: str, options: dict[str, Any], states: np.ndarray) -> None:
    """Logits against the reference, and gradients of all parameters against slopes."""
    decoder = make(cell, **options)
    first = decoder.layer.batch_first
    known = np.where(np.isnan(states), 0.0, states)

    def laid_out(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.swapaxes(0, 1)) if first else array

    p = decoder.params
    ends = reference.pool(known, LENGTHS, "ends")
    h_0 = np.tanh(ends @ p["start.weight"].T + p["start.bias"])
    h_0 = np.stack(np.split(h_0, decoder.layer.num_layers, axis=1))
    c_0 = np.zeros((len(h_0), B, P))
    h, _ = decoder.layer(laid_out(p["words.weight"][TOKENS]), (h_0, c_0) if cell == "LSTM" else h_0)
    mixed, weights = reference.attend(
        laid_out(h), known, LENGTHS, p["query.weight"], p["mix.weight"], p["mix.bias"]
    )
    expected = mixed @ p["out.weight"].T + p["out.bias"]
    arguments = laid_out(states), LENGTHS, laid_out(TOKENS)
    logits, tape = decoder.forward(*arguments)
    assert relative_error(laid_out(logits), expected) < 1e-14
    assert relative_error(laid_out(tape.weights), weights) < 1e-14
    np.testing.assert_array_equal(decoder(*arguments), logits)

    def loss() -> float:
        return decoder.loss(laid_out(known), LENGTHS, laid_out(TOKENS), TOKEN_LENGTHS)[0]

    _, grads = decoder.loss(*arguments, TOKEN_LENGTHS)
    assert list(grads.params) == list(p)
    assert slope_error(np.nan_to_num(laid_out(grads.states)), loss, known) < 1e-9
    for name, gradient in grads.params.items():
        if isinstance(gradient, optim.SparseRows):
            gradient = gradient.to_dense()
        values = p[name].copy()

        def of_values(name: str = name, values: np.ndarray = values) -> float:
            decoder.update({name: values})
            return loss()

        assert slope_error(gradient, of_values, values) < 1e-9, name
        decoder.update({name: values})  # as they were


def test_the_loss_is_that_of_the_logits(states: np.ndarray) -> None:
    decoder = make()
    logits, tape = decoder.forward(states, LENGTHS, TOKENS[:-1], TOKEN_LENGTHS - 1)
    options = {"label_smoothing": 0.1, "reduction": "sum"}
    expected, d_logits = nn.cross_entropy(logits, TOKENS[1:], TOKEN_LENGTHS - 1, **options)
    loss, grads = decoder.loss(states, LENGTHS, TOKENS, TOKEN_LENGTHS, **options)
    assert abs(loss - expected) < 1e-13
    of_logits = tape.backward(d_logits)
    assert relative_error(grads.states, of_logits.states) < 1e-13
    assert not grads.states[np.isnan(states)].any()
    for name in ("layer.weight_hh_l0", "query.weight", "out.bias"):
        assert relative_error(grads.params[name], of_logits.params[name]) < 1e-13
    # Padding counts nothing, and a sequence may be the start alone.
    padded = np.where(np.arange(U)[:, None] < TOKEN_LENGTHS, TOKENS, V - 1)
    assert decoder.loss(states, LENGTHS, padded, TOKEN_LENGTHS, **options)[0] == loss
    assert decoder.loss(states, LENGTHS, TOKENS, [1, 1, 0])[0] == 0
    assert decoder.loss(states, LENGTHS, TOKENS[:1])[0] == 0


def test_as_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    decoder, states = make(), rng.normal(size=(T, B, S))
    theirs = torch.nn.ModuleDict(
        {
            "words": torch.nn.Embedding(V, D),
            "layer": torch.nn.LSTM(D, P),
            "start": torch.nn.Linear(S, P),
            "query": torch.nn.Linear(P, S, bias=False),
            "mix": torch.nn.Linear(P + S, P),
            "out": torch.nn.Linear(P, V),
        }
    ).double()
    theirs.load_state_dict({k: torch.tensor(v) for k, v in decoder.state_dict().items()})
    x = torch.tensor(states, requires_grad=True)
    ends = torch.cat([x[LENGTHS - 1, range(B), : S // 2], x[0, :, S // 2 :]], -1)
    h_0 = theirs["start"](ends).tanh()[None]
    h, _ = theirs["layer"](theirs["words"](torch.tensor(TOKENS[:-1])), (h_0, torch.zeros_like(h_0)))
    scores = torch.einsum("ubs,tbs->ubt", theirs["query"](h), x)
    mask = torch.arange(T) >= torch.tensor(LENGTHS)[:, None]
    weights = scores.masked_fill(mask, -torch.inf).softmax(-1)
    context = torch.einsum("ubt,tbs->ubs", weights, x)
    logits = theirs["out"](theirs["mix"](torch.cat([h, context], -1)).tanh())
    their_loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), torch.tensor(TOKENS[1:]).flatten()
    )
    their_loss.backward()
    loss, grads = decoder.loss(states, LENGTHS, TOKENS)
    assert abs(loss - float(their_loss.detach())) < 1e-14
    assert relative_error(grads.states, x.grad.numpy()) < 1e-14
    for name, parameter in theirs.named_parameters():
        found = grads.params[name]
        found = found.to_dense() if isinstance(found, optim.SparseRows) else found
        assert relative_error(found, parameter.grad.numpy()) < 1e-14, name


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS, [5, 0, 0]])
def test_a_stream_says_what_a_call_does(
    batch_first: bool, lengths: Any, rng: np.random.Generator
) -> None:
    decoder, K = make(batch_first=batch_first), 2
    states = rng.normal(size=(B, T, S) if batch_first else (T, B, S))
    if lengths is not None:
        outside = np.arange(T)[:, None] >= lengths
        states[outside.T if batch_first else outside] = np.nan
    logits, tape = decoder.forward(states, lengths, TOKENS.T if batch_first else TOKENS)
    weights = tape.weights
    if batch_first:
        logits, weights = logits.swapaxes(0, 1), weights.swapaxes(0, 1)
    stream = decoder.stream(states, lengths, beam_size=K)
    for u, tokens in enumerate(TOKENS):
        found = stream.step(np.repeat(tokens, K)).reshape(B, K, V)
        for k in range(K):
            assert relative_error(found[:, k], logits[u]) < 1e-14
        assert relative_error(stream.weights[::K], weights[u]) < 1e-14


def test_rows_go_on_from_others(rng: np.random.Generator) -> None:
    decoder, states = make(), rng.normal(size=(T, 2, S))
    stream = decoder.stream(states, beam_size=2)
    stream.step([0, 1, 2, 3])
    found = stream.step([4, 4, 5, 5], [1, 1, 2, 2])
    expected = decoder(states, None, [[1, 2], [4, 5]])[1]
    assert relative_error(found, np.repeat(expected, 2, axis=0)) < 1e-14
    with pytest.raises(ValueError, match="rows: expected that each goes on from one of its own"):
        stream.step([0, 1, 2, 3], [0, 1, 1, 3])


def test_searches(states: np.ndarray) -> None:
    """A beam of one is greedy, and what is found has the probability that the logits say."""
    decoder = make()
    options = {"start": 0, "end": 1, "max_length": 6}
    one = nn.greedy(decoder.stream(states, LENGTHS).step, B, **options)
    beam = nn.beam_search(decoder.stream(states, LENGTHS).step, B, 1, **options)
    wide = decoder.decode(states, LENGTHS, beam_size=5, **options)
    alone = decoder.decode(states, LENGTHS, **options)
    for b, best in enumerate(wide):
        assert beam[b][0].tokens.tolist() == one[b].tokens.tolist() == alone[b].tokens.tolist()
        tokens = np.array([0, *best.tokens, *([1] if best.ended else [])])[:, None]
        of_source = states[: LENGTHS[b], b : b + 1]
        loss, _ = decoder.loss(of_source, None, tokens, reduction="sum")
        assert abs(best.log_prob + loss) < 1e-12


def test_it_learns(rng: np.random.Generator) -> None:
    """To say digits backwards: what no last state of four units could keep, attention finds."""
    model = nn.Module(
        words=nn.Embedding(6, 8, seed=0),
        encoder=fastlstm.LSTM(8, 16, bidirectional=True, seed=1),
        decoder=nn.AttentionDecoder(6, fastlstm.LSTM(8, 16, seed=2), 32, seed=3),
    )
    optimizer = optim.Adam(lr=2e-2)
    x = rng.integers(2, 6, (6, 64))
    tokens = np.concatenate([np.zeros((1, 64), int), x[::-1], np.ones((1, 64), int)])
    for _ in range(60):
        vectors, words = model.words.forward(x)
        states, _, encoder = model.encoder.forward(vectors)
        _, grads = model.decoder.loss(states, None, tokens)
        of_encoder = encoder.backward(grads.states)
        grads_by_part = {"encoder": of_encoder, "decoder": grads}
        model.step(optimizer, {"words": words.backward(of_encoder.x), **grads_by_part}, clip=1.0)
    states, _ = model.encoder(model.words(x))
    found = model.decoder.decode(states, start=0, end=1, max_length=7)
    right = [h.tokens.tolist() == x[::-1, b].tolist() for b, h in enumerate(found)]
    assert np.mean(right) > 0.9


def test_dropout_of_the_layer(states: np.ndarray) -> None:
    decoder = make(num_layers=2, dropout=0.5)
    first, second = (decoder.forward(states, LENGTHS, TOKENS)[0] for _ in range(2))
    assert np.abs(first - second).max() > 1e-3
    decoder.eval()
    without, _ = decoder.forward(states, LENGTHS, TOKENS)
    decoder.train()
    np.testing.assert_array_equal(decoder(states, LENGTHS, TOKENS), without)


def test_files_and_copies(tmp_path: Path, states: np.ndarray) -> None:
    model = nn.Module(inner=nn.Module(decoder=make("GRU")))
    model.save(tmp_path / "model")
    expected = model.inner.decoder(states, LENGTHS, TOKENS)
    model.inner.decoder.save(tmp_path / "decoder")
    for decoder in (
        nn.Module.load(tmp_path / "model").inner.decoder,
        nn.AttentionDecoder.load(tmp_path / "decoder"),
        copy.deepcopy(model).inner.decoder,
    ):
        assert repr(decoder) == repr(model.inner.decoder)
        np.testing.assert_array_equal(decoder(states, LENGTHS, TOKENS), expected)


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"AttentionDecoder"', '"Decoder"', "Decoder"),
        ('"mix"', '"mixed"', "damaged"),
        ('"ends"', '"end"', "how: expected"),
        ('"scaled": false', '"scaled": true', r"parts of a decoder, .* got .*scaled=True"),
        ('"batch_first": true', '"batch_first": false', "expected the parts of a decoder"),
    ],
)
def test_damaged_files(tmp_path: Path, old: str, new: str, text: str) -> None:
    path = tmp_path / "model"
    nn.Module(decoder=make(batch_first=True)).save(path)
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    config = header["__metadata__"]["fastlstm"]
    assert old in config
    header["__metadata__"]["fastlstm"] = config.replace(old, new, 1)
    header = {key.replace(old.strip('"'), new.strip('"')): v for key, v in header.items()}
    made = json.dumps(header).encode()
    path.write_bytes(len(made).to_bytes(8, "little") + made + data[8 + size :])
    with pytest.raises(ValueError, match=text):
        nn.Module.load(path)


X = np.zeros((T, B, S))


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda d: nn.AttentionDecoder(V, d, S), TypeError, "layer: expected a layer, got Att"),
        (
            lambda d: nn.AttentionDecoder(V, fastlstm.GRU(2, 3, bidirectional=True), S),
            ValueError,
            "layer: expected one that reads from the beginning",
        ),
        (lambda d: nn.AttentionDecoder(V, d.layer, 0), ValueError, "n_states: expected an integer"),
        (lambda d: nn.AttentionDecoder(0, d.layer, S), ValueError, "V: expected"),
        (lambda d: nn.AttentionDecoder(V, d.layer, S, pooling="x"), ValueError, "how: expected"),
        (lambda d: d(X[..., 1:], None, TOKENS), ValueError, r"states: expected \(T, B, 6\)"),
        (lambda d: d(X, [1, 2], TOKENS), ValueError, "lengths: expected"),
        (lambda d: d(X, None, TOKENS[:, 1:]), ValueError, r"tokens: expected \(U, 3\), got"),
        (lambda d: d(X, None, TOKENS + V), ValueError, "expected tokens from 0 to 6"),
        (lambda d: d(X, None, TOKENS * 0.5), TypeError, "tokens: expected integers"),
        (lambda d: d(X, None, TOKENS, [9, 9, 9]), ValueError, "lengths: expected"),
        (lambda d: d.loss(X, None, TOKENS[:0]), ValueError, "tokens: expected sequences of at"),
        (lambda d: d.loss(X, None, TOKENS, [5, 0, 0]), ValueError, "token_lengths: expected 0 to"),
        (lambda d: d.loss(X, None, TOKENS, [4]), ValueError, r"token_lengths: expected \(3,\)"),
        (lambda d: d.loss(X, None, TOKENS, reduction="no"), ValueError, "reduction: expected"),
        (lambda d: d.forward(X, None, TOKENS)[1].backward(X), ValueError, "d_y: expected"),
        (lambda d: d.stream(X, beam_size=0), ValueError, "beam_size: expected an integer"),
        (lambda d: d.stream(X).step([1]), ValueError, r"tokens: expected \(3,\), got \(1,\)"),
        (lambda d: d.stream(X).step([1, 2, 3], [0]), ValueError, r"rows: expected \(3,\)"),
    ],
)
def test_errors(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(make())
