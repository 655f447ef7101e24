"""GRU and RNN: references, forward, backward and the promise on bits; what all cells share."""

from __future__ import annotations

import copy
import dataclasses
import operator
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import reference
from fastlstm._activations import NAMES, Activation
from fastlstm.layers.states import as_tuple
from finite_differences import slope_error
from support import (
    CASES,
    DTYPES,
    Case,
    Problem,
    as_float64,
    assert_gradients_close,
    assert_same_bits,
    assert_same_states,
    assert_states_close,
    make_problem,
    map_state,
    named_states,
    reference_backward,
    reference_forward,
    solve,
    time_major,
)
from tolerances import BACKWARD, FORWARD, assert_close

pytestmark = pytest.mark.every_isa

RELU = reference.RNNOptions(Activation("Relu"))
HARD_SIGMOID = Activation("HardSigmoid", 0.2, 0.5)

# Name -> class and options.
CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "GRU": ("GRU", {}),
    "GRU before": ("GRU", {"reset_after": False}),
    "RNN tanh": ("RNN", {}),
    "RNN relu": ("RNN", {"nonlinearity": "relu"}),
    "GRU with options": (
        "GRU",
        {"activations": ("HardSigmoid", ("ScaledTanh", 0.8, 1.3)), "clip": 1.1},
    ),
    "GRU before with options": (
        "GRU",
        {"reset_after": False, "activations": ("HardSigmoid", "Softsign"), "clip": 0.8},
    ),
    "RNN with options": ("RNN", {"activations": ("Softsign",), "clip": 1.1}),
}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
OWN_CASES = {
    name: case
    for name, case in CASES.items()
    if name != "large weights" and "one step each" not in name and "one row" not in name
}


def make(cell: str, case: Case, dtype: str = "float64", **more: Any) -> Problem:
    """The problem of a case with this cell, which has no projection."""
    name, options = CELLS[cell]
    kept = {k: v for k, v in case.options.items() if k != "proj_size"}
    case = dataclasses.replace(case, options={**kept, **options, **more}, cell=name)
    return make_problem(case, dtype, seed=1)


# --- the references ------------------------------------------------------------------------------

REFERENCES = {
    "gru": {"reset_after": True},
    "gru, reset before": {"reset_after": False},
    "gru, options": {
        "options": reference.GRUOptions((HARD_SIGMOID, Activation("Softsign")), clip=0.8)
    },
    "gru, reset before, options": {
        "reset_after": False,
        "options": reference.GRUOptions((HARD_SIGMOID, Activation("Softsign")), clip=0.8),
    },
    "rnn": {},
    "rnn, relu": {"options": RELU},
    "rnn, options": {"options": reference.RNNOptions(Activation("Softplus"), clip=0.7)},
}


@pytest.mark.parametrize("kind", REFERENCES)
@pytest.mark.parametrize(
    ("L", "D", "bias", "lengths", "regularised"),
    [
        (1, 1, True, None, False),
        (1, 1, False, None, False),
        (2, 2, True, [2, 0, 3], False),
        (2, 1, True, [3, 1, 2], False),
        (1, 1, True, None, True),
        (2, 2, True, [2, 3], True),
    ],
)
def test_reference_by_finite_differences(
    kind: str, L: int, D: int, bias: bool, lengths: list[int] | None, regularised: bool
) -> None:
    rng = np.random.default_rng(3)
    name, I, H = kind.split(",")[0], 2, 3
    forward, backward = (getattr(reference, f"{name}_{way}") for way in ("forward", "backward"))
    rows = (3 if name == "gru" else 1) * H
    params = {}
    for layer in range(L):
        for suffix in ["", "_reverse"][:D]:
            end = f"_l{layer}{suffix}"
            params["weight_ih" + end] = rng.uniform(-0.9, 0.9, (rows, I if layer == 0 else D * H))
            params["weight_hh" + end] = rng.uniform(-0.9, 0.9, (rows, H))
            if bias:
                params["bias_ih" + end] = rng.uniform(-0.9, 0.9, rows)
                params["bias_hh" + end] = rng.uniform(-0.9, 0.9, rows)
    B = 3 if lengths is None else len(lengths)
    x, h_0 = rng.normal(size=(3, B, I)), rng.normal(size=(L * D, B, H))
    masks = [rng.uniform(0.5, 1.5, (3, B, D * H)) for _ in range(L - 1)]
    more = dict(REFERENCES[kind])
    if regularised:
        more["h_masks"] = rng.choice([0, 1.5], size=(L * D, B, H))
        more["keep_h"] = rng.uniform(0, 1, (L * D, 3, B, H))
        more["merge"] = "mul" if D == 2 else "concat"
    d_output = rng.normal(size=(3, B, H if regularised else D * H))
    d_h = rng.normal(size=(L * D, B, H))

    def run() -> Any:
        return forward(params, x, h_0, lengths=lengths, masks=masks, **more)

    def loss() -> float:
        output, h_n, _ = run()
        return float((output * d_output).sum() + (h_n * d_h).sum())

    grads = backward(run()[2], d_output, d_h)
    found = {"x": grads.x, "h_0": grads.state[0], **grads.params}
    assert found.keys() == {"x", "h_0", *params}
    for key, array in {"x": x, "h_0": h_0, **params}.items():
        # A step that does not reach the corners of the functions, or the bounds of the sums.
        error = slope_error(found[key], loss, array, step=1e-4)
        assert error < 1e-8, (key, error)


