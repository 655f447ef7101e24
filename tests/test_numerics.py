"""The kernels' exp, log, sigmoid and tanh on every ISA of this machine: errors, special values."""

from __future__ import annotations

import numpy as np
import pytest
from numerics_table import FUNCTIONS, ISAS, WIDE_IS_WIDER, kernel, measure, sample
from support import DTYPES, assert_same_bits
from tolerances import ULP

each = [
    pytest.mark.parametrize("dtype", DTYPES),
    pytest.mark.parametrize("isa", ISAS),
]


def for_each_isa_and_dtype(test):
    for mark in each:
        test = mark(test)
    return test


@pytest.mark.skipif(not WIDE_IS_WIDER, reason="longdouble is no wider than float64")
@pytest.mark.parametrize("name", FUNCTIONS)
@for_each_isa_and_dtype
def test_error(name: str, isa: str, dtype: str) -> None:
    m = measure(name, isa, dtype)
    print(f"\n{name} {isa} {dtype}: at most {m.most:.3f} ULP (at {m.at:.9g}), mean {m.mean:.3f}")
    assert m.most <= ULP[name].bound


# --- special values -----------------------------------------------------------------------------


@for_each_isa_and_dtype
def test_special_values(isa: str, dtype: str) -> None:
    inf, nan = np.inf, np.nan
    largest = float(np.finfo(dtype).max)
    x = np.array([nan, inf, -inf, 0.0, -0.0, largest, -largest], dtype)
    with np.errstate(all="ignore"):
        expected = {
            "exp": [nan, inf, 0, 1, 1, inf, 0],
            "log": [nan, inf, nan, -inf, -inf, np.log(largest), nan],
            "tanh": [nan, 1, -1, 0.0, -0.0, 1, -1],
        }
    for name, values in expected.items():
        y = kernel(name, isa, x)
        assert np.array_equal(y, np.array(values, dtype), equal_nan=True), name
        assert np.array_equal(np.signbit(y[1:]), np.signbit(np.array(values, dtype)[1:])), name
    y = kernel("sigmoid", isa, x)
    assert np.isnan(y[0])
    assert np.array_equal(y[[1, 3, 4, 5]], np.array([1, 0.5, 0.5, 1], dtype))
    # No more than the smallest normal numbers, which add nothing to any gate.
    assert (y[[2, 6]] >= 0).all()
    assert (y[[2, 6]] < 1e-37).all()


@for_each_isa_and_dtype
def test_nans_of_either_sign_and_any_payload(isa: str, dtype: str) -> None:
    kind = {"float32": np.uint32, "float64": np.uint64}[dtype]
    bits = np.array([np.nan, -np.nan], dtype).view(kind)
    x = np.concatenate([bits, bits + kind(1), bits + kind(12345)]).view(dtype)
    for name in FUNCTIONS:
        assert np.isnan(kernel(name, isa, x)).all()


@for_each_isa_and_dtype
def test_denormals(isa: str, dtype: str) -> None:
    finfo = np.finfo(dtype)
    x = finfo.smallest_subnormal * np.array([1, 2, 3, 1000, -1, -7], dtype)
    x = np.append(x, [finfo.tiny, -finfo.tiny]).astype(dtype)
    assert (kernel("exp", isa, x) == 1).all()
    assert (kernel("sigmoid", isa, x) == 0.5).all()
    # Exact, or zero where the caller treats denormals as zero.
    y = kernel("tanh", isa, x)
    assert np.array_equal(y, x)


@for_each_isa_and_dtype
def test_results_at_the_ends_of_exp(isa: str, dtype: str) -> None:
    least = {"float32": [-87.5, -100, -103.9, -104.5], "float64": [-709, -740, -745.1, -746]}
    x = np.array(least[dtype], dtype)
    y, expected = kernel("exp", isa, x), np.exp(x.astype(np.longdouble)).astype(dtype)
    assert np.abs(y - expected).max() <= 2 * np.finfo(dtype).smallest_subnormal
    assert y[-1] == 0
    most = {"float32": [88.72, 88.73, 200], "float64": [709.78, 709.79, 2000]}[dtype]
    y = kernel("exp", isa, np.array(most, dtype))
    assert np.isfinite(y[0])
    assert np.isposinf(y[1:]).all()


@for_each_isa_and_dtype
def test_bounds_and_symmetry(isa: str, dtype: str) -> None:
    x = sample(dtype, *({"float32": (-3e38, 3e38), "float64": (-1.7e308, 1.7e308)}[dtype]))
    tanh, sigmoid, exp = (kernel(name, isa, x) for name in ("tanh", "sigmoid", "exp"))
    assert (np.abs(tanh) <= 1).all()
    assert ((sigmoid >= 0) & (sigmoid <= 1)).all()
    assert (exp >= 0).all()
    assert_same_bits(kernel("tanh", isa, -x), -tanh)
    # It saturates neither early nor late: 1 only where 1 is the nearest number, or next to it.
    limit = {"float32": 9.02, "float64": 19.07}[dtype]
    assert (np.abs(tanh[np.abs(x) >= limit + 0.4]) == 1).all()
    assert (np.abs(tanh[np.abs(x) < limit - 0.4]) < 1).all()


@for_each_isa_and_dtype
def test_tails_are_monotone(isa: str, dtype: str) -> None:
    """Where the functions change slowly, they never go down by more than their error."""
    ends = {"float32": (88, 86), "float64": (709, 707)}[dtype]
    for name, least, most in (
        ("tanh", 4, 25),
        ("tanh", -25, -4),
        ("sigmoid", 4, 50),
        ("sigmoid", -ends[1], -4),
        ("exp", -ends[1], ends[0]),
    ):
        x = np.linspace(least, most, 200_001).astype(dtype)
        y = kernel(name, isa, x)
        falls = np.maximum(y[:-1] - y[1:], 0) / np.spacing(y[1:])
        assert falls.max() <= 2, (name, x[np.argmax(falls)], falls.max())
        assert y[-1] > y[0]


# --- vectors ------------------------------------------------------------------------------------


@for_each_isa_and_dtype
def test_every_lane_and_length_gives_the_same_bits(isa: str, dtype: str) -> None:
    x = np.random.default_rng(0).uniform(-9, 9, 70).astype(dtype)
    for name in FUNCTIONS:
        whole = kernel(name, isa, x)
        one_by_one = np.concatenate([kernel(name, isa, x[k : k + 1]) for k in range(len(x))])
        assert_same_bits(whole, one_by_one)
        for n in range(70):
            assert_same_bits(kernel(name, isa, x[:n].copy()), whole[:n])


def test_the_interface_of_the_kernels() -> None:
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"isa: expected one of .*'generic' on this CPU, got 'x'"):
        kernel("exp", "x", x)
    with pytest.raises(TypeError):
        kernel("exp", "generic", x.astype(np.int32))
    assert kernel("exp", "generic", x).dtype == np.float32
    assert kernel("exp", "generic", x.astype(np.float64)).dtype == np.float64
