"""GRU and RNN: references, forward, backward and the promise on bits; what all cells share."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import reference
from fastlstm._activations import NAMES, Activation, as_activation
from finite_differences import numerical_gradient, relative_error
from support import (
    CASES,
    DTYPES,
    Case,
    as_float64,
    assert_promised,
    assert_same_bits,
    time_major,
)
from tolerances import BACKWARD, FORWARD, assert_close

RELU = reference.RNNOptions(Activation("Relu"))
HARD_SIGMOID = Activation("HardSigmoid", 0.2, 0.5)

# Name -> class, its options, and the reference's.
CELLS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "GRU": (fastlstm.GRU, {}, {}),
    "GRU before": (fastlstm.GRU, {"reset_after": False}, {"reset_after": False}),
    "RNN tanh": (fastlstm.RNN, {}, {}),
    "RNN relu": (fastlstm.RNN, {"nonlinearity": "relu"}, {"options": RELU}),
    "GRU with options": (
        fastlstm.GRU,
        {"activations": ("HardSigmoid", ("ScaledTanh", 0.8, 1.3)), "clip": 1.1},
        {
            "options": reference.GRUOptions(
                (HARD_SIGMOID, Activation("ScaledTanh", 0.8, 1.3)), clip=1.1
            )
        },
    ),
    "RNN with options": (
        fastlstm.RNN,
        {"activations": ("Softsign",), "clip": 1.1},
        {"options": reference.RNNOptions(Activation("Softsign"), clip=1.1)},
    ),
}
every_cell = pytest.mark.parametrize("cell", CELLS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)
OWN_CASES = {
    name: case
    for name, case in CASES.items()
    if name != "large weights" and "one step each" not in name and "one row" not in name
}


@dataclasses.dataclass
class Problem:
    layer: Any
    x: np.ndarray
    state: np.ndarray | None
    lengths: np.ndarray | None
    d_output: np.ndarray
    d_state: np.ndarray


def make(cell: str, case: Case, dtype: str = "float64", **more: Any) -> Problem:
    rng = np.random.default_rng(case.T * 100 + case.H)
    cls, options, _ = CELLS[cell]
    kept = {k: v for k, v in case.options.items() if k != "proj_size"}
    layer = cls(case.I, case.H, dtype=dtype, seed=1, **kept, **options, **more)
    D = 2 if layer.bidirectional else 1

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    def sequence(width: int) -> np.ndarray:
        if not case.batched:
            return normal(case.T, width)
        return normal(*((case.B, case.T) if layer.batch_first else (case.T, case.B)), width)

    state_shape = (layer.num_layers * D, *((case.B,) if case.batched else ()), case.H)
    return Problem(
        layer,
        sequence(case.I),
        normal(*state_shape) if case.state else None,
        None if case.lengths is None else np.array(case.lengths),
        sequence(D * case.H),
        normal(*state_shape),
    )


def solve(cell: str, p: Problem, masks: Any = None) -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """Output, state, tape and gradients of the reference."""
    name = cell.split()[0].lower()
    forward, backward = (getattr(reference, f"{name}_{way}") for way in ("forward", "backward"))
    output, h_n, tape = forward(
        as_float64(p.layer.params),
        time_major(p.layer, as_float64(p.x)),
        as_float64(p.state),
        lengths=p.lengths,
        reverse=p.layer.reverse,
        masks=masks,
        **CELLS[cell][2],
    )
    grads = backward(tape, time_major(p.layer, as_float64(p.d_output)), as_float64(p.d_state))
    return time_major(p.layer, output), h_n, tape, grads


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
    ("L", "D", "bias", "lengths"),
    [(1, 1, True, None), (1, 1, False, None), (2, 2, True, [2, 0, 3]), (2, 1, True, [3, 1, 2])],
)
def test_reference_by_finite_differences(
    kind: str, L: int, D: int, bias: bool, lengths: list[int] | None
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
    x, h_0 = rng.normal(size=(3, 3, I)), rng.normal(size=(L * D, 3, H))
    masks = [rng.uniform(0.5, 1.5, (3, 3, D * H)) for _ in range(L - 1)]
    d_output, d_h = rng.normal(size=(3, 3, D * H)), rng.normal(size=(L * D, 3, H))

    def run() -> Any:
        return forward(params, x, h_0, lengths=lengths, masks=masks, **REFERENCES[kind])

    def loss() -> float:
        output, h_n, _ = run()
        return float((output * d_output).sum() + (h_n * d_h).sum())

    grads = backward(run()[2], d_output, d_h)
    found = {"x": grads.x, "h_0": grads.state[0], **grads.params}
    assert found.keys() == {"x", "h_0", *params}
    for key, array in {"x": x, "h_0": h_0, **params}.items():
        error = relative_error(found[key], numerical_gradient(loss, array))
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
    expected, expected_h, tape, expected_grads = solve(cell, p)
    output, h_n = p.layer(p.x, p.state, lengths=p.lengths)
    assert output.dtype == h_n.dtype == dtype
    assert_close(output, expected, FORWARD[dtype], "output")
    assert_close(h_n, expected_h, FORWARD[dtype], "h_n")

    trained, trained_h, own_tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_promised(trained, output, "output in training")
    assert_promised(trained_h, h_n, "h_n in training")
    grads = own_tape.backward(p.d_output, p.d_state)
    assert_close(grads.x, time_major(p.layer, expected_grads.x), BACKWARD[dtype], "x")
    assert_close(grads.state, expected_grads.state[0], BACKWARD[dtype], "h_0")
    assert list(grads.params) == list(p.layer.params)
    for name, value in grads.params.items():
        assert_close(value, expected_grads.params[name], BACKWARD[dtype], name)

    traces = p.layer.trace(p.x, p.state, lengths=p.lengths)
    for own, theirs in zip(traces, tape.traces, strict=True):
        for a, b in zip(own, theirs, strict=True):
            assert a._fields == (*b._fields, "d_h")
            for field in b._fields:
                values = time_major(p.layer, getattr(a, field))
                assert_close(values, getattr(b, field), FORWARD[dtype], field)


@pytest.mark.parametrize(
    "cell", [cell for cell in CELLS if cell != "GRU before" and "options" not in cell]
)
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_layer_is_pytorchs(cell: str, options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    p = make(cell, Case(T=9, B=4, I=6, H=11, options=options))
    cls = getattr(torch.nn, cell.split()[0])
    module = cls(6, 11, dtype=torch.float64, **options, **CELLS[cell][1])
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
    masks = [np.zeros(())]
    expected, _, _, expected_grads = solve(cell, p, masks)
    output, _, tape = p.layer.forward(p.x, p.state, seed=1)
    assert_close(output, expected, FORWARD["float64"], "output")
    grads = tape.backward(p.d_output, p.d_state)
    for name, value in grads.params.items():
        assert_close(value, expected_grads.params[name], BACKWARD["float64"], name)
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
    output, h_n = p.layer(p.x, p.state)
    for row in {0, B // 2, B - 1}:
        rows = slice(row, row + 1)
        alone, alone_h = p.layer(p.x[:, rows], p.state[:, rows])
        assert_promised(alone, output[:, rows], "a row alone")
        assert_promised(alone_h, h_n[:, rows], "its state")
    stream = p.layer.stream(B)
    stream.state = p.state
    steps = np.stack([stream.step(x_t) for x_t in p.x[:5]])
    rest = stream.run(p.x[5:])
    assert_promised(np.concatenate([steps, rest]), output, "stream")
    assert_promised(stream.state, h_n, "the stream's state")
    stream.reset()
    assert not stream.state.any()
    results = []
    for n in (1, 2, 5):
        with fastlstm.num_threads(n):
            again, _, tape = p.layer.forward(p.x, p.state)
            assert_promised(again, output, f"{n} threads")
            results.append(tape.backward(p.d_output, p.d_state))
    for grads in results[1:]:
        assert_same_bits(grads.x, results[0].x, "d_x")
        assert_same_bits(grads.state, results[0].state, "d_h_0")
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
        assert_promised(output[:, others], clean[:, others], "other rows")
        assert_promised(output[0], clean[0], "the step before")
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
    assert_promised(np.concatenate([chunk.output for chunk in chunks]), whole, "chunks")
    grads = chunks[-1].backward(d_state=p.d_state)
    expected = tape.backward(d_state=p.d_state)
    assert_close(grads.x, expected.x, BACKWARD["float64"], "x")


@every_dtype
@pytest.mark.parametrize("name", NAMES)
def test_every_activation(name: str, dtype: str) -> None:
    parameters = {"Affine": (0.7, 0.1), "ScaledTanh": (1.2, 0.7)}.get(name, ())
    function = as_activation("", (name, *parameters))
    for cls, forward, backward, functions, options in (
        (
            fastlstm.GRU,
            reference.gru_forward,
            reference.gru_backward,
            (function, function),
            reference.GRUOptions((function, function)),
        ),
        (
            fastlstm.RNN,
            reference.rnn_forward,
            reference.rnn_backward,
            (function,),
            reference.RNNOptions(function),
        ),
    ):
        names = tuple((name, *parameters) for _ in functions)
        layer = cls(3, 9, dtype=dtype, seed=0, activations=names)
        x = np.random.default_rng(0).standard_normal((3, 4, 3)).astype(dtype)
        expected, _, reference_tape = forward(
            as_float64(layer.params), as_float64(x), options=options
        )
        output, _, tape = layer.forward(x)
        assert_close(output, expected, FORWARD[dtype], "output")
        grads, exact = tape.backward(output), backward(reference_tape, as_float64(output))
        assert_close(grads.x, exact.x, BACKWARD[dtype], "x")
        for key, array in exact.params.items():
            assert_close(grads.params[key], array, BACKWARD[dtype], key)


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
    # Refused, not ignored: the other GRU does not have them.
    with pytest.raises((NotImplementedError, ValueError), match="reset_after"):
        fastlstm.GRU(2, 3, reset_after=False, clip=1.0)
    relu = fastlstm.RNN(2, 3, nonlinearity="relu", clip=0.1, seed=0)
    output, _ = relu(np.ones((4, 2, 2), np.float32))
    assert 0 < output.max() <= np.float32(0.1)
