"""Modules: names, steps of training, files; and batches of sequences."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from damage import check_reader
from fastlstm import nn, optim
from finite_differences import slope_error
from hypothesis import given
from hypothesis import strategies as st
from support import assert_same_bits


def make_tagger(dtype: str = "float32") -> nn.Module:
    """Tokens, a layer with two directions, and a class for each sequence."""
    model = nn.Module(
        words=nn.Embedding(20, 6, padding=0, dtype=dtype, seed=0),
        lstm=fastlstm.LSTM(6, 5, bidirectional=True, dtype=dtype, seed=1),
        drop=nn.Dropout(0.5, seed=2),
        pool=nn.Pool("max"),
        out=nn.Linear(10, 3, dtype=dtype, seed=3),
    )
    model.meta["labels"] = ["a", "b", "ä"]
    return model


def run(model: nn.Module, tokens: Any, lengths: Any, y: Any) -> tuple[float, dict[str, Any]]:
    """The loss and all gradients, once forward and once backward."""
    x, words = model.words.forward(tokens)
    output, _, lstm = model.lstm.forward(x, lengths=lengths)
    dropped, drop = model.drop.forward(output)
    pooled, pool = model.pool.forward(dropped, lengths)
    logits, out = model.out.forward(pooled)
    loss, d_logits = nn.cross_entropy(logits, y)
    grads: dict[str, Any] = {"out": out.backward(d_logits)}
    d_output = drop.backward(pool.backward(grads["out"].x).x).x
    grads["lstm"] = lstm.backward(d_output)
    grads["words"] = words.backward(grads["lstm"].x)
    return loss, grads


TOKENS, LENGTHS = nn.pad([[3, 5, 5, 9], [7, 2], [1], [4, 4, 11]])
Y = np.array([0, 1, 2, 1])


def test_gradients_of_a_whole_model() -> None:
    model = make_tagger("float64")
    model.eval()
    _, grads = run(model, TOKENS, LENGTHS, Y)
    for part in ("words", "lstm", "out"):
        for name, gradient in grads[part].params.items():
            full = f"{part}.{name}"
            values = model.state_dict()[full]

            def loss(full: str = full, values: np.ndarray = values) -> float:
                model.update({full: values})
                return run(model, TOKENS, LENGTHS, Y)[0]

            dense = gradient.to_dense() if part == "words" else gradient
            assert slope_error(dense, loss, values, 1e-4) < 1e-8, full
            model.update({full: values})


def test_training_learns_and_the_same_seed_gives_the_same_model() -> None:
    results = []
    for threads in (1, 2):
        with fastlstm.num_threads(threads):
            model, optimizer = make_tagger(), optim.Adam(lr=0.05)
            losses = []
            for _ in range(40):
                loss, grads = run(model, TOKENS, LENGTHS, Y)
                norm = model.step(optimizer, grads, clip=1.0)
                assert norm is not None
                losses.append(loss)
            results.append((losses, model.state_dict()))
    assert np.mean(results[0][0][-5:]) < 0.2 * results[0][0][0]
    assert results[0][0] == results[1][0]
    for name, value in results[0][1].items():
        np.testing.assert_array_equal(value, results[1][1][name])


def test_a_step_is_the_optimisers() -> None:
    model, same = make_tagger(), make_tagger()
    _, grads = run(model, TOKENS, LENGTHS, Y)
    optimizer, other = optim.SGD(0.1, momentum=0.9), optim.SGD(0.1, momentum=0.9)
    flat = {f"{part}.{n}": g for part, of_part in grads.items() for n, g in of_part.params.items()}
    assert model.step(optimizer, grads) is None
    expected = other.step({name: same.params[name] for name in flat}, flat)
    same.step(optim.SGD(0.1), flat)  # the first step has no momentum yet
    for name, value in expected.items():
        np.testing.assert_array_equal(model.params[name], value)
        np.testing.assert_array_equal(same.params[name], value)
    before = model.state_dict()
    model.step(optimizer, {"out": {"bias": np.ones(3, np.float32)}})
    changed = [n for n, value in before.items() if (value != model.params[n]).any()]
    assert changed == ["out.bias"]


def test_no_step_is_made_where_the_norm_is_not_finite() -> None:
    model, optimizer = make_tagger(), optim.Adam()
    before = model.state_dict()
    norm = model.step(optimizer, {"out": {"bias": np.array([1, np.nan, 0])}}, clip=1.0)
    assert norm is not None
    assert np.isnan(norm)
    for name, value in before.items():
        np.testing.assert_array_equal(model.params[name], value)
    assert optimizer.state_dict()["state"] == {}


def test_modules_in_modules() -> None:
    model = nn.Module(encoder=make_tagger(), head=nn.Linear(3, 2, seed=0))
    assert "encoder.lstm.weight_ih_l0_reverse" in model.params
    assert model.num_parameters == sum(value.size for value in model.params.values())
    model.eval()
    assert not model.training
    assert not model.encoder.drop.training
    model.train()
    assert model.encoder.drop.training
    bias = np.ones(3, np.float32)
    model.step(optim.SGD(1.0), {"encoder": {"out": {"bias": bias}}})
    np.testing.assert_allclose(
        model.params["encoder.out.bias"], make_tagger().params["out.bias"] - 1
    )
    model.update({"encoder.out.bias": bias})
    np.testing.assert_array_equal(model.encoder.out.params["bias"], bias)


def test_what_a_module_shows() -> None:
    model = nn.Module(lstm=fastlstm.LSTM(3, 4), out=nn.Linear(4, 2))
    assert repr(model) == "Module(lstm=LSTM(3, 4), out=Linear(4, 2))"
    assert list(model.parts) == ["lstm", "out"]
    assert {"lstm", "step"} <= set(dir(model))
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'gru'"):
        model.gru  # noqa: B018
    with pytest.raises(TypeError, match="does not support item assignment"):
        model.params["out.bias"] = 0


def test_copies_of_modules() -> None:
    model = make_tagger()
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made.meta == model.meta
        assert repr(made) == repr(model)
        made.update({"out.bias": np.zeros(3)})
        assert model.params["out.bias"].any()


def test_state_dict_of_torch() -> None:
    torch = pytest.importorskip("torch")

    class Theirs(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(20, 6, padding_idx=0)
            self.lstm = torch.nn.LSTM(6, 5, bidirectional=True)
            self.out = torch.nn.Linear(10, 3)

    theirs, model = Theirs(), make_tagger()
    model.load_state_dict(theirs.state_dict())
    for name, value in theirs.state_dict().items():
        np.testing.assert_array_equal(model.params[name], value.numpy())
    with pytest.raises(ValueError, match="missing: words"):
        model.load_state_dict({"out.bias": np.zeros(3)})


# --- files -------------------------------------------------------------------------------------


class Tagger(nn.Module):
    """A user's."""

    def tags(self) -> list[str]:
        labels: list[str] = self.meta["labels"]
        return labels