def test_reference_errors() -> None:
    params = {"weight_ih_l0": np.zeros((3, 2)), "weight_hh_l0": np.zeros((3, 3))}
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected"):
        reference.gru_forward(params, np.zeros((2, 1, 2)))
    with pytest.raises(ValueError, match=r"R: expected \(9, 3\), got \(6, 3\)"):
        reference.gru_cell([[0, 0]], [[0, 0, 0]], np.zeros((6, 2)), np.zeros((6, 3)))


# --- layers against the references and PyTorch ---------------------------------------------------


@every_cell
@every_dtype
@pytest.mark.parametrize("case", OWN_CASES.values(), ids=OWN_CASES)
def test_layer_is_the_reference(cell: str, case: Case, dtype: str) -> None:
    p = make(cell, case, dtype)
    expected = solve(p)
    output, final = p.layer(p.x, p.state, lengths=p.lengths)
    assert all(a.dtype == dtype for a in (output, *as_tuple(final)))
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_states_close(final, expected.state, FORWARD[dtype])

    trained, trained_final, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_same_bits(trained, output, "output in training")
    assert_same_states(trained_final, final, "in training")
    grads = tape.backward(p.d_output, p.d_state)
    assert_gradients_close(grads, expected.grads, BACKWARD[dtype])
    assert list(grads.params) == list(p.layer.params)

    traces = p.layer.trace(p.x, p.state, lengths=p.lengths)
    for own, theirs in zip(traces, expected.tape.traces, strict=True):
        for a, b in zip(own, theirs, strict=True):
            assert a._fields == (*b._fields, *(f"d_{part}" for part in named_states(final, "")))
            for field in b._fields:
                values = time_major(p.layer, getattr(a, field))
                assert_close(values, getattr(b, field), FORWARD[dtype], field)


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if "before" not in cell and "options" not in cell]
)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_layer_is_pytorchs(cell: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    p = make(cell, Case(T=9, B=4, I=6, H=11, options=options))
    name, own = CELLS[cell]
    module = getattr(torch.nn, name)(6, 11, dtype=torch.float64, **options, **own)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in p.layer.state_dict().items()})
    x, h_0 = (torch.from_numpy(a).requires_grad_() for a in (p.x, p.state))
    expected, expected_h = module(x, h_0)
    torch.autograd.backward(
        [expected, expected_h], [torch.from_numpy(p.d_output), torch.from_numpy(p.d_state)]
    )
    output, h_n, tape = p.layer.forward(p.x, p.state)
    grads = tape.backward(p.d_output, p.d_state)
    tolerance = BACKWARD["float64"]
    assert_close(output, expected.detach().numpy(), tolerance, "output")
    assert_close(h_n, expected_h.detach().numpy(), tolerance, "h_n")
    assert_close(grads.x, x.grad.numpy(), tolerance, "x")
    assert_close(grads.state, h_0.grad.numpy(), tolerance, "h_0")
    for name, parameter in module.named_parameters():
        assert_close(grads.params[name], parameter.grad.numpy(), tolerance, name)


