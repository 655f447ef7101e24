"""Options that PyTorch does not have: values, gradients, and every place that must know of them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm._activations import NAMES
from support import (
    DTYPES,
    Case,
    Problem,
    assert_gradients_close,
    assert_same_bits,
    gradient_arrays,
    make_problem,
    reference_forward,
    solve,
)
from tolerances import BACKWARD, FORWARD, assert_close

pytestmark = pytest.mark.every_isa

PARAMETERS = {"Affine": (0.7, 0.1), "ScaledTanh": (1.2, 0.7), "ThresholdedRelu": (0.2,)}
FUNCTIONS = {name: (name, *PARAMETERS[name]) if name in PARAMETERS else name for name in NAMES}
EVERYTHING: dict[str, Any] = {
    "peepholes": True,
    "input_forget": True,
    "clip": 0.8,
    "activations": ("HardSigmoid", ("ScaledTanh", 1.2, 0.7), "Softsign"),
}

CASES: dict[str, Case] = {
    "peepholes": Case(options={"peepholes": True}),
    **{f"peepholes, H={n}": Case(H=n, T=4, options={"peepholes": True}) for n in (1, 4, 8, 9, 29)},
    "peepholes, large weights": Case(options={"peepholes": True}, scale=4.0),
    "peepholes, projection": Case(options={"peepholes": True, "proj_size": 3}),
    "input_forget": Case(options={"input_forget": True}),
    "clip": Case(options={"clip": 0.5}, scale=3.0),
    "clip, no bias": Case(options={"clip": 0.3, "bias": False}, scale=3.0),
    **{
        f"{what} {name}": Case(
            T=3,
            H=9,
            options={
                "activations": tuple(
                    function if k == place else plain
                    for k, plain in enumerate(("Sigmoid", "Tanh", "Tanh"))
                )
            },
            scale=2.0,
        )
        for place, what in enumerate(("gates", "candidate", "cell state"))
        for name, function in FUNCTIONS.items()
    },
    "everything": Case(B=8, H=13, options=EVERYTHING, scale=2.0),
    "everything, projection": Case(options={"proj_size": 3, **EVERYTHING}),
    **{
        f"merge {merge}": Case(options={"bidirectional": True, "num_layers": 2, "merge": merge})
        for merge in ("sum", "mul", "ave")
    },
    "merge, lengths, projection": Case(
        lengths=(2, 0, 6),
        options={"bidirectional": True, "merge": "mul", "proj_size": 3, "batch_first": True},
    ),
    "merge, unbatched": Case(batched=False, options={"bidirectional": True, "merge": "ave"}),
    "merge, B=0": Case(B=0, options={"bidirectional": True, "merge": "sum"}),
    "everything, lengths": Case(
        B=6,
        lengths=(3, 0, 6, 1, 6, 2),
        options={
            "num_layers": 2,
            "bidirectional": True,
            "proj_size": 4,
            "batch_first": True,
            "merge": "mul",
            **EVERYTHING,
        },
    ),
    "everything, reverse, unbatched": Case(batched=False, options={"reverse": True, **EVERYTHING}),
    "everything, blocks": Case(
        T=60, B=40, I=3, H=5, lengths=tuple((37 * b) % 61 for b in range(40)), options=EVERYTHING
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


@every_dtype
@every_case
def test_results_and_gradients_are_the_references(name: str, dtype: str) -> None:
    p = make_problem(CASES[name], dtype)
    expected = solve(p)
    output, (h_n, c_n), tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_close(h_n, expected.state[0], FORWARD[dtype], "h_n")
    assert_close(c_n, expected.state[1], FORWARD[dtype], "c_n")
    assert_gradients_close(tape.backward(p.d_output, p.d_state), expected.grads, BACKWARD[dtype])

    inferred, (inferred_h, inferred_c) = p.layer(p.x, p.state, lengths=p.lengths)
    assert_same_bits(inferred, output, "output of inference")
    assert_same_bits(inferred_h, h_n, "h_n of inference")
    assert_same_bits(inferred_c, c_n, "c_n of inference")


@pytest.mark.parametrize("name", ["everything", "everything, projection", "everything, lengths"])
def test_options_do_something(name: str) -> None:
    """Each option alone, left out, gives other results."""
    case = CASES[name]
    p = make_problem(case, "float64")
    output = p.layer(p.x, p.state, lengths=p.lengths)[0]
    for option in EVERYTHING:
        options = {key: value for key, value in case.options.items() if key != option}
        other = fastlstm.LSTM(case.I, case.H, dtype="float64", **options)
        other.update({key: value for key, value in p.layer.params.items() if key in other.params})
        assert np.max(np.abs(other(p.x, p.state, lengths=p.lengths)[0] - output)) > 1e-3, option


@every_dtype
@pytest.mark.parametrize("name", ["peepholes", "input_forget", "clip", "everything, lengths"])
def test_trace_is_the_references(name: str, dtype: str) -> None:
    p = make_problem(CASES[name], dtype)
    _, _, tape = reference_forward(p.layer, p.x, p.state, lengths=p.lengths)
    for layer, directions in enumerate(p.layer.trace(p.x, p.state, lengths=p.lengths)):
        for d, trace in enumerate(directions):
            for key in trace._fields[:6]:
                values = getattr(trace, key)
                expected = getattr(tape.traces[layer][d], key)
                if p.layer.batch_first:
                    expected = expected.swapaxes(0, 1)
                assert_close(values, expected, FORWARD[dtype], f"{key} of layer {layer}, {d}")


def streamed(p: Problem) -> np.ndarray:
    stream = p.layer.stream(p.x.shape[1])
    stream.state = p.state
    return np.stack([stream.step(x_t) for x_t in p.x])


@every_dtype
@pytest.mark.parametrize("name", ["peepholes", "input_forget", "clip", "everything"])
def test_a_stream_is_the_whole(name: str, dtype: str) -> None:
    p = make_problem(CASES[name], dtype)
    output, state = p.layer(p.x, p.state)
    assert_same_bits(streamed(p), output)
    first, middle = p.layer(p.x[:2], p.state)
    second, last = p.layer(p.x[2:], middle)
    assert_same_bits(np.concatenate([first, second]), output)
    assert_same_bits(last[1], state[1])


@every_dtype
@pytest.mark.parametrize(("B", "H"), [(70, 40), (3, 150)])
def test_results_do_not_depend_on_threads(dtype: str, B: int, H: int) -> None:
    p = make_problem(Case(T=20, B=B, I=20, H=H, options=EVERYTHING), dtype)
    results = []
    for n in (1, 2, 3, 4):
        with fastlstm.num_threads(n):
            output, _, tape = p.layer.forward(p.x, p.state)
            grads = tape.backward(p.d_output, p.d_state)
            results.append({"output": output, **gradient_arrays(grads)})
    for result in results[1:]:
        for key, array in results[0].items():
            assert_same_bits(result[key], array, key)


@every_dtype
@pytest.mark.parametrize("more", [{}, {"batch_first": True}, {"num_layers": 2, "proj_size": 3}])
def test_directions_that_are_not_merged_are_the_halves(dtype: str, more: dict[str, Any]) -> None:
    concat = make_problem(Case(options={"bidirectional": True, **more}), dtype)
    apart = fastlstm.LSTM(5, 7, bidirectional=True, merge=None, dtype=dtype, **more)
    apart.update(concat.layer.params)
    whole, state, whole_tape = concat.layer.forward(concat.x, concat.state)
    output, same_state, tape = apart.forward(concat.x, concat.state)
    one, other = output
    assert_same_bits(np.concatenate([one, other], axis=-1), whole)
    assert_same_bits(same_state[0], state[0])

    out = np.full_like(output, np.nan)
    assert apart(concat.x, concat.state, out=out)[0] is out
    assert_same_bits(out, output)

    d_output = np.stack(np.split(concat.d_output, 2, axis=-1))
    grads = gradient_arrays(tape.backward(d_output, concat.d_state))
    expected = gradient_arrays(whole_tape.backward(concat.d_output, concat.d_state))
    for key, array in expected.items():
        assert_same_bits(grads[key], array, key)


def test_merged_outputs_are_written_to_out() -> None:
    p = make_problem(CASES["merge sum"], "float32")
    out = np.empty((6, 3, 7), np.float32)
    output, _ = p.layer(p.x, p.state, out=out)
    assert output is out
    assert_same_bits(out, p.layer(p.x, p.state)[0])
    with pytest.raises(ValueError, match=r"out: expected \(6, 3, 7\), got \(6, 3, 14\)"):
        p.layer(p.x, out=np.empty((6, 3, 14), np.float32))
    _, _, tape = p.layer.forward(p.x)
    with pytest.raises(ValueError, match=r"d_output: expected \(6, 3, 7\), got \(6, 3, 14\)"):
        tape.backward(np.empty((6, 3, 14), np.float32))


# --- configuration ------------------------------------------------------------------------------


def test_parameters() -> None:
    layer = fastlstm.LSTM(3, 4, num_layers=2, bidirectional=True, peepholes=True)
    shapes = {name: array.shape for name, array in layer.params.items() if "peephole" in name}
    assert shapes == {
        "weight_peephole_l0": (12,),
        "weight_peephole_l0_reverse": (12,),
        "weight_peephole_l1": (12,),
        "weight_peephole_l1_reverse": (12,),
    }
    plain = fastlstm.LSTM(3, 4, num_layers=2, bidirectional=True)
    assert layer.num_parameters == plain.num_parameters + 4 * 12


def test_activations_are_named_as_onnx_names_them() -> None:
    layer = fastlstm.LSTM(3, 4, activations=["hardsigmoid", ["leakyRELU", 0.1], "TANH"])
    assert layer.activations == (("HardSigmoid", 0.2, 0.5), ("LeakyRelu", 0.1), "Tanh")
    assert fastlstm.LSTM(3, 4).activations == ("Sigmoid", "Tanh", "Tanh")


def test_repr_shows_what_differs() -> None:
    assert repr(fastlstm.LSTM(3, 4, peepholes=True, clip=2)) == (
        "LSTM(3, 4, peepholes=True, clip=2.0)"
    )
    layer = fastlstm.LSTM(3, 4, input_forget=True, activations=("HardSigmoid", "Tanh", "Relu"))
    assert repr(layer) == (
        "LSTM(3, 4, input_forget=True, activations=(('HardSigmoid', 0.2, 0.5), 'Tanh', 'Relu'))"
    )


@every_dtype
def test_copies_and_files_keep_the_options(dtype: str, tmp_path: Path) -> None:
    p = make_problem(CASES["everything"], dtype)
    expected = p.layer(p.x, p.state)[0]
    p.layer.save(tmp_path / "layer.safetensors")
    others = [
        copy.deepcopy(p.layer),
        pickle.loads(pickle.dumps(p.layer)),
        fastlstm.load(tmp_path / "layer.safetensors"),
    ]
    for other in others:
        assert repr(other) == repr(p.layer)
        assert_same_bits(other(p.x, p.state)[0], expected)


ERRORS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"peepholes": 1}, TypeError, "peepholes: expected True or False, got 1"),
    ({"input_forget": None}, TypeError, "input_forget: expected True or False, got None"),
    ({"clip": 0}, ValueError, "clip: expected a number from 1.17549e-38 to 3.40282e"),
    ({"clip": -1.0}, ValueError, "clip: expected a number from .* got -1"),
    ({"clip": float("inf")}, ValueError, "clip: expected a number .* got inf"),
    ({"clip": "1"}, TypeError, "clip: expected a number, got str"),
    (
        {"merge": "max", "bidirectional": True},
        ValueError,
        "merge: expected concat, sum, mul, ave or None, got 'max'",
    ),
    ({"merge": "sum"}, ValueError, "merge: expected 'concat' for a layer of one direction, got 's"),
    ({"merge": None}, ValueError, "merge: expected 'concat' for a layer of one direction, got No"),
    ({"activations": "Tanh"}, TypeError, "activations: expected a tuple, got 'Tanh'"),
    ({"activations": None}, TypeError, "activations: expected a tuple, got None"),
    ({"activations": ("Tanh",)}, ValueError, "activations: expected 3 functions, got 1"),
    (
        {"activations": ("Sigmoid", "Gelu", "Tanh")},
        ValueError,
        r"activations\[1\]: expected one of Affine, Relu, .*, got 'Gelu'",
    ),
    (
        {"activations": ("Sigmoid", 3, "Tanh")},
        TypeError,
        r"activations\[1\]: expected a tuple, got 3",
    ),
    (
        {"activations": ("Sigmoid", (0.1, "Elu"), "Tanh")},
        TypeError,
        r"activations\[1\]: expected the name of a function, got 0.1",
    ),
    (
        {"activations": ("Sigmoid", "Tanh", ("Tanh", 1.0))},
        ValueError,
        r"activations\[2\]: expected at most 0 parameters of Tanh, got 1",
    ),
    (
        {"activations": (("Affine", 1.0), "Tanh", "Tanh")},
        ValueError,
        r"activations\[0\]: expected \('Affine', alpha, beta\), got \('Affine', 1.0\)",
    ),
    (
        {"activations": (("Elu", float("nan")), "Tanh", "Tanh")},
        ValueError,
        r"activations\[0\]: alpha: expected a number .*, got nan",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), ERRORS, ids=[str(e[0]) for e in ERRORS])
def test_errors(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        fastlstm.LSTM(3, 4, **options)


def test_special_values_flow_through() -> None:
    """NaN stays in its row, whatever the function."""
    for name, function in FUNCTIONS.items():
        p = make_problem(Case(T=3, B=4, options={"activations": (function,) * 3}), "float32")
        p.x[1, 2] = np.nan
        output, _, tape = p.layer.forward(p.x, p.state)
        assert np.isnan(output[1:, 2]).all(), name
        assert np.isfinite(np.delete(output, 2, axis=1)).all(), name
        assert np.isfinite(np.delete(tape.backward(p.d_output).x, 2, axis=1)).all(), name
