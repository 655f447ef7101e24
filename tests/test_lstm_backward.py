"""Every gradient of fastlstm.LSTM against the reference and PyTorch, and what a tape promises."""

from __future__ import annotations

import subprocess
import sys
import threading

import fastlstm
import numpy as np
import pytest
from support import (
    CASES,
    DTYPES,
    Case,
    assert_gradients_close,
    assert_same_bits,
    gradient_arrays,
    make_layer,
    make_long_problem,
    make_problem,
    solve,
    solve_case,
    solve_long_problem,
    time_major,
    torch_module,
)
from test_lstm_forward import FORMS, TORCH_CASES
from tolerances import BACKWARD, FORWARD, LONG, assert_close

pytestmark = pytest.mark.every_isa


def assert_same_gradients(actual: fastlstm.Gradients, expected: fastlstm.Gradients) -> None:
    arrays = gradient_arrays(expected)
    for name, array in gradient_arrays(actual).items():
        assert_same_bits(array, arrays[name], name)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_references(case: str, dtype: str) -> None:
    p, expected = make_problem(CASES[case], dtype), solve_case(case, dtype)
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    grads = tape.backward(p.d_output, p.d_state)
    assert_gradients_close(grads, expected.grads, BACKWARD[dtype])
    assert all(array.dtype == dtype for array in gradient_arrays(grads).values())
    assert list(grads.params) == list(p.layer.params)


# Every combination of what may be None, with and without what could hide a mistake in another.
@pytest.mark.parametrize("gives_output", [True, False])
@pytest.mark.parametrize("gives_h", [True, False])
@pytest.mark.parametrize("gives_c", [True, False])
@pytest.mark.parametrize("case", ["plain", "lengths, everything", "unbatched"])
def test_gradients_left_out_are_zero(
    case: str, gives_c: bool, gives_h: bool, gives_output: bool
) -> None:
    p = make_problem(CASES[case], "float64")
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    d_output = p.d_output if gives_output else None
    d_state = (p.d_state[0] if gives_h else None, p.d_state[1] if gives_c else None)
    grads = tape.backward(d_output, d_state)
    explicit = tape.backward(
        p.d_output * gives_output, (p.d_state[0] * gives_h, p.d_state[1] * gives_c)
    )
    for name, array in gradient_arrays(explicit).items():
        assert_close(gradient_arrays(grads)[name], array, BACKWARD["float64"], name)
    if not (gives_h or gives_c):
        assert_same_gradients(tape.backward(d_output), grads)
    if not (gives_h or gives_c or gives_output):
        assert not any(array.any() for array in gradient_arrays(tape.backward()).values())


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", TORCH_CASES.values(), ids=TORCH_CASES.keys())
def test_gradients_are_pytorchs(case: Case, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    p = make_problem(case, dtype)
    module = torch_module(p.layer)
    x = torch.from_numpy(p.x).requires_grad_()
    packed = x
    if p.lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.from_numpy(p.lengths), p.layer.batch_first, enforce_sorted=False
        )
    state = None
    if p.state is not None:
        state = tuple(torch.from_numpy(s).requires_grad_() for s in p.state)
    output, (h_n, c_n) = module(packed, state)
    if p.lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(
            output, p.layer.batch_first, total_length=case.T
        )
    d_output, d_h, d_c = map(torch.from_numpy, (p.d_output, *p.d_state))
    torch.autograd.backward([output, h_n, c_n], [d_output, d_h, d_c])

    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    grads = tape.backward(p.d_output, p.d_state)
    # Both have rounding errors.
    tolerance = BACKWARD[dtype]._replace(bound=2 * BACKWARD[dtype].bound)
    assert_close(grads.x, x.grad.numpy(), tolerance, "x")
    if state is not None:
        assert_close(grads.state[0], state[0].grad.numpy(), tolerance, "h_0")
        assert_close(grads.state[1], state[1].grad.numpy(), tolerance, "c_0")
    for name, parameter in module.named_parameters():
        assert_close(grads.params[name], parameter.grad.numpy(), tolerance, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ten_thousand_steps(dtype: str) -> None:
    p, expected = make_long_problem(dtype), solve_long_problem()
    _, _, tape = p.layer.forward(p.x, p.state)
    assert_gradients_close(tape.backward(p.d_output, p.d_state), expected.grads, LONG[dtype])


def test_gradients_are_those_of_the_values() -> None:
    """Nothing but the layer itself: the gradient predicts how a small change changes the loss."""
    p = make_problem(CASES["lengths, everything"], "float64")

    def loss() -> float:
        output, (h_n, c_n) = p.layer(p.x, p.state, lengths=p.lengths)
        return float(
            (output * p.d_output).sum() + (h_n * p.d_state[0]).sum() + (c_n * p.d_state[1]).sum()
        )

    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    grads = tape.backward(p.d_output, p.d_state)
    rng = np.random.default_rng(1)
    arrays = {"x": p.x, "h_0": p.state[0], "c_0": p.state[1]}
    for name, gradient in gradient_arrays(grads).items():
        direction = rng.standard_normal(gradient.shape)
        step = 1e-6
        if name in arrays:
            arrays[name] += step * direction
            above = loss()
            arrays[name] -= 2 * step * direction
            below = loss()
            arrays[name] += step * direction
        else:
            value = p.layer.params[name]
            p.layer.update({name: value + step * direction})
            above = loss()
            p.layer.update({name: value - step * direction})
            below = loss()
            p.layer.update({name: value})
        slope = (above - below) / (2 * step)
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-6, abs=1e-7), name