@every_cell
def test_dropout_between_layers(cell: str) -> None:
    """With all dropped, the upper layer sees zeros, and the lower gets no gradient."""
    p = make(cell, Case(T=4, B=3, options={"num_layers": 2}), dropout=1.0)
    expected = solve(p, [np.zeros(())])
    output, _, tape = p.layer.forward(p.x, p.state, seed=1)
    assert_close(output, expected.output, FORWARD["float64"], "output")
    assert_gradients_close(
        tape.backward(p.d_output, p.d_state), expected.grads, BACKWARD["float64"]
    )
    half = make(cell, Case(T=4, B=3, options={"num_layers": 2}), dropout=0.5)
    first, again, other = (half.layer.forward(half.x, seed=s)[0] for s in (1, 1, 2))
    assert_same_bits(first, again)
    assert not np.array_equal(first, other)


# --- the promise on bits -------------------------------------------------------------------------


@every_cell
@every_dtype
@pytest.mark.parametrize("B", [1, 2, 5, 30, 60])
def test_rows_chunks_and_threads_do_not_change_bits(cell: str, dtype: str, B: int) -> None:
    p = make(cell, Case(T=13, B=B, I=9, H=70, options={"num_layers": 2}), dtype)
    output, final = p.layer(p.x, p.state)
    for row in {0, B // 2, B - 1}:
        of_row = operator.itemgetter((slice(None), slice(row, row + 1)))
        alone, alone_final = p.layer(of_row(p.x), map_state(of_row, p.state))
        assert_same_bits(alone, of_row(output), "a row alone")
        assert_same_states(alone_final, map_state(of_row, final), "of a row alone")
    stream = p.layer.stream(B)
    stream.state = p.state
    steps = np.stack([stream.step(x_t) for x_t in p.x[:5]])
    rest = stream.run(p.x[5:])
    assert_same_bits(np.concatenate([steps, rest]), output, "stream")
    assert_same_states(stream.state, final, "of the stream")
    stream.reset()
    assert not any(part.any() for part in as_tuple(stream.state))
    results = []
    for n in (1, 2, 5):
        with fastlstm.num_threads(n):
            again, _, tape = p.layer.forward(p.x, p.state)
            assert_same_bits(again, output, f"{n} threads")
            results.append(tape.backward(p.d_output, p.d_state))
    for grads in results[1:]:
        assert_same_bits(grads.x, results[0].x, "d_x")
        for part, other in zip(as_tuple(grads.state), as_tuple(results[0].state), strict=True):
            assert_same_bits(part, other, "d_state")
        for name, value in grads.params.items():
            assert_same_bits(value, results[0].params[name], name)


@every_cell
@every_dtype
def test_special_values_stay_in_their_row(cell: str, dtype: str) -> None:
    p = make(cell, Case(T=5, B=4, H=33), dtype)
    clean, _ = p.layer(p.x, p.state)
    for value in (np.nan, np.inf, -np.inf, 1e30):
        x = p.x.copy()
        x[1, 2, 0] = value
        output, _ = p.layer(x, p.state)
        others = [0, 1, 3]
        assert_same_bits(output[:, others], clean[:, others], "other rows")
        assert_same_bits(output[0], clean[0], "the step before")
        assert not np.isnan(value) or np.isnan(output[1:, 2]).all()


def test_an_update_gate_that_keeps_everything() -> None:
    """With z = 1 the state never drifts, whatever the candidate is."""
    gru = fastlstm.GRU(2, 19, seed=0)
    bias = gru.params["bias_ih_l0"].copy()
    bias[19:38] = 100
    gru.update({"bias_ih_l0": bias})
    h_0 = np.linspace(-2, 2, 19, dtype=np.float32).reshape(1, 1, 19)
    assert_same_bits(gru(np.ones((1000, 1, 2)), h_0)[1], h_0)


# --- the rest of the API --------------------------------------------------------------------------


@every_cell
def test_states_results_and_errors(cell: str) -> None:
    p = make(cell, Case(T=5, B=3, I=4, H=6), "float32")
    output, h_n = p.layer(p.x, p.state)
    outs = np.empty_like(output), np.empty_like(h_n)
    result = p.layer(p.x, p.state, out=outs)
    assert result[0] is outs[0]
    assert result[1] is outs[1]
    assert_same_bits(outs[0], output)
    assert_same_bits(outs[1], h_n)
    with pytest.raises(ValueError, match=r"state: expected \(1, 3, 6\), got \(1, 2, 6\)"):
        p.layer(p.x, p.state[:, :2])
    with pytest.raises(TypeError, match=r"out: expected an array or a tuple \(output, h_n\)"):
        p.layer(p.x, out=(output, (h_n, h_n)))
    with pytest.raises(ValueError, match=r"out\[1\]: expected memory of its own, got some of sta"):
        p.layer(p.x, p.state, out=(outs[0], p.state))
    _, _, tape = p.layer.forward(p.x, p.state)
    with pytest.raises(ValueError, match=r"d_state: expected \(1, 3, 6\), got \(3, 6\)"):
        tape.backward(d_state=p.d_state[0])
    assert not tape.backward().state.any()
    once = tape.backward(p.d_output)
    twice = tape.backward(p.d_output, accumulate=tape.backward(p.d_output))
    assert_close(twice.state, 2 * once.state, BACKWARD["float32"], "h_0")
    assert_close(
        twice.params["weight_hh_l0"],
        2 * as_float64(once.params["weight_hh_l0"]),
        BACKWARD["float32"],
        "R",
    )
    reverse = make(cell, Case(options={"reverse": True}))
    with pytest.raises(ValueError, match="cannot stream"):
        reverse.layer.stream()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="nonlinearity: expected 'tanh' or 'relu', got 'elu'"):
        fastlstm.RNN(2, 3, nonlinearity="elu")
    with pytest.raises(TypeError, match="reset_after: expected True or False, got 1"):
        fastlstm.GRU(2, 3, reset_after=1)
    with pytest.raises(TypeError, match="proj_size"):
        fastlstm.GRU(2, 3, proj_size=1)
    assert repr(fastlstm.RNN(2, 3, 2, "relu")) == "RNN(2, 3, num_layers=2, nonlinearity='relu')"
    assert repr(fastlstm.GRU(2, 3)) == "GRU(2, 3)"


