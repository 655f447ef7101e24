"""The reference's rules of few bits: rounding, scales, and layers whose matrices read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastlstm import reference
from fastlstm.reference import CELLS
from fastlstm.reference.low_precision import (
    quantized_forward,
    quantized_params,
    read_bfloat16,
    read_int8,
    to_bfloat16,
    to_int8,
)

TINY = float(np.finfo(np.float32).tiny)


# --- bfloat16 -----------------------------------------------------------------------------------


def test_bfloat16_is_the_nearest_of_all() -> None:
    """Against a list of all bfloat16 numbers, on what lies between two neighbours."""
    positive = (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32)
    low, high = positive[:-1].astype(np.float64), positive[1:].astype(np.float64)
    for part in (0.0, 0.25, 0.4999, 0.5001, 0.75):
        between = (low + part * (high - low)).astype(np.float32)
        expected = low if part < 0.5 else high
        assert np.array_equal(to_bfloat16(between), expected)
        assert np.array_equal(to_bfloat16(-between), -expected)
    halfway = (low + 0.5 * (high - low)).astype(np.float32)
    even = np.where(np.arange(len(low)) % 2 == 0, low, high)
    assert np.array_equal(to_bfloat16(halfway), even)


def test_bfloat16_is_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 2**32, 100_000, dtype=np.uint32)
    values = bits.view(np.float32)
    theirs = torch.from_numpy(values.copy()).bfloat16().double().numpy()
    assert np.array_equal(to_bfloat16(values), theirs, equal_nan=True)


def test_bfloat16_of_special_values() -> None:
    largest = (2 - 2.0**-7) * 2.0**127
    values = [np.inf, -np.inf, np.nan, -0.0, largest, largest * (1 + 2.0**-9), 3.4e38]
    rounded = to_bfloat16(values)
    expected = [np.inf, -np.inf, np.nan, 0.0, largest, largest, np.inf]
    assert np.array_equal(rounded, expected, equal_nan=True)
    assert np.signbit(rounded[3])
    all_nans = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(to_bfloat16(all_nans)).all()
    # Weights keep denormal numbers, what matrices read does not.
    assert to_bfloat16([TINY / 2])[0] == TINY / 2
    assert np.array_equal(read_bfloat16(np.array([[TINY, TINY / 2, -TINY / 4]])), [[TINY, 0, 0]])


# --- int8 ---------------------------------------------------------------------------------------


def test_int8_is_the_nearest_of_a_rows_own_scale() -> None:
    rng = np.random.default_rng(0)
    weights = (rng.standard_normal((40, 33)) * 10.0 ** rng.integers(-20, 20, (40, 1))).astype(
        np.float32
    )
    values, scales = to_int8(weights)
    assert values.dtype == np.int8
    assert scales.dtype == np.float32
    assert np.array_equal(np.abs(values).max(axis=1), np.full(40, 127))
    errors = np.abs(weights - values * scales[:, None].astype(np.float64))
    assert (errors <= scales[:, None] * 0.50001).all()


def test_an_outlier_is_its_rows_own() -> None:
    weights = np.random.default_rng(0).uniform(-1, 1, (8, 16)).astype(np.float32)
    values, scales = to_int8(weights)
    weights[3, 5] = 1000.0
    with_it, its_scales = to_int8(weights)
    others = np.arange(8) != 3
    assert np.array_equal(with_it[others], values[others])
    assert np.array_equal(its_scales[others], scales[others])
    assert its_scales[3] == np.float32(1000) / np.float32(127)
    assert not np.delete(with_it[3], 5).any()  # the rest is less than half a step


def test_int8_of_rows_that_are_nearly_zero() -> None:
    weights = np.array([[0, 0], [TINY, -TINY], [127 * TINY, TINY], [1, 0]], np.float32)
    values, scales = to_int8(weights)
    assert np.array_equal(scales, np.array([0, 0, TINY, 1 / 127], np.float32))
    assert np.array_equal(values, [[0, 0], [0, 0], [127, 1], [127, 0]])
    assert to_int8(np.zeros((3, 0)))[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_int8_of_values_without_a_scale(value: float) -> None:
    with pytest.raises(ValueError, match="expected finite values"):
        to_int8([[1.0, value]])


def test_what_matrices_read_in_int8() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 20)) * 10.0 ** rng.integers(-25, 30, (30, 1))
    read = read_int8(rows)
    steps = np.abs(rows).max(axis=1, keepdims=True) / 127
    assert (np.abs(read - rows) <= 0.50001 * steps).all()
    assert len(np.unique(np.rint(read / steps))) <= 255
    for k in range(len(rows)):  # each row by itself
        assert np.array_equal(read_int8(rows[k : k + 1]), read[k : k + 1])


def test_what_matrices_read_of_special_values() -> None:
    rows = np.array(
        [[1.0, 2.0], [np.nan, 1.0], [np.inf, 1.0], [0.0, 0.0], [2.0**-101, 0.0], [2.0**-100, 0.0]]
    )
    read = read_int8(rows)
    assert np.isfinite(read[0]).all()
    assert np.isnan(read[1:3]).all()
    assert np.array_equal(read[3:5], np.zeros((2, 2)))
    assert read[5] == pytest.approx([2.0**-100, 0.0], rel=1e-6)


# --- layers -------------------------------------------------------------------------------------


def make_problem(cell: str) -> tuple[dict[str, Any], Any, tuple[Any, ...]]:
    rng = np.random.default_rng(0)
    gates, I, H = {"LSTM": 4, "GRU": 3, "RNN": 1}[cell], 3, 5
    params = {}
    for suffix, width in (("_l0", I), ("_l0_reverse", I), ("_l1", 2 * H), ("_l1_reverse", 2 * H)):
        params[f"weight_ih{suffix}"] = rng.uniform(-1, 1, (gates * H, width)).astype(np.float32)
        params[f"weight_hh{suffix}"] = rng.uniform(-1, 1, (gates * H, H)).astype(np.float32)
        params[f"bias_ih{suffix}"] = rng.uniform(-1, 1, gates * H).astype(np.float32)
        params[f"bias_hh{suffix}"] = rng.uniform(-1, 1, gates * H).astype(np.float32)
    x = rng.standard_normal((7, 4, I)).astype(np.float32)
    state = tuple(rng.uniform(-1, 1, (4, 4, H)) for _ in CELLS[cell].state)
    return params, x, state


@pytest.mark.parametrize("cell", CELLS)
def test_exact_activations_are_the_reference_of_small_weights(cell: str) -> None:
    params, x, state = make_problem(cell)
    for weights in ("bfloat16", "int8"):
        small = quantized_params(params, weights)
        assert all(np.array_equal(small[n], v) for n, v in params.items() if n.startswith("bias"))
        assert not any(np.array_equal(small[n], v) for n, v in params.items() if "weight" in n)
        output, final, _ = quantized_forward(CELLS[cell], small, x, state, lengths=[7, 2, 0, 5])
        forward = getattr(reference, f"{cell.lower()}_forward")
        given = state if cell == "LSTM" else state[0]
        exact, exact_final, _ = forward(small, x, given, lengths=[7, 2, 0, 5])
        assert np.array_equal(output, exact)
        assert np.array_equal(final[0], exact_final[0] if cell == "LSTM" else exact_final)


@pytest.mark.parametrize("activations", ["bfloat16", "int8"])
@pytest.mark.parametrize("cell", CELLS)
def test_small_activations_are_near_and_of_each_row_alone(cell: str, activations: str) -> None:
    params, x, state = make_problem(cell)
    small = quantized_params(params, activations)

    def run(rows: slice, activations: str = activations) -> Any:
        parts = tuple(s[:, rows] for s in state)
        return quantized_forward(CELLS[cell], small, x[:, rows], parts, activations=activations)[0]

    output, exact = run(slice(None)), run(slice(None), "float32")
    error = np.abs(output - exact).max()
    assert 1e-4 < error < 0.05
    for k in range(4):
        assert np.allclose(run(slice(k, k + 1)), output[:, k : k + 1], rtol=0, atol=1e-13)


@pytest.mark.parametrize("reset_after", [True, False])
def test_what_each_matrix_of_a_gru_reads(reset_after: bool) -> None:
    """One step, written out: r h is rounded where R_n reads it, and the h that z keeps is not."""
    params, x, state = make_problem("GRU")
    W, R = (np.split(params[f"weight_{end}_l0"].astype(float), 3) for end in ("ih", "hh"))
    b_W, b_R = (np.split(params[f"bias_{end}_l0"].astype(float), 3) for end in ("ih", "hh"))
    h, p, q = state[0][0], read_int8(x[0].astype(float)), read_int8(state[0][0])
    r, z = (reference.sigmoid(p @ W[k].T + b_W[k] + q @ R[k].T + b_R[k]) for k in (0, 1))
    m = r * (q @ R[2].T + b_R[2]) if reset_after else read_int8(r * h) @ R[2].T + b_R[2]
    n = np.tanh(p @ W[2].T + b_W[2] + m)
    one = {name: value for name, value in params.items() if name.endswith("_l0")}
    output, _, _ = quantized_forward(
        CELLS["GRU"], one, x[:1], (state[0][:1],), activations="int8", reset_after=reset_after
    )
    assert np.allclose(output[0], (1 - z) * n + z * h, rtol=0, atol=1e-14)


def test_what_a_projection_reads() -> None:
    rng = np.random.default_rng(0)
    params = {"weight_ih_l0": rng.normal(size=(20, 3)), "weight_hh_l0": rng.normal(size=(20, 2))}
    params["weight_hr_l0"] = rng.normal(size=(2, 5))
    x = rng.normal(size=(1, 4, 3))
    output, _, tape = quantized_forward(CELLS["LSTM"], params, x, activations="bfloat16")
    trace = tape.traces[0][0]
    expected = to_bfloat16(trace.o[0] * np.tanh(trace.c[0])) @ params["weight_hr_l0"].T
    assert np.allclose(output[0], expected, rtol=0, atol=1e-15)
    assert not np.allclose(output[0], to_bfloat16(output[0]), rtol=0, atol=1e-6)


def test_a_row_of_nan_is_alone() -> None:
    params, x, state = make_problem("LSTM")
    x[3, 1, 0] = np.nan
    small = quantized_params(params, "int8")
    output, _, _ = quantized_forward(CELLS["LSTM"], small, x, state, activations="int8")
    assert np.isnan(output[:, 1]).all()  # both directions reach all steps
    assert np.isfinite(np.delete(output, 1, axis=1)).all()


def test_errors() -> None:
    with pytest.raises(ValueError, match="weights: expected bfloat16 or int8, got 'int4'"):
        quantized_params({}, "int4")
    params, x, _ = make_problem("RNN")
    with pytest.raises(ValueError, match="activations: expected float32, bfloat16, int8, got 'f'"):
        quantized_forward(CELLS["RNN"], params, x, activations="f")