def test_files(tmp_path: Path) -> None:
    model = nn.Module(
        encoder=make_tagger(),
        gru=fastlstm.GRU(3, 4, dtype="float64", seed=0),
        attention=nn.Attention(scaled=True),
    )
    model.meta = {"vocabulary": {"ä": 1}, "n": [1, None, 0.5]}
    model.save(tmp_path / "model.safetensors")
    made = nn.Module.load(tmp_path / "model.safetensors")
    assert repr(made) == repr(model)
    assert made.meta == model.meta
    assert made.encoder.meta == {"labels": ["a", "b", "ä"]}
    assert list(made.params) == list(model.params)
    for name, value in model.params.items():
        assert made.params[name].dtype == value.dtype
        np.testing.assert_array_equal(made.params[name], value)
    made.update({"encoder.words.weight": np.ones((20, 6))})
    model.encoder.save(tmp_path / "encoder.safetensors")
    tagger = Tagger.load(tmp_path / "encoder.safetensors")
    assert tagger.tags() == ["a", "b", "ä"]
    tagger.step(optim.SGD(), run(tagger, TOKENS, LENGTHS, Y)[1])


def test_a_crf_is_a_part(tmp_path: Path) -> None:
    module = nn.Module(out=nn.Linear(4, 3, seed=0), crf=nn.CRF(3, batch_first=True, seed=1))
    x = np.random.default_rng(0).standard_normal((2, 5, 4), np.float32)
    emissions, tape = module.out.forward(x)
    loss, crf = module.crf.loss(emissions, np.ones((2, 5), int), [5, 3])
    module.step(optim.SGD(lr=0.1), {"out": tape.backward(crf.x), "crf": crf}, clip=1.0)
    assert module.crf.loss(module.out(x), np.ones((2, 5), int), [5, 3])[0] < loss
    module.save(tmp_path / "tagger.safetensors")
    loaded = nn.Module.load(tmp_path / "tagger.safetensors")
    assert repr(loaded.crf) == repr(module.crf) == "CRF(3, batch_first=True)"
    assert_same_bits(loaded.crf.params["transitions"], module.crf.params["transitions"])