@every_cell
def test_files_copies_and_training(cell: str, tmp_path: Path) -> None:
    p = make(cell, Case(T=5, B=3, options={"num_layers": 2, "bidirectional": True}), "float32")
    output, _ = p.layer(p.x)
    p.layer.save(tmp_path / "layer.safetensors")
    others = [fastlstm.load(tmp_path / "layer.safetensors"), copy.deepcopy(p.layer)]
    others.append(pickle.loads(pickle.dumps(p.layer)))
    for other in others:
        assert repr(other) == repr(p.layer)
        assert_same_bits(other(p.x)[0], output)
    optimizer = fastlstm.optim.Adam()
    losses = []
    for _ in range(20):
        output, _, tape = p.layer.forward(p.x)
        losses.append(float(((output - 0.3) ** 2).sum()))
        p.layer.update(optimizer.step(p.layer.params, tape.backward(2 * (output - 0.3)).params))
    assert losses[-1] < losses[0]


@every_cell
def test_merge_and_truncated_bptt(cell: str) -> None:
    options = {"bidirectional": True}
    plain = make(cell, Case(T=6, B=2, options=options))
    total = make(cell, Case(T=6, B=2, options=options), merge="sum")
    total.layer.update(plain.layer.params)
    halves = np.split(plain.layer(plain.x)[0], 2, axis=-1)
    assert_same_bits(total.layer(plain.x)[0], halves[0] + halves[1])
    p = make(cell, Case(T=12, B=2))
    whole, _, tape = p.layer.forward(p.x, p.state)
    chunks = list(fastlstm.truncated_bptt(p.layer, p.x, 4, 12, state=p.state))
    assert_same_bits(np.concatenate([chunk.output for chunk in chunks]), whole, "chunks")
    grads = chunks[-1].backward(d_state=p.d_state)
    expected = tape.backward(d_state=p.d_state)
    assert_close(grads.x, expected.x, BACKWARD["float64"], "x")


