"""Arrays that share memory: refused where results would be wrong, right everywhere else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm.optim import SGD, Adam, AdamW
from support import assert_same_bits

T, B, I, H = 5, 2, 3, 4
X = np.random.default_rng(0).standard_normal((T, B, I)).astype(np.float32)
LAYER = fastlstm.LSTM(I, H, num_layers=2, seed=0)
# Its parameters: (16, 3), (16, 4) and (16,); its output (5, 2, 4), its states (2, 2, 4).
D_OUTPUT = np.ones((T, B, H), np.float32)
D_STATE = (np.ones((2, B, H), np.float32), np.ones((2, B, H), np.float32))


def some_of(memory: np.ndarray, first: int, shape: tuple[int, ...]) -> np.ndarray:
    return memory[first : first + int(np.prod(shape))].reshape(shape)


def same_name_twice(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["bias_ih_l0"] = grads.params["bias_hh_l0"]
    return {}


def same_memory_twice(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["bias_ih_l0"] = some_of(memory, 0, (16,))
    grads.params["weight_hh_l1"] = some_of(memory, 15, (16, 4))
    return {}


def one_within_another(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["weight_hh_l1"] = some_of(memory, 0, (16, 4))
    grads.params["bias_hh_l1"] = some_of(memory, 20, (16,))
    return {}


def with_d_output(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["bias_ih_l0"] = some_of(memory, 39, (16,))
    return {"d_output": some_of(memory, 0, (T, B, H))}


def with_d_state(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["weight_ih_l0"] = some_of(memory, 0, (16, 3))
    return {"d_state": (None, some_of(memory, 47, (2, B, H)))}


def with_earlier_x(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["weight_ih_l0"] = some_of(memory, 0, (16, 3))
    grads.x = some_of(memory, 10, (T, B, I))
    return {}


def with_earlier_state(grads: fastlstm.Gradients, memory: np.ndarray) -> dict[str, Any]:
    grads.params["weight_ih_l0"] = some_of(memory, 0, (16, 3))
    grads.state = (some_of(memory, 100, (2, B, H)), some_of(memory, 47, (2, B, H)))
    return {}


SHARED: dict[Callable[..., dict[str, Any]], str] = {
    same_name_twice: "accumulate.params['bias_hh_l0']: expected memory of its own, got some of "
    "accumulate.params['bias_ih_l0']'s",
    same_memory_twice: "accumulate.params['weight_hh_l1']: expected memory of its own, got some "
    "of accumulate.params['bias_ih_l0']'s",
    one_within_another: "accumulate.params['bias_hh_l1']: expected memory of its own, got some "
    "of accumulate.params['weight_hh_l1']'s",
    with_d_output: "accumulate.params['bias_ih_l0']: expected memory of its own, got some of "
    "d_output's",
    with_d_state: "accumulate.params['weight_ih_l0']: expected memory of its own, got some of "
    "d_state[1]'s",
    with_earlier_x: "accumulate.params['weight_ih_l0']: expected memory of its own, got some of "
    "accumulate.x's",
    with_earlier_state: "accumulate.params['weight_ih_l0']: expected memory of its own, got some "
    "of accumulate.state[1]'s",
}


@pytest.mark.parametrize(("share", "message"), SHARED.items(), ids=[f.__name__ for f in SHARED])
def test_gradients_are_not_added_to_shared_memory(
    share: Callable[..., dict[str, Any]], message: str
) -> None:
    tape = LAYER.forward(X)[2]
    grads = tape.backward(D_OUTPUT)
    memory = np.random.default_rng(1).standard_normal(200).astype(np.float32)
    arguments = share(grads, memory)
    kept = {name: array.copy() for name, array in grads.params.items()}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tape.backward(**{"d_output": D_OUTPUT, **arguments}, accumulate=grads)
    for name, array in grads.params.items():
        assert_same_bits(array, kept[name], name)


def test_chunks_refuse_it_too() -> None:
    for chunk in fastlstm.truncated_bptt(LAYER, X, k1=1, k2=3):
        grads = chunk.backward(D_OUTPUT[:1])
    grads.params["bias_ih_l0"] = grads.params["bias_hh_l0"]
    with pytest.raises(ValueError, match="expected memory of its own"):
        chunk.backward(D_OUTPUT[:1], accumulate=grads)


def test_memory_side_by_side_is_not_shared() -> None:
    """All gradients in one array, as flat optimisers have them; d_output between them; views."""
    tape = LAYER.forward(X)[2]
    expected = tape.backward(D_OUTPUT, D_STATE)
    size = sum(p.size for p in LAYER.params.values())
    memory = np.zeros(size + D_OUTPUT.size, np.float32)
    grads = tape.backward(needs="params")
    first = 0
    for name, p in LAYER.params.items():
        grads.params[name] = some_of(memory, first, p.shape)
        first += p.size
        if name == "weight_hh_l0":
            d_output = some_of(memory, first, D_OUTPUT.shape)
            d_output[...] = 1
            first += D_OUTPUT.size
    # Equal arguments may be one array: nothing is written to them. So may what is copied first.
    state = D_STATE[0]
    tape.backward(d_output, (state, state), accumulate=grads, needs="params")
    for name, array in expected.params.items():
        assert_same_bits(grads.params[name], array, name)
    every_second = np.ones((T, B, 2 * H), np.float32)
    grads = tape.backward(needs="params")
    grads.params["bias_ih_l0"] = some_of(every_second.reshape(-1), 0, (16,))
    grads.params["bias_ih_l0"][...] = 0
    copied = every_second[..., ::2].copy()
    result = tape.backward(every_second[..., ::2], accumulate=grads, needs="params")
    for name, array in tape.backward(copied).params.items():
        assert_same_bits(result.params[name], array, name)


def test_x_may_be_what_gradients_are_added_to() -> None:
    """The tape has the input's values, not its memory."""
    layer = fastlstm.LSTM(I, H, seed=0)
    memory = np.zeros(T * B * I, np.float32)
    x = memory.reshape(T, B, I)
    x[...] = X
    tape = layer.forward(x)[2]
    expected = tape.backward(D_OUTPUT)
    grads = tape.backward(needs="params")
    grads.params["bias_ih_l0"] = memory[:16]
    memory[:16] = 0
    tape.backward(D_OUTPUT, accumulate=grads, needs="params")
    for name, array in expected.params.items():
        assert_same_bits(grads.params[name], array, name)


