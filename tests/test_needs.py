"""Gradients that are not asked for: left out, and those that are have the bits they always have."""

from __future__ import annotations

from typing import Any

import fastlstm
import numpy as np
import pytest
from support import CASES, assert_same_bits, make_problem

pytestmark = pytest.mark.every_isa


def arrays(grads: fastlstm.Gradients) -> dict[str, np.ndarray]:
    state = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    given = {"x": grads.x, **{f"state {k}": d for k, d in enumerate(state)}, **grads.params}
    return {name: array for name, array in given.items() if array is not None}


def choices(layer: Any) -> list[str | tuple[str, ...]]:
    names = tuple(layer.params)
    alone = [(name,) for name in names]
    return ["x", "state", "params", (), ("x", "params"), *alone, ("x", names[1])]


def asked(needs: str | tuple[str, ...], all_names: list[str]) -> list[str]:
    needs = (needs,) if isinstance(needs, str) else needs
    kinds = {
        name: name.split()[0] if name == "x" or " " in name else "params" for name in all_names
    }
    return [name for name in all_names if name in needs or kinds[name] in needs]


@pytest.mark.parametrize("case", sorted(CASES))
def test_what_is_asked_for_has_the_same_bits_and_nothing_else_is_given(case: str) -> None:
    p = make_problem(CASES[case], "float32")
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=1)
    everything = arrays(tape.backward(p.d_output, p.d_state))
    for needs in choices(p.layer):
        got = arrays(tape.backward(p.d_output, p.d_state, needs=needs))
        assert list(got) == asked(needs, list(everything)), needs
        for name, array in got.items():
            assert_same_bits(array, everything[name], f"{name} of {needs}")


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: fastlstm.GRU(3, 6, **o),
        lambda **o: fastlstm.GRU(3, 6, reset_after=False, **o),
        lambda **o: fastlstm.RNN(3, 6, **o),
        lambda **o: fastlstm.LSTM(3, 6, peepholes=True, proj_size=4, **o),
        lambda **o: fastlstm.LSTM(3, 6, recurrent_dropout=0.3, zoneout=(0.2, 0.1), **o),
        lambda **o: fastlstm.LSTM(3, 6, weight_dropout=0.4, merge="mul", **o),
        lambda **o: fastlstm.LSTM(3, 6, layer_norm=True, **o),
    ],
    ids=["GRU", "GRU, reset before", "RNN", "peepholes", "zoneout", "weight dropout", "norm"],
)
@pytest.mark.parametrize("limited", [False, True])
def test_cells_options_and_limits(make: Any, limited: bool) -> None:
    layer = make(num_layers=2, bidirectional=True, dropout=0.2, seed=0)
    x = np.random.default_rng(0).standard_normal((150, 20, 3)).astype(np.float32)
    limit = None
    if limited:
        with pytest.raises(ValueError, match="at least") as error:
            layer.training_memory(150, 20, memory_limit=1)
        limit = int(str(error.value).partition("at least ")[2].split()[0])
    output, _, tape = layer.forward(x, seed=3, memory_limit=limit)
    everything = arrays(tape.backward(output))
    for needs in choices(layer):
        got = arrays(tape.backward(output, needs=needs))
        assert list(got) == asked(needs, list(everything)), needs
        for name, array in got.items():
            assert_same_bits(array, everything[name], f"{name} of {needs}")


def test_accumulate_adds_to_what_is_asked_for() -> None:
    p = make_problem(CASES["plain"], "float64")
    _, _, tape = p.layer.forward(p.x, p.state)
    first = tape.backward(p.d_output, needs=["params", "x"])
    bits = {name: 2 * array for name, array in arrays(first).items()}
    second = tape.backward(p.d_output, accumulate=first, needs=["x", "params"])
    assert second.state is None
    assert second.params is first.params
    for name, array in arrays(second).items():
        np.testing.assert_allclose(array, bits[name], rtol=1e-14)
    # An earlier gradient that is not asked for again stays where it was.
    third = tape.backward(p.d_output, accumulate=second, needs="params")
    assert third.x is None
    assert second.x is not None


@pytest.mark.parametrize(
    ("earlier", "needs", "message"),
    [
        ("params", ["params", "x"], "accumulate: expected a gradient of x"),
        ("params", ["params", "state"], "accumulate: expected a gradient of state"),
        ("params", ["weight_hh_l0"], r"accumulate: expected .* asked for \(weight_hh_l0\), got we"),
        ("x", ["params"], "accumulate: expected .*, got none"),
        ("params", ["x"], r"accumulate: expected .* asked for \(none\), got weight_ih_l0"),
    ],
)
def test_gradients_that_do_not_fit_are_refused_and_unchanged(
    earlier: str, needs: list[str], message: str
) -> None:
    p = make_problem(CASES["plain"], "float32")
    _, _, tape = p.layer.forward(p.x, p.state)
    first = tape.backward(p.d_output, needs=earlier)
    before = {name: array.copy() for name, array in arrays(first).items()}
    with pytest.raises(ValueError, match=message):
        tape.backward(p.d_output, accumulate=first, needs=needs)
    for name, array in arrays(first).items():
        assert_same_bits(array, before[name], name)


@pytest.mark.parametrize("needs", ["d_x", ["x", "weight_hh_l7"], ("params", "")])
def test_unknown_names(needs: Any) -> None:
    p = make_problem(CASES["plain"], "float32")
    _, _, tape = p.layer.forward(p.x, p.state)
    with pytest.raises(ValueError, match="needs: expected names of x, state, params, weight_ih_l0"):
        tape.backward(p.d_output, needs=needs)


def test_chunks_of_a_series() -> None:
    lstm = fastlstm.LSTM(3, 5, num_layers=2, seed=0)
    series = np.random.default_rng(0).standard_normal((30, 2, 3)).astype(np.float32)
    for chunk in fastlstm.truncated_bptt(lstm, series, k1=5, k2=15):
        everything = arrays(chunk.backward(chunk.output))
        for needs in choices(lstm):
            got = arrays(chunk.backward(chunk.output, needs=needs))
            assert list(got) == asked(needs, list(everything)), needs
            for name, array in got.items():
                assert_same_bits(array, everything[name], f"{name} of {needs}")


@pytest.mark.parametrize("needs", [5, None])
def test_needs_of_another_type(needs: Any) -> None:
    p = make_problem(CASES["plain"], "float32")
    _, _, tape = p.layer.forward(p.x, p.state)
    with pytest.raises(TypeError, match=r"^needs: expected names, got "):
        tape.backward(p.d_output, needs=needs)
