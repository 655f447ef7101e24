"""Layer normalisation inside the LSTM's gates: values, gradients, and every place that knows it."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from support import (
    DTYPES,
    Case,
    Problem,
    assert_same_bits,
    gradient_arrays,
    make_problem,
    reference_backward,
    reference_forward,
    solve,
)
from tolerances import (
    NORMALISED_BACKWARD,
    NORMALISED_FORWARD,
    NORMALISED_STEP,
    NORMALISED_STEP_BACKWARD,
    TORCH_RATIO,
    assert_close,
    relative_error,
)

pytestmark = pytest.mark.every_isa

NORM: dict[str, Any] = {"layer_norm": True}
LENGTHS = tuple((37 * b) % 61 for b in range(40))
CASES: dict[str, Case] = {
    "plain": Case(options=NORM),
    **{f"H={n}": Case(H=n, T=4, options=NORM) for n in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 29, 53)},
    **{f"I={n}": Case(I=n, H=5, T=4, options=NORM) for n in (1, 9, 53)},
    **{f"B={n}": Case(B=n, H=9, T=4, options=NORM) for n in (0, 1, 8, 17, 53)},
    "large weights": Case(options=NORM, scale=4.0),
    "no bias": Case(options={"bias": False, **NORM}),
    "projection": Case(options={"proj_size": 3, **NORM}),
    "two layers": Case(options={"num_layers": 2, **NORM}),
    "reverse": Case(options={"reverse": True, **NORM}),
    "batch first": Case(options={"batch_first": True, **NORM}),
    "unbatched, no state": Case(batched=False, state=False, options=NORM),
    "lengths": Case(B=5, lengths=(2, 6, 0, 3, 5), options=NORM),
    "everything": Case(
        B=6,
        lengths=(3, 0, 6, 1, 6, 2),
        options={
            "num_layers": 2,
            "bidirectional": True,
            "proj_size": 4,
            "batch_first": True,
            "merge": "mul",
            **NORM,
        },
    ),
    "blocks": Case(T=60, B=40, I=3, H=5, lengths=LENGTHS, options=NORM),
    "blocks, one row": Case(T=1500, B=1, I=2, H=3, options=NORM),
}
every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def make(name: str, dtype: str) -> Problem:
    """The problem of a case, whose gains and biases of the normalisation are not the initial."""
    return bent(make_problem(CASES[name], dtype))


def bent(p: Problem) -> Problem:
    rng = np.random.default_rng(5)
    p.layer.update(
        {
            key: array + rng.uniform(-0.5, 0.5, array.shape).astype(array.dtype)
            for key, array in p.layer.params.items()
            if "_ln_" in key
        }
    )
    return p


@every_dtype
@every_case
def test_results_and_gradients_are_the_references(name: str, dtype: str) -> None:
    p = make(name, dtype)
    expected = solve(p)
    output, (h_n, c_n), tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected.output, NORMALISED_FORWARD[dtype], "output")
    assert_close(h_n, expected.state[0], NORMALISED_FORWARD[dtype], "h_n")
    assert_close(c_n, expected.state[1], NORMALISED_FORWARD[dtype], "c_n")
    grads = gradient_arrays(tape.backward(p.d_output, p.d_state))
    wanted = gradient_arrays(expected.grads)
    if p.layer.hidden_size == 1:
        # N(R h) hardly depends on a single h: its gradient is what is left of terms that cancel.
        for arrays in (grads, wanted):
            arrays["x and h_0"] = np.append(arrays.pop("x"), arrays.pop("h_0"))
    assert grads.keys() == wanted.keys()
    for key, array in wanted.items():
        assert_close(grads[key], array, NORMALISED_BACKWARD[dtype], key)

    inferred, (inferred_h, inferred_c) = p.layer(p.x, p.state, lengths=p.lengths)
    assert_same_bits(inferred, output, "output of inference")
    assert_same_bits(inferred_h, h_n, "h_n of inference")
    assert_same_bits(inferred_c, c_n, "c_n of inference")


@every_dtype
@pytest.mark.parametrize("name", ["plain", "everything", "no bias"])
def test_trace_is_the_references(name: str, dtype: str) -> None:
    p = make(name, dtype)
    _, _, tape = reference_forward(p.layer, p.x, p.state, lengths=p.lengths)
    for layer, directions in enumerate(p.layer.trace(p.x, p.state, lengths=p.lengths)):
        for d, trace in enumerate(directions):
            for key in trace._fields[:6]:
                expected = getattr(tape.traces[layer][d], key)
                if p.layer.batch_first:
                    expected = expected.swapaxes(0, 1)
                assert_close(
                    getattr(trace, key),
                    expected,
                    NORMALISED_FORWARD[dtype],
                    f"{key} of layer {layer}, {d}",
                )


# --- the promise on bits ------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("zoneout", [0.0, 0.3])
def test_a_stream_and_chunks_are_the_whole(dtype: str, zoneout: float) -> None:
    options = {"num_layers": 2, "proj_size": 5, "zoneout": zoneout, **NORM}
    p = bent(make_problem(Case(T=30, H=17, options=options), dtype))
    output, state = p.layer(p.x, p.state)
    stream = p.layer.stream(3)
    stream.state = p.state
    assert_same_bits(np.stack([stream.step(x_t) for x_t in p.x]), output)
    assert_same_bits(stream.state[0], state[0])
    assert_same_bits(stream.state[1], state[1])
    first, middle = p.layer(p.x[:7], p.state)
    second, last = p.layer(p.x[7:], middle)
    assert_same_bits(np.concatenate([first, second]), output)
    assert_same_bits(last[1], state[1])


@every_dtype
def test_a_row_does_not_depend_on_its_batch(dtype: str) -> None:
    p = bent(make_problem(Case(T=5, B=70, H=21, options=NORM), dtype))
    output, state = p.layer(p.x, p.state)
    for rows in (slice(0, 1), slice(3, 9), slice(20, 69)):
        part, (_, c_n) = p.layer(p.x[:, rows], tuple(s[:, rows] for s in p.state))
        assert_same_bits(part, output[:, rows])
        assert_same_bits(c_n, state[1][:, rows])


@every_dtype
@pytest.mark.parametrize("B", [1, 3, 70])
@pytest.mark.parametrize("options", [{}, {"proj_size": 33, "zoneout": 0.2}, {"num_layers": 2}])
def test_results_do_not_depend_on_threads(dtype: str, B: int, options: dict[str, Any]) -> None:
    case = Case(T=20, B=B, I=40, H=133, options={**options, **NORM})
    p = bent(make_problem(case, dtype))
    results = []
    for n in (1, 2, 3, 4):
        with fastlstm.num_threads(n):
            output, state, tape = p.layer.forward(p.x, p.state, seed=7)
            grads = gradient_arrays(tape.backward(p.d_output, p.d_state))
            inferred, _ = p.layer(p.x, p.state)
            results.append({"output": output, "c_n": state[1], "inferred": inferred, **grads})
    for result in results[1:]:
        for key, array in results[0].items():
            assert_same_bits(result[key], array, key)


@every_dtype
def test_a_limit_of_memory_changes_nothing(dtype: str) -> None:
    options = {"num_layers": 2, "bidirectional": True, "dropout": 0.2, "zoneout": 0.1, **NORM}
    p = bent(make_problem(Case(T=300, B=16, H=6, options=options), dtype))
    whole = p.layer.training_memory(300, 16).bytes
    with pytest.raises(ValueError, match="memory_limit: expected at least"):
        p.layer.forward(p.x, p.state, memory_limit=1000)
    limit = whole * 2 // 3
    assert p.layer.training_memory(300, 16, memory_limit=limit).bytes <= limit
    output, _, tape = p.layer.forward(p.x, p.state, seed=3)
    again, _, limited = p.layer.forward(p.x, p.state, seed=3, memory_limit=limit)
    assert_same_bits(again, output)
    expected = gradient_arrays(tape.backward(p.d_output, p.d_state))
    grads = gradient_arrays(limited.backward(p.d_output, p.d_state))
    for key, array in expected.items():
        assert_same_bits(grads[key], array, key)


# --- configuration ------------------------------------------------------------------------------


def test_parameters() -> None:
    layer = fastlstm.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2, layer_norm=True)
    values = {name: array for name, array in layer.params.items() if "_ln_" in name}
    for suffix in ("l0", "l0_reverse", "l1", "l1_reverse"):
        assert (values.pop(f"weight_ln_ih_{suffix}") == np.ones(16, np.float32)).all()
        assert (values.pop(f"weight_ln_hh_{suffix}") == np.ones(16, np.float32)).all()
        assert (values.pop(f"weight_ln_c_{suffix}") == np.ones(4, np.float32)).all()
        assert (values.pop(f"bias_ln_c_{suffix}") == np.zeros(4, np.float32)).all()
    assert not values
    plain = fastlstm.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    assert layer.num_parameters == plain.num_parameters + 4 * (16 + 16 + 4 + 4)
    assert "bias_ln_c_l0" not in fastlstm.LSTM(3, 4, bias=False, layer_norm=True).params


def test_the_forget_bias_is_that_of_the_gates() -> None:
    params = fastlstm.LSTM(3, 4, layer_norm=True, forget_bias=1.5).params
    assert (params["bias_ih_l0"][4:8] == 1.5).all()
    assert (params["bias_hh_l0"][4:8] == 0).all()
    assert (params["bias_ln_c_l0"] == 0).all()


@every_dtype
def test_copies_and_files_keep_it(dtype: str, tmp_path: Path) -> None:
    p = make("everything", dtype)
    expected = p.layer(p.x, p.state)[0]
    p.layer.save(tmp_path / "layer.safetensors")
    loaded = fastlstm.LSTM(5, 7, dtype=dtype, **CASES["everything"].options)
    loaded.load_state_dict(p.layer.state_dict())
    for other in (
        copy.deepcopy(p.layer),
        pickle.loads(pickle.dumps(p.layer)),
        fastlstm.load(tmp_path / "layer.safetensors"),
        loaded,
    ):
        assert repr(other) == repr(p.layer)
        assert_same_bits(other(p.x, p.state)[0], expected)
    assert repr(fastlstm.LSTM(3, 4, layer_norm=True)) == "LSTM(3, 4, layer_norm=True)"


def test_an_update_of_one_parameter_is_seen() -> None:
    p = make("two layers", "float64")
    before = p.layer(p.x, p.state)[0]
    for name in [name for name in p.layer.params if "_ln_" in name]:
        layer = copy.deepcopy(p.layer)
        layer.update({name: layer.params[name] + 0.1})
        assert np.max(np.abs(layer(p.x, p.state)[0] - before)) > 1e-4, name


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"layer_norm": 1}, TypeError, "layer_norm: expected True or False, got 1"),
        (
            {"layer_norm": True, "peepholes": True},
            ValueError,
            "layer_norm: expected False together with peepholes$",
        ),
        (
            {"layer_norm": True, "input_forget": True, "clip": 1.0},
            ValueError,
            "layer_norm: expected False together with input_forget, clip$",
        ),
        (
            {"layer_norm": True, "activations": ("Sigmoid", "Tanh", "Relu")},
            ValueError,
            "layer_norm: expected False together with activations$",
        ),
    ],
)
def test_errors(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        fastlstm.LSTM(3, 4, **options)


def test_the_usual_options_may_be_spelled_out() -> None:
    layer = fastlstm.LSTM(3, 4, layer_norm=True, clip=None, activations=["sigmoid", "tanh", "tanh"])
    assert layer.layer_norm


def test_special_values_stay_in_their_rows() -> None:
    for value in (np.nan, np.inf):
        p = bent(make_problem(Case(T=3, B=4, options=NORM), "float32"))
        p.x[1, 2] = value
        output, _, tape = p.layer.forward(p.x, p.state)
        assert np.isnan(output[1:, 2]).all()
        assert np.isfinite(np.delete(output, 2, axis=1)).all()
        assert np.isfinite(np.delete(tape.backward(p.d_output).x, 2, axis=1)).all()


def test_rows_without_deviation_are_finite() -> None:
    """Zeros everywhere: the mean and the deviation of all sums are 0."""
    layer = fastlstm.LSTM(3, 4, layer_norm=True)
    output, _, tape = layer.forward(np.zeros((4, 2, 3), np.float32))
    assert np.isfinite(output).all()
    grads = tape.backward(np.ones_like(output))
    assert all(np.isfinite(array).all() for array in gradient_arrays(grads).values())


# --- how exact it is ----------------------------------------------------------------------------


def one_step_errors(layer: Any, x: np.ndarray) -> tuple[float, float]:
    """The largest relative error of a step and of its gradients, each from our state before it."""
    forward = backward = 0.0
    state = None
    for t in range(len(x)):
        output, after, tape = layer.forward(x[t : t + 1], state)
        expected, expected_after, expected_tape = reference_forward(layer, x[t : t + 1], state)
        for ours, theirs in zip((output, *after), (expected, *expected_after), strict=True):
            forward = max(forward, relative_error(ours, theirs))
        grads = tape.backward(np.ones_like(output))
        wanted = reference_backward(layer, expected_tape, np.ones_like(expected), None)
        for key in grads.params:
            backward = max(backward, relative_error(grads.params[key], wanted.params[key]))
        state = after
    return forward, backward


@every_dtype
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_each_step_is_exact(dtype: str, scale: float) -> None:
    for seed, H in enumerate((9, 64, 64, 130)):
        layer = fastlstm.LSTM(64, H, layer_norm=True, dtype=dtype, seed=seed)
        layer.update({key: scale * a for key, a in layer.params.items() if "_ln_" not in key})
        x = np.random.default_rng(seed).normal(size=(20, 4, 64)).astype(dtype)
        forward, backward = one_step_errors(layer, x)
        assert forward <= NORMALISED_STEP[dtype].bound
        assert backward <= NORMALISED_STEP_BACKWARD[dtype].bound


def torch_output(torch: Any, layer: Any, x: np.ndarray) -> np.ndarray:
    """The same equations of PyTorch's functions, layer by layer, in float32."""
    norm = torch.nn.functional.layer_norm
    params = {key: torch.tensor(np.asarray(array)) for key, array in layer.params.items()}
    sequence, H = torch.from_numpy(x), layer.hidden_size
    for k in range(layer.num_layers):
        W, R, gain_x, gain_h, gain_c, bias_c = (
            params[f"{key}_l{k}"]
            for key in (
                "weight_ih",
                "weight_hh",
                "weight_ln_ih",
                "weight_ln_hh",
                "weight_ln_c",
                "bias_ln_c",
            )
        )
        bias = params[f"bias_ih_l{k}"] + params[f"bias_hh_l{k}"]
        h = c = torch.zeros(x.shape[1], H)
        outputs = []
        for step in sequence:
            sums = norm(step @ W.T, (4 * H,), gain_x) + norm(h @ R.T, (4 * H,), gain_h) + bias
            i, f, g, o = sums.chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * norm(c, (H,), gain_c, bias_c).tanh()
            outputs.append(h)
        sequence = torch.stack(outputs)
    return np.asarray(sequence.numpy())