def test_files_are_readable_by_safetensors(tmp_path: Path) -> None:
    numpy = pytest.importorskip("safetensors.numpy")
    model = make_tagger()
    model.save(tmp_path / "model.safetensors")
    tensors = numpy.load_file(tmp_path / "model.safetensors")
    assert sorted(tensors) == sorted(model.params)


def change(path: Path, old: str, new: str) -> None:
    """Replace text in a file's header."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"]["fastlstm"] = header["__metadata__"]["fastlstm"].replace(old, new)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('"Linear"', '"Cubic"', "Cubic"),
        ('"n_in": 3', '"n_in": 4', r"weight: expected \(2, 4\), got \(2, 3\)"),
        ('"n_in": 3', '"n": 3', "Linear: expected its options; missing: n_in; unexpected: n"),
        ('"n_in": 3', '"n_in": "3"', "n_in: expected an integer"),
        ('"bias": true', '"bias": false', "unexpected: bias"),
        ('"float32"', '"float16"', "float16"),
        ('"out"', '"step"', "step|out"),
        ('"out"', '"_out"', "out"),
        ('"format": 1', '"format": 2', "format 2 instead of 1"),
        ('"module"', '"layer"', "damaged"),
        ('"meta": {}', '"meta": 5', "damaged"),
        ('"parts"', '"pieces"', "damaged"),
    ],
)
def test_damaged_files(tmp_path: Path, old: str, new: str, text: str) -> None:
    path = tmp_path / "model.safetensors"
    nn.Module(out=nn.Linear(3, 2, seed=0)).save(path)
    change(path, old, new)
    with pytest.raises(ValueError, match=text):
        nn.Module.load(path)


def test_damaged_bytes(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    nn.Module(encoder=make_tagger()).save(path)
    check_reader(nn.Module.load, path, path.read_bytes())


def test_layers_and_modules_say_who_reads_their_files(tmp_path: Path) -> None:
    fastlstm.LSTM(2, 3).save(tmp_path / "layer")
    nn.Module(out=nn.Linear(3, 2)).save(tmp_path / "module")
    with pytest.raises(ValueError, match=r"which fastlstm\.load reads"):
        nn.Module.load(tmp_path / "layer")
    with pytest.raises(ValueError, match=r"which fastlstm\.nn\.Module\.load reads"):
        fastlstm.load(tmp_path / "module")


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    class Own(nn.Linear):
        """A user's."""

    model = nn.Module(out=nn.Linear(3, 2))
    model.meta["labels"] = {1, 2}
    with pytest.raises(TypeError, match="meta: expected what JSON can hold"):
        model.save(tmp_path / "model")
    model.meta["labels"] = float("nan")
    with pytest.raises(ValueError, match="meta: expected what JSON can hold"):
        model.save(tmp_path / "model")
    with pytest.raises(TypeError, match="out: expected a class of the library, got Own"):
        nn.Module(out=Own(3, 2)).save(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda m: nn.Module(out=1), TypeError, "out: expected a layer, a block or a module"),
        (lambda m: nn.Module(step=m.out), ValueError, "step: expected a name that modules do not"),
        (lambda m: nn.Module(meta=m.out), ValueError, "meta: expected a name that modules do not"),
        (lambda m: nn.Module(_out=m.out), ValueError, "_out: expected a name without"),
        (lambda m: nn.Module(**{"a.b": m.out}), ValueError, "a.b: expected a name without"),
        (lambda m: m.step(1, {}), TypeError, "optimizer: expected an Optimizer, got int"),
        (lambda m: m.step(optim.SGD(), 1), TypeError, "grads: expected a mapping, got int"),
        (lambda m: m.step(optim.SGD(), {"x": 1}), ValueError, "grads: expected names of param"),
        (lambda m: m.step(optim.SGD(), {"out": 1}), TypeError, r"grads\['out'\]: expected a map"),
        (
            lambda m: m.step(optim.SGD(), {"out": {"bias": np.ones(4)}}),
            ValueError,
            r"grads\['out.bias'\]: expected \(3,\), got \(4,\)",
        ),
        (lambda m: m.step(optim.SGD(), {}, clip=-1), ValueError, "clip: expected a number from 0"),
        (lambda m: m.update({"bias": 1}), ValueError, "values: expected names of parameters"),
        (lambda m: m.update({"out.bias": "a"}), TypeError, "out.bias: expected real numbers"),
        (
            lambda m: m.update({"words.weight": np.ones((20, 6)), "out.bias": [1]}),
            ValueError,
            r"out.bias: expected \(3,\)",
        ),
    ],
)
def test_errors_of_modules(call: Any, error: type[Exception], text: str) -> None:
    model = make_tagger()
    before = model.state_dict()
    with pytest.raises(error, match=text):
        call(model)
    for name, value in before.items():
        np.testing.assert_array_equal(model.params[name], value)