# --- the tape -----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["plain", "blocks, ragged", "lengths, everything"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_backward_twice(case: str, dtype: str) -> None:
    p = make_problem(CASES[case], dtype)
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    first = tape.backward(p.d_output, p.d_state)
    kept = {name: array.copy() for name, array in gradient_arrays(first).items()}
    other = tape.backward(-2 * p.d_output)
    assert not any(
        np.shares_memory(a, b)
        for a in gradient_arrays(first).values()
        for b in gradient_arrays(other).values()
    )
    again = tape.backward(p.d_output, p.d_state)
    assert_same_gradients(again, first)
    for name, array in gradient_arrays(first).items():
        assert_same_bits(array, kept[name], name)


@pytest.mark.parametrize(
    "case",
    [
        Case(T=80, B=32, I=24, H=40, options={"bidirectional": True}),
        Case(T=40, B=1, I=24, H=150, options={"bidirectional": True}),
        Case(T=40, B=4, I=24, H=150, lengths=[40, 7, 0, 23], options={"num_layers": 2}),
        Case(T=40, B=33, I=8, H=50, options={"proj_size": 35}),
        Case(T=40, B=33, I=8, H=50, options={"layer_norm": True}),
    ],
    ids=["bidirectional", "one row", "few rows", "projection", "layer norm"],
)
def test_gradients_have_the_same_bits_for_any_number_of_threads(case: Case) -> None:
    p = make_problem(case, "float32")
    results = []
    for n in (1, 2, 3, 1):
        with fastlstm.num_threads(n):
            _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
            results.append(tape.backward(p.d_output, p.d_state))
    for other in results[1:]:
        assert_same_gradients(other, results[0])


@pytest.mark.parametrize("case", ["plain", "lengths, everything"])
def test_a_tape_keeps_the_parameters_of_its_call(case: str) -> None:
    p = make_problem(CASES[case], "float64")
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    before = tape.backward(p.d_output, p.d_state)
    p.layer.update({name: w * 3 for name, w in p.layer.params.items()})
    assert_same_gradients(tape.backward(p.d_output, p.d_state), before)
    layer = p.layer
    p.layer = None
    del layer
    assert_same_gradients(tape.backward(p.d_output, p.d_state), before)


@pytest.mark.parametrize("case", ["plain", "lengths, everything", "lengths all full"])
def test_a_tape_keeps_the_inputs_of_its_call(case: str) -> None:
    p = make_problem(CASES[case], "float64")
    output, (h_n, c_n), tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    before = tape.backward(p.d_output, p.d_state)
    for array in (p.x, *p.state, output, h_n, c_n):
        array[:] = 7
    if p.lengths is not None:
        p.lengths[:] = 1
    assert_same_gradients(tape.backward(p.d_output, p.d_state), before)


def test_two_tapes_of_one_layer_do_not_mix() -> None:
    p = make_problem(CASES["plain"], "float64")
    _, _, tape = p.layer.forward(p.x, p.state)
    alone = tape.backward(p.d_output)
    _, _, other = p.layer.forward(2 * p.x)
    other.backward(p.d_output)
    assert_same_gradients(tape.backward(p.d_output), alone)


def test_one_tape_in_many_threads() -> None:
    p = make_problem(Case(T=30, B=8, I=9, H=16, options={"num_layers": 2}), "float32")
    _, _, tape = p.layer.forward(p.x, p.state)
    expected = tape.backward(p.d_output, p.d_state)
    failures: list[str] = []

    def call() -> None:
        try:
            for _ in range(20):
                grads = tape.backward(p.d_output, p.d_state)
                assert_gradients_close(grads, expected, BACKWARD["float32"])
        except BaseException as error:
            failures.append(repr(error))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- accumulate ---------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["plain", "lengths, everything", "unbatched", "B=0"])