@pytest.mark.parametrize("layers", [1, 3])
def test_float32_is_as_accurate_as_pytorch(layers: int) -> None:
    """Steps stretch what was rounded before, in both alike: the mean over several layers."""
    torch = pytest.importorskip("torch")
    logs = []
    for seed in range(12):
        layer = fastlstm.LSTM(64, 64, layers, layer_norm=True, seed=seed)
        x = np.random.default_rng(seed).normal(size=(60, 4, 64)).astype(np.float32)
        expected, _, _ = reference_forward(layer, x)
        ours, theirs = (
            np.sqrt(np.mean((output - expected) ** 2))
            for output in (layer(x)[0], torch_output(torch, layer, x))
        )
        logs.append(np.log(ours / theirs))
    ratio = float(np.exp(np.mean(logs)))
    print(f"\n{layers} layers: {ratio:.2f} times PyTorch's error")
    assert ratio <= TORCH_RATIO.bound


@pytest.mark.parametrize("scale", [1e15, 1e18, 1e20, 1e30, 1e37])
def test_squares_beyond_the_range(scale: float) -> None:
    """Sums of inputs and of h, whose squares and their sums float32 has not."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (6, 5, 4)).astype(np.float32)
    for H in (1, 9, 40):
        layer = fastlstm.LSTM(4, H, layer_norm=True, seed=0)
        large = {"weight_hh_l0": layer.params["weight_hh_l0"] * np.float32(scale)}
        for inputs, params in ((x * np.float32(scale), {}), (x, large)):
            layer.update(params)
            output, _, tape = layer.forward(inputs)
            expected, _, expected_tape = reference_forward(layer, inputs)
            assert_close(output, expected, NORMALISED_FORWARD["float32"], f"H = {H}")
            if scale > 1e30:  # gradients of sums are denormal
                continue
            grads = tape.backward(np.ones_like(output)).params
            wanted = reference_backward(layer, expected_tape, np.ones_like(expected), None).params
            for key in grads:
                if H > 1 or not key.startswith("weight"):
                    assert_close(grads[key], wanted[key], NORMALISED_BACKWARD["float32"], key)


def test_float64_squares_beyond_the_range() -> None:
    """The reference has them not either: what is normalised does not depend on its size."""
    layer = fastlstm.LSTM(4, 9, layer_norm=True, dtype="float64", seed=0)
    x = np.random.default_rng(0).uniform(-1, 1, (6, 5, 4))
    expected = layer(1e20 * x)[0]
    for scale in (1e150, 1e154, 1e200, 1e300):
        assert_close(layer(scale * x)[0], expected, NORMALISED_FORWARD["float64"], f"{scale:g}")


@every_dtype
def test_a_row_of_equal_values_becomes_zero(dtype: str) -> None:
    """However large they are, and whatever their mean is rounded to."""
    for H in (1, 3, 37, 64):
        layer = fastlstm.LSTM(1, H, layer_norm=True, dtype=dtype, seed=0)

        outputs = []
        for value in (0, 0.1, 1e3 / 3, 1e8 / 3, 1e30 / 3):
            for key in ("weight_ih_l0", "weight_hh_l0"):
                layer.update({key: np.full_like(layer.params[key], value)})
            outputs.append(layer(np.ones((3, 2, 1), dtype))[0])
        for output in outputs:
            assert_same_bits(output, outputs[0], f"H = {H}")


def test_the_promise_on_bits_holds_for_large_and_equal_values() -> None:
    rng = np.random.default_rng(0)
    layer = fastlstm.LSTM(4, 40, layer_norm=True, seed=0)
    x = rng.uniform(-1, 1, (8, 6, 4)).astype(np.float32)
    x[:, 1] *= 1e30
    x[:, 2] = 0
    whole = layer(x)[0]
    for b in range(6):
        assert_same_bits(layer(x[:, [b]])[0], whole[:, [b]], f"row {b}")
    stream = layer.stream(6)
    assert_same_bits(np.concatenate([stream.run(part) for part in np.split(x, 4)]), whole, "chunks")
    with fastlstm.num_threads(2):
        assert_same_bits(layer(x)[0], whole, "threads")