# --- batches -----------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), max_size=5), st.integers(0, 2), st.booleans())
def test_pad(lengths: list[int], axes: int, batch_first: bool) -> None:
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, *[2] * axes)).astype(np.float32) for n in lengths]
    x, found = nn.pad(sequences, value=-1, batch_first=batch_first)
    assert x.flags.c_contiguous
    assert x.dtype == np.float32
    np.testing.assert_array_equal(found, lengths)
    by_sequence = x if batch_first else x.swapaxes(0, 1)
    for b, sequence in enumerate(sequences):
        np.testing.assert_array_equal(by_sequence[b, : len(sequence)], sequence)
        assert (by_sequence[b, len(sequence) :] == -1).all()


def test_types_of_padded_sequences() -> None:
    assert nn.pad([[1, 2], [3]])[0].dtype == np.int64
    assert nn.pad([[1.0], []])[0].dtype == np.float64
    assert nn.pad([np.ones((2, 3), np.float16), []])[0].shape == (2, 2, 3)
    assert nn.pad([np.ones(2, np.float32), [1]])[0].dtype == np.float32
    x, lengths = nn.pad([])
    assert (x.shape, lengths.shape) == ((0, 0), (0,))


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(1, 7), st.booleans())
def test_bucket_batches(lengths: list[int], size: int, shuffle: bool) -> None:
    batches = nn.bucket_batches(lengths, size, shuffle, seed=3)
    assert sorted(np.concatenate([*batches, []])) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    assert len(batches) == -(-len(lengths) // size)
    # From one batch to the next lengths do not overlap.
    spans = sorted((min(np.take(lengths, b)), max(np.take(lengths, b))) for b in batches)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    again = nn.bucket_batches(lengths, size, shuffle, seed=3)
    for batch, same in zip(batches, again, strict=True):
        np.testing.assert_array_equal(batch, same)


def test_batches_are_shuffled() -> None:
    places = np.arange(100)
    in_order = np.concatenate(nn.bucket_batches(places % 3, 5, shuffle=False))
    np.testing.assert_array_equal(in_order, [*places[::3], *places[1::3], *places[2::3]])
    lengths = np.arange(100) // 10
    orders = [np.concatenate(nn.bucket_batches(lengths, 5, seed=seed)) for seed in (0, 1)]
    assert (orders[0] != orders[1]).any()
    first = [nn.bucket_batches(lengths, 5, seed=seed)[0] for seed in range(5)]
    assert len({int(lengths[batch[0]]) for batch in first}) > 1


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nn.pad("ab"), TypeError, "sequences: expected arrays, got str"),
        (lambda: nn.pad(5), TypeError, "sequences: expected arrays, got int"),
        (lambda: nn.pad([1]), TypeError, r"sequences\[0\]: expected a sequence of numbers"),
        (lambda: nn.pad([["a"]]), TypeError, r"sequences\[0\]: expected a sequence of numbers"),
        (
            lambda: nn.pad([np.ones((2, 3)), np.ones((2, 4))]),
            ValueError,
            r"sequences\[1\]: expected \(T, 3\), as the others, got \(2, 4\)",
        ),
        (lambda: nn.bucket_batches([1, -1], 2), ValueError, "lengths: expected values from 0"),
        (lambda: nn.bucket_batches([[1]], 2), ValueError, r"lengths: expected \(n,\)"),
        (lambda: nn.bucket_batches([1.5], 2), TypeError, "lengths: expected integers"),
        (lambda: nn.bucket_batches([1], 0), ValueError, "batch_size: expected an integer from 1"),
        (lambda: nn.bucket_batches([1], 1, 1), TypeError, "shuffle: expected True or False"),
    ],
)
def test_errors_of_batches(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