def test_accumulate_on_one_tape_adds_everything(case: str) -> None:
    p = make_problem(CASES[case], "float64")
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    first = tape.backward(p.d_output)
    second = tape.backward(None, p.d_state)
    third = tape.backward(2 * p.d_output, p.d_state)
    total = tape.backward(p.d_output)
    for d_output, d_state in ((None, p.d_state), (2 * p.d_output, p.d_state)):
        before = total
        kept_x = before.x.copy()
        total = tape.backward(d_output, d_state, accumulate=before)
        assert total.params is before.params
        assert all(total.params[name] is before.params[name] for name in total.params)
        assert_same_bits(before.x, kept_x, "x of the earlier result")
    for name, array in gradient_arrays(total).items():
        parts = [gradient_arrays(g)[name] for g in (first, second, third)]
        assert_close(array, sum(parts), BACKWARD["float64"], name)


def test_accumulate_over_two_calls_adds_the_parameters() -> None:
    """The gradients of x and the state belong to one call each; those of parameters are summed."""
    p = make_problem(CASES["two layers bidirectional"], "float64")
    x = np.random.default_rng(1).standard_normal((3, 5, p.layer.input_size))
    _, _, tape = p.layer.forward(p.x, p.state)
    _, _, other_tape = p.layer.forward(x)
    d_output = np.random.default_rng(2).standard_normal((3, 5, p.d_output.shape[-1]))
    first = tape.backward(p.d_output)
    second = other_tape.backward(d_output)
    kept = {name: array.copy() for name, array in first.params.items()}
    total = other_tape.backward(d_output, accumulate=first)
    assert_same_bits(total.x, second.x, "x")
    assert_same_bits(total.state[0], second.state[0], "h_0")
    for name, array in total.params.items():
        assert array is first.params[name]
        assert_close(array, kept[name] + second.params[name], BACKWARD["float64"], name)


def test_accumulate_tells_calls_of_one_shape_apart() -> None:
    p = make_problem(CASES["plain"], "float64")
    _, _, tape = p.layer.forward(p.x, p.state)
    _, _, other_tape = p.layer.forward(2 * p.x, p.state)
    alone = other_tape.backward(p.d_output, p.d_state)
    total = other_tape.backward(p.d_output, p.d_state, accumulate=tape.backward(p.d_output))
    assert_same_bits(total.x, alone.x, "x")
    assert_same_bits(total.state[0], alone.state[0], "h_0")
    assert_same_bits(total.state[1], alone.state[1], "c_0")


def test_accumulate_tells_calls_of_other_processes_apart() -> None:
    """Gradients can be pickled: a process that adds those of others has calls of its own."""
    code = """
import pickle, sys, fastlstm, numpy as np
layer = fastlstm.LSTM(3, 4, seed=0)
x = np.full((5, 2, 3), float(sys.argv[1]), np.float32)
tape = layer.forward(x)[2]
if len(sys.argv) == 2:
    sys.stdout.buffer.write(pickle.dumps(tape.backward(np.ones((5, 2, 4)))))
else:
    given = pickle.loads(bytes.fromhex(sys.argv[2]))
    total = tape.backward(np.ones((5, 2, 4)), accumulate=given)
    alone = tape.backward(np.ones((5, 2, 4)))
    assert np.array_equal(total.x, alone.x)
    again = tape.backward(np.ones((5, 2, 4)), accumulate=pickle.loads(pickle.dumps(total)))
    assert np.array_equal(again.x, 2 * alone.x)
"""
    run = (sys.executable, "-c", code)
    of_other = subprocess.run([*run, "1"], check=True, capture_output=True).stdout
    subprocess.run([*run, "2", of_other.hex()], check=True)


# --- dropout ------------------------------------------------------------------------------------