def test_gradients_of_another_window_are_not_added_to_those_of_a_tape() -> None:
    """The x of a window of several chunks belongs to none of them."""
    chunks = list(fastlstm.truncated_bptt(LAYER, X, k1=1, k2=2))
    window = chunks[1].backward(D_OUTPUT[:1])
    kept = {name: array.copy() for name, array in window.params.items()}
    alone = chunks[0].backward(D_OUTPUT[:1])
    both = chunks[0].backward(D_OUTPUT[:1], accumulate=window)
    assert_same_bits(both.x, alone.x)
    for name, array in both.params.items():
        np.testing.assert_allclose(array, kept[name] + alone.params[name], rtol=1e-4, atol=1e-6)


def test_an_earlier_gradient_of_another_shape_is_refused() -> None:
    tape = LAYER.forward(X)[2]
    grads = tape.backward(D_OUTPUT)
    kept = grads.params["bias_ih_l0"].copy()
    grads.x = np.ones((1, 1, I), np.float32)
    with pytest.raises(ValueError, match=r"accumulate\.x: expected \(5, 2, 3\), got \(1, 1, 3\)"):
        tape.backward(D_OUTPUT, accumulate=grads)
    assert_same_bits(grads.params["bias_ih_l0"], kept)


@pytest.mark.parametrize(
    ("output", "h", "c", "message"),
    [
        (0, 39, 60, r"out\[1\]\[0\]: .* got some of out\[0\]'s"),
        (0, 60, 75, r"out\[1\]\[1\]: .* got some of out\[1\]\[0\]'s"),
        (60, 0, 99, r"out\[1\]\[1\]: .* got some of out\[0\]'s"),
    ],
)
def test_results_do_not_go_to_shared_memory(output: int, h: int, c: int, message: str) -> None:
    memory = np.zeros(200, np.float32)
    states = some_of(memory, h, (2, B, H)), some_of(memory, c, (2, B, H))
    with pytest.raises(ValueError, match=message):
        LAYER(X, out=(some_of(memory, output, (T, B, H)), states))


OPTIMIZERS = {
    "SGD": lambda: SGD(0.1, 0.9),
    "nesterov": lambda: SGD(0.1, 0.9, nesterov=True),
    "decay": lambda: SGD(0.1, 0.9, weight_decay=0.1),
    "Adam": lambda: Adam(0.1),
    "AdamW": lambda: AdamW(0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_keep_no_memory_of_others(name: str) -> None:
    """Gradients are often added into arrays that are used again."""
    start = np.array([1.0, -2.0, 3.0])

    def run(use_again: bool) -> np.ndarray:
        optimizer, params = OPTIMIZERS[name](), {"w": start.copy()}
        g = np.zeros(3)
        for _ in range(3):
            if not use_again:
                g = np.zeros(3)
            g[...] = 2 * params["w"]
            params = optimizer.step(params, {"w": g})
            if use_again:
                g[...] = 1e9  # and of what it returned
                params, given = {"w": params["w"].copy()}, params
                given["w"][...] = 1e9
        return params["w"]

    assert_same_bits(run(True), run(False))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_take_one_array_under_several_names(name: str) -> None:
    w = np.array([1.0, -2.0])
    optimizer = OPTIMIZERS[name]()
    for _ in range(2):
        new = optimizer.step({"a": w, "b": w}, {"a": w, "b": w})
        assert not np.shares_memory(new["a"], new["b"])
        assert_same_bits(new["a"], new["b"])
        w = new["a"]
