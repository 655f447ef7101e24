"""Errors: each names the argument, what was expected and what came, and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
import pytest
from support import assert_same_bits

X = np.ones((5, 2, 3), np.float32)
H_0 = np.ones((2, 2, 4), np.float32)


def layer() -> fastlstm.LSTM:
    return fastlstm.LSTM(3, 4, num_layers=2, seed=0)


# --- the constructor ----------------------------------------------------------------------------

CONSTRUCTOR: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"input_size": 0}, ValueError, "input_size: expected an integer from 1 to 268435455, got 0"),
    ({"input_size": -3}, ValueError, "input_size: expected an integer from 1 to .*, got -3"),
    ({"input_size": 2.0}, TypeError, "input_size: expected an integer, got float"),
    ({"hidden_size": 0}, ValueError, "hidden_size: expected an integer from 1 to .*, got 0"),
    ({"hidden_size": 2**31}, ValueError, "hidden_size: .*, got 2147483648"),
    ({"hidden_size": "4"}, TypeError, "hidden_size: expected an integer, got str"),
    ({"num_layers": 0}, ValueError, "num_layers: expected an integer from 1 to .*, got 0"),
    ({"num_layers": None}, TypeError, "num_layers: expected an integer, got NoneType"),
    ({"bias": 1}, TypeError, "bias: expected True or False, got 1"),
    ({"bias": None}, TypeError, "bias: expected True or False, got None"),
    ({"batch_first": "no"}, TypeError, "batch_first: expected True or False, got 'no'"),
    ({"bidirectional": 2}, TypeError, "bidirectional: expected True or False, got 2"),
    ({"reverse": []}, TypeError, r"reverse: expected True or False, got \[\]"),
    (
        {"reverse": True, "bidirectional": True},
        ValueError,
        "reverse: expected False for a bidirectional layer, got True",
    ),
    ({"dropout": -0.1}, ValueError, "dropout: expected a number from 0 to 1, got -0.1"),
    ({"dropout": 1.5}, ValueError, "dropout: expected a number from 0 to 1, got 1.5"),
    ({"dropout": float("nan")}, ValueError, "dropout: expected a number from 0 to 1, got nan"),
    ({"dropout": "0.5"}, TypeError, "dropout: expected a number, got str"),
    ({"dropout": True}, TypeError, "dropout: expected a number, got bool"),
    ({"dropout": None}, TypeError, "dropout: expected a number, got NoneType"),
    ({"dropout": 1j}, TypeError, "dropout: expected a number, got complex"),
    ({"proj_size": 4}, ValueError, r"proj_size: expected less than hidden_size \(4\), got 4"),
    ({"proj_size": -1}, ValueError, "proj_size: expected an integer from 0 to .*, got -1"),
    ({"dtype": "float16"}, ValueError, "dtype: expected float32 or float64, got 'float16'"),
    ({"dtype": "int32"}, ValueError, "dtype: expected float32 or float64, got 'int32'"),
    ({"dtype": ">f4"}, ValueError, "dtype: expected float32 or float64, got '>f4'"),
    ({"dtype": "nonsense"}, ValueError, "dtype: expected float32 or float64, got 'nonsense'"),
    ({"dtype": None}, ValueError, "dtype: expected float32 or float64, got None"),
    ({"dtype": 3}, ValueError, "dtype: expected float32 or float64, got 3"),
    ({"seed": -1}, ValueError, "seed: expected an integer from 0 to 18446744073709551615, got -1"),
    (
        {"seed": 2**64},
        ValueError,
        "seed: expected an integer from 0 to .*, got 18446744073709551616",
    ),
    ({"seed": 1.5}, TypeError, "seed: expected an integer, got float"),
    ({"forget_bias": "1"}, TypeError, "forget_bias: expected a number, got str"),
    ({"forget_bias": float("nan")}, ValueError, "forget_bias: expected a number .*, got nan"),
    (
        {"forget_bias": 1.0, "bias": False},
        ValueError,
        "forget_bias: expected None for a layer without biases",
    ),
]


@pytest.mark.parametrize(
    ("options", "kind", "message"), CONSTRUCTOR, ids=[str(options) for options, *_ in CONSTRUCTOR]
)
def test_constructor(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{message}"):
        fastlstm.LSTM(**{"input_size": 3, "hidden_size": 4, **options})


def test_what_pytorch_does_not_have_is_keyword_only() -> None:
    with pytest.raises(TypeError, match="positional"):
        fastlstm.LSTM(3, 4, 1, True, False, 0.0, False, 0, True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonlinearity'"):
        fastlstm.LSTM(3, 4, nonlinearity="relu")


def test_dropout_without_a_place_to_act_warns() -> None:
    with pytest.warns(UserWarning, match="dropout acts between layers") as warnings:
        fastlstm.LSTM(3, 4, dropout=0.5)
    assert warnings[0].filename == __file__


def test_sizes_that_no_memory_holds() -> None:
    with pytest.raises(MemoryError):
        fastlstm.LSTM(2**28 - 1, 2**28 - 1)


# --- calls --------------------------------------------------------------------------------------

CALLS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    # x
    (
        "a wrong width",
        {"x": np.ones((5, 2, 4))},
        ValueError,
        "x: expected (T, B, 3) or (T, 3), got (5, 2, 4)",
    ),
    ("one axis", {"x": np.ones(3)}, ValueError, "x: expected (T, B, 3) or (T, 3), got (3,)"),
    ("no axis", {"x": 1.0}, ValueError, "x: expected (T, B, 3) or (T, 3), got ()"),
    (
        "four axes",
        {"x": np.ones((1, 5, 2, 3))},
        ValueError,
        "x: expected (T, B, 3) or (T, 3), got (1, 5, 2, 3)",
    ),
    (
        "a length without steps",
        {"x": np.ones((0, 2, 3)), "lengths": [0, 1]},
        ValueError,
        "lengths: expected values from 0 to 0, got 0 to 1",
    ),
    (
        "complex x",
        {"x": np.ones((5, 2, 3), complex)},
        TypeError,
        "x: expected real numbers, got an array of complex128",
    ),
    ("text as x", {"x": "abc"}, TypeError, "x: expected real numbers, got an array of <U3"),
    (
        "array of text",
        {"x": np.full((5, 2, 3), "1")},
        TypeError,
        "x: expected real numbers, got an array of <U1",
    ),
    (
        "objects",
        {"x": np.full((5, 2, 3), 1, object)},
        TypeError,
        "x: expected real numbers, got an array of object",
    ),
    (
        "dates",
        {"x": np.zeros((5, 2, 3), "M8[s]")},
        TypeError,
        "x: expected real numbers, got an array of datetime64[s]",
    ),
    (
        "records",
        {"x": np.zeros((5, 2, 3), [("a", "f4")])},
        TypeError,
        "x: expected real numbers, got an array of [('a', '<f4')]",
    ),
    ("None as x", {"x": None}, TypeError, "x: expected real numbers, got an array of object"),
    ("a dict as x", {"x": {}}, TypeError, "x: expected real numbers, got an array of object"),
    (
        "ragged lists",
        {"x": [[1.0, 2.0, 3.0], [1.0]]},
        TypeError,
        "x: expected an array, got list, which NumPy cannot read",
    ),
    # state
    (
        "one array as state",
        {"state": H_0},
        TypeError,
        "state: expected a tuple of two arrays, got ndarray",
    ),
    (
        "one array in a tuple",
        {"state": (H_0,)},
        TypeError,
        "state: expected a tuple of two arrays, got tuple",
    ),
    (
        "three arrays",
        {"state": (H_0, H_0, H_0)},
        TypeError,
        "state: expected a tuple of two arrays, got tuple",
    ),
    (
        "a number as state",
        {"state": 0},
        TypeError,
        "state: expected a tuple of two arrays, got int",
    ),
    (
        "None in the state",
        {"state": (H_0, None)},
        TypeError,
        "state[1]: expected real numbers, got an array of object",
    ),
    (
        "a wrong h_0",
        {"state": (H_0[:1], H_0)},
        ValueError,
        "state[0]: expected (2, 2, 4), got (1, 2, 4)",
    ),
    (
        "a wrong c_0",
        {"state": (H_0, H_0[:, :1])},
        ValueError,
        "state[1]: expected (2, 2, 4), got (2, 1, 4)",
    ),
    (
        "a state without batch",
        {"state": (H_0[:, 0], H_0[:, 0])},
        ValueError,
        "state[0]: expected (2, 2, 4), got (2, 4)",
    ),
    (
        "a complex state",
        {"state": (H_0, H_0 * 1j)},
        TypeError,
        "state[1]: expected real numbers, got an array of complex64",
    ),
    (
        "a batch for one sequence",
        {"x": X[:, 0], "state": (H_0, H_0)},
        ValueError,
        "state[0]: expected (2, 4), got (2, 2, 4)",
    ),
    # lengths
    (
        "a long sequence",
        {"lengths": [5, 6]},
        ValueError,
        "lengths: expected values from 0 to 5, got 5 to 6",
    ),
    (
        "a negative length",
        {"lengths": [-1, 5]},
        ValueError,
        "lengths: expected values from 0 to 5, got -1 to 5",
    ),
    (
        "a huge length",
        {"lengths": np.array([2**63, 1], np.uint64)},
        ValueError,
        "lengths: expected values from 0 to 5, got 1 to 9223372036854775808",
    ),
    (
        "a length beyond integers",
        {"lengths": [2**70, 1]},
        TypeError,
        "lengths: expected integers, got an array of object",
    ),
    ("too few lengths", {"lengths": [5]}, ValueError, "lengths: expected (2,), got (1,)"),
    ("no lengths", {"lengths": []}, ValueError, "lengths: expected (2,), got (0,)"),
    ("one number", {"lengths": 5}, ValueError, "lengths: expected (2,), got ()"),
    (
        "a column of lengths",
        {"lengths": [[5], [5]]},
        ValueError,
        "lengths: expected (2,), got (2, 1)",
    ),
    (
        "lengths in floats",
        {"lengths": [5.0, 5.0]},
        TypeError,
        "lengths: expected integers, got an array of float64",
    ),
    (
        "lengths in booleans",
        {"lengths": [True, True]},
        TypeError,
        "lengths: expected integers, got an array of bool",
    ),
    (
        "lengths in text",
        {"lengths": "55"},
        TypeError,
        "lengths: expected integers, got an array of <U2",
    ),
    (
        "lengths of one sequence",
        {"x": X[:, 0], "lengths": [5]},
        ValueError,
        "lengths: expected None for one sequence without a batch axis",
    ),
]


@pytest.mark.parametrize("method", ["__call__", "forward", "trace"])
@pytest.mark.parametrize(
    ("arguments", "kind", "message"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS]
)
def test_call(method: str, arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    lstm = layer()
    expected, _ = lstm(X)
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        getattr(lstm, method)(**{"x": X, **arguments})
    assert_same_bits(lstm(X)[0], expected)


OUTPUT = np.zeros((5, 2, 4), np.float32)
OUTS: list[tuple[str, Any, type[Exception], str]] = [
    ("a list", OUTPUT.tolist(), TypeError, "out: expected a NumPy array, got list"),
    ("float64", OUTPUT.astype(float), TypeError, "out: expected an array of float32, got float64"),
    ("byte-swapped", OUTPUT.astype(">f4"), TypeError, "out: expected an array of float32, got >f4"),
    ("a wrong shape", OUTPUT[:4], ValueError, "out: expected (5, 2, 4), got (4, 2, 4)"),
    (
        "strided",
        np.empty((10, 2, 4), np.float32)[::2],
        ValueError,
        "out: expected a writable C-contiguous array",
    ),
    (
        "Fortran order",
        np.empty((4, 2, 5), np.float32).T,
        ValueError,
        "out: expected a writable C-contiguous array",
    ),
    (
        "read-only",
        np.broadcast_to(np.float32(0), (5, 2, 4)),
        ValueError,
        "out: expected a writable C-contiguous array",
    ),
    (
        "unaligned",
        np.empty(161, np.uint8)[1:].view(np.float32).reshape(5, 2, 4),
        ValueError,
        "out: expected a writable C-contiguous array",
    ),
    (
        "a tuple of one",
        (OUTPUT,),
        TypeError,
        "out: expected an array or a tuple (output, (h_n, c_n))",
    ),
    (
        "a flat tuple",
        (OUTPUT, H_0, H_0.copy()),
        TypeError,
        "out: expected an array or a tuple (output, (h_n, c_n))",
    ),
    (
        "a list for the state",
        (OUTPUT, [H_0, H_0]),
        TypeError,
        "out: expected an array or a tuple (output, (h_n, c_n))",
    ),
    (
        "None for the output",
        (None, (H_0, H_0)),
        TypeError,
        "out[0]: expected a NumPy array, got NoneType",
    ),
    (
        "a wrong h_n",
        (OUTPUT, (H_0[:1], H_0)),
        ValueError,
        "out[1][0]: expected (2, 2, 4), got (1, 2, 4)",
    ),
    (
        "a wrong c_n",
        (OUTPUT, (H_0, H_0.astype(int))),
        TypeError,
        "out[1][1]: expected an array of float32, got int64",
    ),
]


@pytest.mark.parametrize(
    ("out", "kind", "message"), [o[1:] for o in OUTS], ids=[o[0] for o in OUTS]
)
def test_out(out: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        layer()(X, out=out)


def test_a_refused_call_writes_nothing() -> None:
    lstm = layer()
    output, h_n, c_n = np.full((5, 2, 4), 7, np.float32), H_0.copy(), H_0[:1].copy()
    with pytest.raises(ValueError, match=r"out\[1\]\[1\]"):
        lstm(X, out=(output, (h_n, c_n)))
    assert (output == 7).all()
    assert_same_bits(h_n, H_0)


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_of_a_call(seed: int) -> None:
    with pytest.raises(ValueError, match=rf"^seed: expected an integer from 0 to .*, got {seed}"):
        layer().forward(X, seed=seed)
    with pytest.raises(TypeError, match=r"^seed: expected an integer, got str"):
        layer().forward(X, seed="0")


def test_a_refused_training_call_draws_no_seed() -> None:
    def outputs(fails: bool) -> np.ndarray:
        lstm = fastlstm.LSTM(3, 8, num_layers=2, dropout=0.5, seed=0)
        if fails:
            with pytest.raises(ValueError, match="x: expected"):
                lstm.forward(X[0, 0])
        return lstm.forward(X)[0]

    assert_same_bits(outputs(True), outputs(False))


# --- backward -----------------------------------------------------------------------------------

BACKWARDS: list[tuple[str, tuple[Any, ...], type[Exception], str]] = [
    ("a wrong d_output", (OUTPUT[:4],), ValueError, "d_output: expected (5, 2, 4), got (4, 2, 4)"),
    (
        "a complex d_output",
        (OUTPUT * 1j,),
        TypeError,
        "d_output: expected real numbers, got an array of complex64",
    ),
    ("text", ("ab",), TypeError, "d_output: expected real numbers, got an array of <U2"),
    (
        "one array as d_state",
        (OUTPUT, H_0),
        TypeError,
        "d_state: expected a tuple of two arrays, got ndarray",
    ),
    (
        "three arrays",
        (OUTPUT, (H_0, H_0, H_0)),
        TypeError,
        "d_state: expected a tuple of two arrays, got tuple",
    ),
    (
        "a wrong d_h_n",
        (OUTPUT, (H_0[0], None)),
        ValueError,
        "d_state[0]: expected (2, 2, 4), got (2, 4)",
    ),
    (
        "a wrong d_c_n",
        (OUTPUT, (None, H_0[..., :3])),
        ValueError,
        "d_state[1]: expected (2, 2, 4), got (2, 2, 3)",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"), [b[1:] for b in BACKWARDS], ids=[b[0] for b in BACKWARDS]
)
def test_backward(arguments: tuple[Any, ...], kind: type[Exception], message: str) -> None:
    _, _, tape = layer().forward(X)
    before = tape.backward(np.ones_like(OUTPUT))
    kept = {name: array.copy() for name, array in before.params.items()}
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        tape.backward(*arguments, accumulate=before)
    for name, array in before.params.items():
        assert_same_bits(array, kept[name], name)


def test_accumulate() -> None:
    _, _, tape = layer().forward(X)
    grads = tape.backward(np.ones_like(OUTPUT))
    with pytest.raises(TypeError, match=r"^accumulate: expected Gradients, got dict"):
        tape.backward(accumulate=grads.params)
    other = fastlstm.LSTM(3, 4).forward(X)[2].backward()
    with pytest.raises(ValueError, match=r"^accumulate: expected gradients of the parameters that"):
        tape.backward(accumulate=other)
    wider = fastlstm.LSTM(7, 4, num_layers=2).forward(np.ones((5, 2, 7)))[2].backward()
    message = r"^accumulate.params\['weight_ih_l0'\]: expected \(16, 3\), got \(16, 7\)"
    with pytest.raises(ValueError, match=message):
        tape.backward(accumulate=wider)
    double = fastlstm.LSTM(3, 4, num_layers=2, dtype="float64").forward(X)[2].backward()
    with pytest.raises(TypeError, match=r"^accumulate.params\['weight_ih_l0'\]: expected an array"):
        tape.backward(accumulate=double)
    grads.params["bias_hh_l1"].flags.writeable = False
    kept = grads.params["weight_ih_l0"].copy()
    with pytest.raises(
        ValueError, match=r"^accumulate.params\['bias_hh_l1'\]: expected a writable"
    ):
        tape.backward(np.ones_like(OUTPUT), accumulate=grads)
    assert_same_bits(grads.params["weight_ih_l0"], kept)


# --- parameters ---------------------------------------------------------------------------------


def _params(**changes: Any) -> dict[str, Any]:
    params: dict[str, Any] = dict(layer().params)
    for name, value in changes.items():
        if value is None:
            del params[name]
        else:
            params[name] = value
    return params


PARAMETERS: list[tuple[str, Callable[[fastlstm.LSTM], Any], type[Exception], str]] = [
    ("update: a list", lambda l: l.update([1]), TypeError, "values: expected a mapping, got list"),
    (
        "update: a name",
        lambda l: l.update({"weight": X}),
        ValueError,
        "values: expected names of parameters (weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, "
        "weight_ih_l1, weight_hh_l1, bias_ih_l1, bias_hh_l1), got 'weight'",
    ),
    (
        "update: a name of another layer",
        lambda l: l.update({"weight_hr_l0": X}),
        ValueError,
        "values: expected names of parameters",
    ),
    (
        "update: no name",
        lambda l: l.update({3: X}),
        ValueError,
        "values: expected names of parameters",
    ),
    (
        "update: a shape",
        lambda l: l.update({"weight_ih_l0": np.ones((16, 4))}),
        ValueError,
        "weight_ih_l0: expected (16, 3), got (16, 4)",
    ),
    (
        "update: a transposed array",
        lambda l: l.update({"weight_ih_l0": np.ones((3, 16))}),
        ValueError,
        "weight_ih_l0: expected (16, 3), got (3, 16)",
    ),
    (
        "update: no broadcasting",
        lambda l: l.update({"bias_ih_l0": 0.0}),
        ValueError,
        "bias_ih_l0: expected (16,), got ()",
    ),
    (
        "update: text",
        lambda l: l.update({"bias_ih_l0": "a"}),
        TypeError,
        "bias_ih_l0: expected real numbers, got an array of <U1",
    ),
    (
        "update: the second is wrong",
        lambda l: l.update({"bias_ih_l0": np.ones(16), "bias_hh_l0": np.ones(15)}),
        ValueError,
        "bias_hh_l0: expected (16,), got (15,)",
    ),
    (
        "load: a list",
        lambda l: l.load_state_dict([1]),
        TypeError,
        "state_dict: expected a mapping, got list",
    ),
    (
        "load: missing",
        lambda l: l.load_state_dict(_params(weight_hh_l1=None)),
        ValueError,
        "state_dict: expected the parameters of LSTM(3, 4, num_layers=2); "
        "missing: weight_hh_l1; unexpected: none",
    ),
    (
        "load: unexpected",
        lambda l: l.load_state_dict(_params(weight_hr_l0=X)),
        ValueError,
        "state_dict: expected the parameters of LSTM(3, 4, num_layers=2); "
        "missing: none; unexpected: weight_hr_l0",
    ),
    (
        "load: a shape",
        lambda l: l.load_state_dict(_params(weight_hh_l1=X)),
        ValueError,
        "weight_hh_l1: expected (16, 4), got (5, 2, 3)",
    ),
    (
        "load: nothing",
        lambda l: l.load_state_dict({}),
        ValueError,
        "state_dict: expected the parameters of",
    ),
]


@pytest.mark.parametrize(
    ("action", "kind", "message"), [p[1:] for p in PARAMETERS], ids=[p[0] for p in PARAMETERS]
)
def test_parameters(
    action: Callable[[fastlstm.LSTM], Any], kind: type[Exception], message: str
) -> None:
    lstm = layer()
    before, (expected, _) = lstm.params, lstm(X)
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        action(lstm)
    assert list(lstm.params) == list(before)
    for name, array in lstm.params.items():
        assert_same_bits(array, before[name], name)
    assert_same_bits(lstm(X)[0], expected)


# --- streams ------------------------------------------------------------------------------------

STREAMS: list[tuple[str, Callable[[fastlstm.Stream], Any], type[Exception], str]] = [
    (
        "step: a batch",
        lambda s: s.step(np.ones((3, 3))),
        ValueError,
        "x: expected (2, 3), got (3, 3)",
    ),
    (
        "step: a width",
        lambda s: s.step(np.ones((2, 4))),
        ValueError,
        "x: expected (2, 3), got (2, 4)",
    ),
    ("step: a sequence", lambda s: s.step(X), ValueError, "x: expected (2, 3), got (5, 2, 3)"),
    (
        "step: complex",
        lambda s: s.step(X[0] * 1j),
        TypeError,
        "x: expected real numbers, got an array of complex64",
    ),
    (
        "step: out's shape",
        lambda s: s.step(X[0], np.empty((2, 3), np.float32)),
        ValueError,
        "out: expected (2, 4), got (2, 3)",
    ),
    (
        "step: out's type",
        lambda s: s.step(X[0], np.empty((2, 4))),
        TypeError,
        "out: expected an array of float32, got float64",
    ),
    (
        "step: no array as out",
        lambda s: s.step(X[0], [1]),
        TypeError,
        "out: expected a NumPy array, got list",
    ),
    (
        "step: out in strides",
        lambda s: s.step(X[0], np.empty((4, 2), np.float32).T),
        ValueError,
        "out: expected a writable C-contiguous array",
    ),
    (
        "run: a batch",
        lambda s: s.run(np.ones((5, 3, 3))),
        ValueError,
        "x: expected a batch of 2, got 3",
    ),
    (
        "run: one sequence",
        lambda s: s.run(np.ones((5, 3))),
        ValueError,
        "x: expected a batch of 2, got 1",
    ),
    (
        "run: a width",
        lambda s: s.run(np.ones((5, 2, 4))),
        ValueError,
        "x: expected (T, B, 3) or (T, 3), got (5, 2, 4)",
    ),
    (
        "state: one array",
        lambda s: setattr(s, "state", H_0),
        TypeError,
        "state: expected a tuple of two arrays, got ndarray",
    ),
    (
        "state: a wrong h",
        lambda s: setattr(s, "state", (H_0[:1], H_0)),
        ValueError,
        "state[0]: expected (2, 2, 4), got (1, 2, 4)",
    ),
    (
        "state: a wrong c",
        lambda s: setattr(s, "state", (H_0 * 9, H_0[:1])),
        ValueError,
        "state[1]: expected (2, 2, 4), got (1, 2, 4)",
    ),
    ("reset: a row", lambda s: s.reset(2), ValueError, "rows: expected indices of 2 sequences"),
    ("reset: rows", lambda s: s.reset([0, 2]), ValueError, "rows: expected indices of 2 sequences"),
    (
        "reset: a mask",
        lambda s: s.reset([True, False, True]),
        ValueError,
        "rows: expected indices of 2 sequences",
    ),
    ("reset: a float", lambda s: s.reset(0.5), ValueError, "rows: expected indices of 2 sequences"),
    ("reset: text", lambda s: s.reset("all"), ValueError, "rows: expected indices of 2 sequences"),
]


@pytest.mark.parametrize(
    ("action", "kind", "message"), [s[1:] for s in STREAMS], ids=[s[0] for s in STREAMS]
)
def test_stream(
    action: Callable[[fastlstm.Stream], Any], kind: type[Exception], message: str
) -> None:
    stream = layer().stream(2)
    stream.run(X)
    before = stream.state
    with pytest.raises(kind, match=f"^{re.escape(message)}"):
        action(stream)
    for array, old in zip(stream.state, before, strict=True):
        assert_same_bits(array, old)


@pytest.mark.parametrize("size", [0, -1, 2**40])
def test_batch_size_of_a_stream(size: int) -> None:
    with pytest.raises(ValueError, match=rf"^batch_size: expected an integer .*, got {size}"):
        layer().stream(size)
    with pytest.raises(TypeError, match=r"^batch_size: expected an integer, got float"):
        layer().stream(1.0)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"reverse": True}])
def test_layers_that_cannot_stream(options: dict[str, bool]) -> None:
    with pytest.raises(ValueError, match="reads sequences from their end cannot stream"):
        fastlstm.LSTM(3, 4, **options).stream()


# --- the runtime --------------------------------------------------------------------------------


def _enter_num_threads(n: int) -> None:
    with fastlstm.num_threads(n):
        pass


@pytest.mark.parametrize("function", [fastlstm.set_num_threads, _enter_num_threads])
def test_numbers_of_threads(function: Callable[..., None]) -> None:
    before = fastlstm.get_num_threads()
    for n in (0, -2, 5000, 2**40):
        with pytest.raises(ValueError, match=rf"^n: expected an integer from 1 to 4096, got {n}"):
            function(n)
    with pytest.raises(TypeError, match=r"^n: expected an integer, got float"):
        function(2.0)
    assert fastlstm.get_num_threads() == before