def recover_masks(
    layer: fastlstm.LSTM, T: int, B: int, seed: int, lengths: np.ndarray | None = None
) -> list[np.ndarray]:
    """The masks of a training call, found from outside: (T, B, D*P) for each layer but the last.

    Masks depend on the layer's shape and the seed, not on its parameters. So a layer of the same
    shape gets cells that forget everything and values that are all positive. A gradient at (t, b)
    alone then reaches a layer's weights only through its input at (t, b), and the gradient of
    weight_ih is zero exactly in the columns that were dropped.
    """
    rng = np.random.default_rng(0)
    H, D = layer.hidden_size, 2 if layer.bidirectional else 1
    width = D * (layer.proj_size or H)
    positive = fastlstm.LSTM(
        layer.input_size,
        H,
        layer.num_layers,
        dropout=layer.dropout,
        bidirectional=layer.bidirectional,
        proj_size=layer.proj_size,
        dtype="float64",
    )
    values = {}
    for name, w in positive.params.items():
        values[name] = rng.uniform(1, 2, w.shape) / w.shape[-1]
        if name.startswith("weight_hh"):
            values[name][:] = 0
        if name.startswith("bias"):
            values[name][H : 2 * H] = -500
    positive.update(values)
    x = rng.uniform(1, 2, (T, B, layer.input_size))
    _, _, tape = positive.forward(x, seed=seed, lengths=lengths)
    masks = [np.zeros((T, B, width)) for _ in range(layer.num_layers - 1)]
    for t in range(T):
        for b in range(B):
            d_output = np.zeros((T, B, width))
            d_output[t, b] = 1
            d_params = tape.backward(d_output).params
            for k, mask in enumerate(masks):
                mask[t, b] = d_params[f"weight_ih_l{k + 1}"].any(axis=0)
    return masks


DROPOUT_CASES = {
    "two layers": Case(T=4, B=3, H=6, options={"num_layers": 2, "dropout": 0.4}),
    "three layers": Case(T=3, B=2, H=7, options={"num_layers": 3, "dropout": 0.3}),
    "bidirectional": Case(
        T=3, B=3, H=5, options={"num_layers": 3, "dropout": 0.3, "bidirectional": True}
    ),
    "projection": Case(T=3, B=2, H=9, options={"num_layers": 2, "dropout": 0.5, "proj_size": 7}),
    "lengths": Case(T=4, B=4, H=6, lengths=(2, 4, 0, 3), options={"num_layers": 2, "dropout": 0.4}),
    "batch first": Case(
        T=4, B=3, H=6, options={"num_layers": 2, "dropout": 0.4, "batch_first": True}
    ),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", DROPOUT_CASES.values(), ids=DROPOUT_CASES.keys())
def test_dropout_is_the_references_with_the_same_masks(case: Case, dtype: str) -> None:
    p = make_problem(case, dtype)
    dropout = p.layer.dropout
    masks = [
        mask / (1 - dropout)
        for mask in recover_masks(p.layer, case.T, case.B, seed=11, lengths=p.lengths)
    ]
    assert all(0 < np.count_nonzero(mask) < mask.size for mask in masks)
    expected = solve(p, masks)
    output, (h_n, c_n), tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=11)
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_close(h_n, expected.state[0], FORWARD[dtype], "h_n")
    assert_close(c_n, expected.state[1], FORWARD[dtype], "c_n")
    assert_gradients_close(tape.backward(p.d_output, p.d_state), expected.grads, BACKWARD[dtype])


def test_masks_do_not_depend_on_lengths() -> None:
    """A row's mask follows its place in the caller's batch, not its place by length."""
    p = make_problem(DROPOUT_CASES["lengths"], "float32")
    whole, _, _ = p.layer.forward(p.x, p.state, seed=3)
    ragged, _, _ = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=3)
    for b, length in enumerate(p.lengths):
        assert_same_bits(ragged[:length, b], whole[:length, b], f"row {b}")


def test_masks_have_the_right_share_of_zeros_and_are_independent() -> None:
    """Along each axis, neighbouring masks agree as often as chance has it."""
    p, T, B = 0.3, 4, 4
    layer = make_layer(Case(H=64, options={"num_layers": 3, "dropout": p}), "float64")
    masks = np.array([recover_masks(layer, T, B, seed) for seed in (0, 1, 2**32, 2**63 + 1)])
    # (seeds, layers, T, B, H) = 4 * 2 * 4 * 4 * 64 = 8192 values
    kept = masks.mean()
    spread = np.sqrt(p * (1 - p) / masks.size)
    assert abs(kept - (1 - p)) < 4 * spread
    chance = p * p + (1 - p) * (1 - p)
    for axis in range(masks.ndim):
        agree = masks == np.roll(masks, 1, axis)
        spread = np.sqrt(chance * (1 - chance) / agree.size)
        assert abs(agree.mean() - chance) < 5 * spread, f"axis {axis}"