@every_dtype
@pytest.mark.parametrize("name", NAMES)
def test_every_activation(name: str, dtype: str) -> None:
    parameters = {"Affine": (0.7, 0.1), "ScaledTanh": (1.2, 0.7)}.get(name, ())
    for cell, count, options in (
        ("GRU", 2, {}),
        ("GRU", 2, {"reset_after": False}),
        ("RNN", 1, {}),
    ):
        functions = ((name, *parameters),) * count
        case = Case(T=3, B=4, I=3, H=9, options={"activations": functions, **options}, cell=cell)
        p = make_problem(case, dtype)
        expected = solve(p)
        output, _, tape = p.layer.forward(p.x, p.state)
        assert_close(output, expected.output, FORWARD[dtype], f"output of {cell}, {options}")
        grads = tape.backward(p.d_output, p.d_state)
        assert_gradients_close(grads, expected.grads, BACKWARD[dtype])


@pytest.mark.parametrize("clip", [None, 0.5, 3.0])
@pytest.mark.parametrize("name", NAMES)
def test_every_activation_and_clip_over_many_steps(name: str, clip: float | None) -> None:
    """New layers, inputs of about one: docs/numerics.md has the bounds."""
    function = (name, *{"Affine": (0.7, 0.1), "ScaledTanh": (1.2, 0.7)}.get(name, ()))
    x = np.random.default_rng(1).normal(size=(40, 3, 16)).astype(np.float32)
    for layer in (
        fastlstm.LSTM(16, 33, clip=clip, activations=("Sigmoid", function, function), seed=0),
        fastlstm.GRU(16, 33, clip=clip, activations=("Sigmoid", function), seed=0),
        fastlstm.RNN(16, 33, clip=clip, activations=(function,), seed=0),
    ):
        output, _, tape = layer.forward(x)
        expected, _, expected_tape = reference_forward(layer, x)
        assert_close(output, expected, FORWARD["float32"], repr(layer))
        grads = tape.backward(np.ones_like(output)).params
        wanted = reference_backward(layer, expected_tape, np.ones_like(expected), None).params
        for key, array in wanted.items():
            assert_close(grads[key], array, BACKWARD["float32"], f"{key} of {layer!r}")


def test_options_of_functions(tmp_path: Path) -> None:
    rnn = fastlstm.RNN(2, 3, clip=1, activations=("LEAKYRELU",))
    assert repr(rnn) == "RNN(2, 3, clip=1.0, activations=(('LeakyRelu', 0.01),))"
    assert fastlstm.RNN(2, 3, nonlinearity="relu").activations == ("Relu",)
    gru = fastlstm.GRU(2, 3, activations=("HardSigmoid", "Tanh"))
    assert repr(gru) == "GRU(2, 3, activations=(('HardSigmoid', 0.2, 0.5), 'Tanh'))"
    for layer in (rnn, gru):
        layer.save(tmp_path / "layer.safetensors")
        for other in (fastlstm.load(tmp_path / "layer.safetensors"), copy.deepcopy(layer)):
            assert repr(other) == repr(layer)
            x = np.ones((2, 1, 2), np.float32)
            assert_same_bits(other(x)[0], layer(x)[0])
    with pytest.raises(ValueError, match="activations: expected 2 functions, got 1"):
        fastlstm.GRU(2, 3, activations=("Tanh",))
    with pytest.raises(ValueError, match="activations: expected None with a nonlinearity"):
        fastlstm.RNN(2, 3, nonlinearity="relu", activations=("Tanh",))
    relu = fastlstm.RNN(2, 3, nonlinearity="relu", clip=0.1, seed=0)
    output, _ = relu(np.ones((4, 2, 2), np.float32))
    assert output.max() == np.float32(0.1)  # not of another function, as tanh(0.1)