def test_one_seed_gives_one_result() -> None:
    p = make_problem(DROPOUT_CASES["three layers"], "float32")
    output, _, tape = p.layer.forward(p.x, seed=5)
    same, _, same_tape = p.layer.forward(p.x, seed=5)
    other, _, _ = p.layer.forward(p.x, seed=6)
    assert_same_bits(same, output)
    assert_same_gradients(same_tape.backward(p.d_output), tape.backward(p.d_output))
    assert not np.array_equal(other, output)


def test_the_layers_seed_decides_the_masks_of_its_calls() -> None:
    def outputs(seed: int | None) -> list[np.ndarray]:
        p = make_problem(DROPOUT_CASES["three layers"], "float32")
        layer = fastlstm.LSTM(p.layer.input_size, 7, num_layers=3, dropout=0.5, seed=seed)
        layer.update(p.layer.params)
        return [layer.forward(p.x)[0] for _ in range(3)]

    first, second = outputs(3), outputs(3)
    for a, b in zip(first, second, strict=True):
        assert_same_bits(a, b)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], outputs(4)[0])
    assert not np.array_equal(outputs(None)[0], outputs(None)[0])


@pytest.mark.parametrize("seed", [0, 2**64 - 1, np.int64(3), np.uint64(2**63)])
def test_kinds_of_seeds(seed: int) -> None:
    p = make_problem(DROPOUT_CASES["two layers"], "float32")
    assert_same_bits(p.layer.forward(p.x, seed=seed)[0], p.layer.forward(p.x, seed=int(seed))[0])


def test_both_halves_of_a_seed_count() -> None:
    p = make_problem(DROPOUT_CASES["two layers"], "float32")
    outputs = [p.layer.forward(p.x, seed=seed)[0] for seed in (1, 1 + 2**32, 1 + 2**63, 2)]
    for k, a in enumerate(outputs):
        assert not any(np.array_equal(a, b) for b in outputs[k + 1 :])


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_of_zero_is_none(dtype: str) -> None:
    p = make_problem(Case(options={"num_layers": 3, "dropout": 0.0}), dtype)
    output, _, _ = p.layer.forward(p.x, p.state, seed=1)
    same, _, _ = p.layer.forward(p.x, p.state, seed=2)
    assert_same_bits(output, same)
    assert_close(output, solve(p).output, FORWARD[dtype], "output")


@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_of_one_drops_everything(dtype: str) -> None:
    p = make_problem(Case(options={"num_layers": 3, "dropout": 1.0}), dtype)
    expected = solve(p, masks=[np.zeros(1), np.zeros(1)])
    output, state, tape = p.layer.forward(p.x, p.state)
    grads = tape.backward(p.d_output, p.d_state)
    assert_close(output, expected.output, FORWARD[dtype], "output")
    assert_close(state[1], expected.state[1], FORWARD[dtype], "c_n")
    assert not grads.params["weight_ih_l1"].any()
    assert_gradients_close(grads, expected.grads, BACKWARD[dtype])


# --- what gradients may be ----------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_forms_of_gradients(form: object) -> None:
    p = make_problem(CASES["plain"], "float32")
    _, _, tape = p.layer.forward(p.x, p.state)
    expected = tape.backward(p.d_output, p.d_state)
    assert_same_gradients(
        tape.backward(form(p.d_output), tuple(form(s) for s in p.d_state)), expected
    )


@pytest.mark.parametrize("case", ["lengths", "lengths, batch first", "lengths, everything"])
def test_gradients_past_the_end_are_not_read_and_those_of_the_input_are_zero(case: str) -> None:
    p = make_problem(CASES[case], "float64")
    _, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
    expected = tape.backward(p.d_output, p.d_state)
    padded = time_major(p.layer, p.d_output)  # a view of it
    for b, length in enumerate(p.lengths):
        padded[length:, b] = np.nan
    grads = tape.backward(p.d_output, p.d_state)
    assert_same_gradients(grads, expected)
    for b, length in enumerate(p.lengths):
        assert not time_major(p.layer, grads.x)[length:, b].any()


def test_special_values_in_gradients_flow() -> None:
    p = make_problem(CASES["plain"], "float32")
    _, _, tape = p.layer.forward(p.x, p.state)
    p.d_output[3, 1, 0] = np.nan
    grads = tape.backward(p.d_output)
    # Row 1, from step 3 back to the start; no other row, no later step.
    assert np.isnan(grads.x[:4, 1]).all()
    assert np.isfinite(grads.x[4:]).all()
    assert np.isfinite(grads.x[:, [0, 2]]).all()
    assert np.isnan(grads.state[0][0, 1]).all()
    assert np.isnan(grads.params["weight_hh_l0"]).any()
