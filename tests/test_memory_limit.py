"""Training within a limit of memory: the same bits, and no more memory than was predicted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import fastlstm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import (
    CASES,
    DTYPES,
    Case,
    assert_same_bits,
    gradient_arrays,
    make_problem,
    named_states,
)

# More rows than several blocks of time steps have (256 each; csrc/runtime/tuning.hpp).
LARGE: dict[str, Case] = {
    "one layer": Case(T=300, B=16, I=3, H=9),
    "one row": Case(T=4100, B=1, I=2, H=5),
    "batch first, no state": Case(T=170, B=30, H=8, state=False, options={"batch_first": True}),
    "no batch axis": Case(T=4100, batched=False, options={"reverse": True}),
    "reverse": Case(T=300, B=16, I=3, H=9, options={"reverse": True, "proj_size": 4}),
    "dropout": Case(T=200, B=24, I=4, H=6, options={"num_layers": 3, "dropout": 0.4}),
    "all at once": Case(
        T=150,
        B=50,
        I=4,
        H=6,
        lengths=tuple((37 * b) % 151 for b in range(50)),
        options={
            "num_layers": 3,
            "bidirectional": True,
            "proj_size": 3,
            "dropout": 0.4,
            "batch_first": True,
        },
    ),
}


CELLS: dict[str, dict[str, Any]] = {
    "LSTM": {},
    "GRU": {},
    "GRU before": {"reset_after": False, "activations": ("Sigmoid", "Softsign"), "clip": 0.9},
    "RNN": {},
}
REGULARISED = {"recurrent_dropout": 0.3, "zoneout": 0.2, "weight_dropout": 0.4}


def least(layer: Any, case: Case) -> int:
    """The least possible limit, as the error tells it."""
    with pytest.raises(ValueError, match="expected at least") as error:
        layer.training_memory(case.T, case.B, lengths=case.lengths, memory_limit=1)
    return int(str(error.value).partition("at least ")[2].split()[0])


def train(p: Any, memory_limit: int | None) -> dict[str, np.ndarray]:
    """All results and gradients of a training call."""
    output, state, tape = p.layer.forward(
        p.x, p.state, lengths=p.lengths, seed=5, memory_limit=memory_limit
    )
    grads = tape.backward(p.d_output, p.d_state)
    return {"output": output, **named_states(state), **gradient_arrays(grads)}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", LARGE)
def test_a_limit_changes_no_bit(name: str, dtype: str) -> None:
    case = LARGE[name]
    p = make_problem(case, dtype)
    want = train(p, None)
    whole = p.layer.training_memory(case.T, case.B, lengths=case.lengths)
    bottom = least(p.layer, case)
    assert whole.extra_time == 0
    assert bottom < 0.8 * whole.bytes
    seen = []
    for part in (0, 0.3, 0.7, 1):
        limit = int(bottom + part * (whole.bytes - bottom))
        memory = p.layer.training_memory(case.T, case.B, lengths=case.lengths, memory_limit=limit)
        assert memory.bytes <= limit
        seen.append(memory.extra_time)
        got = train(p, limit)
        for key, value in want.items():
            assert_same_bits(got[key], value, f"{key} within {limit} bytes")
    # From everything twice to nothing.
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == pytest.approx(1 / 3)
    assert seen[-1] == 0


@pytest.mark.parametrize("name", sorted(CASES))
def test_a_small_call_is_as_good_within_any_limit(name: str) -> None:
    """Calls of less than a block: there is little to save, and the least may be everything."""
    case = CASES[name]
    p = make_problem(case, "float64")
    want = train(p, None)
    limit = p.layer.training_memory(case.T, case.B, lengths=case.lengths).bytes
    got = train(p, max(1, limit))
    for key, value in want.items():
        assert_same_bits(got[key], value, key)


@pytest.mark.parametrize(
    "options", [{"layer_norm": True}, {"proj_size": 25}, {"layer_norm": True, "proj_size": 25}]
)
def test_sequences_that_have_ended_change_no_bit_of_the_others(options: dict[str, Any]) -> None:
    """A segment without them has fewer rows, but not other groups of rows."""
    case = Case(T=40, B=33, I=8, H=33, lengths=(0, *[40] * 30, 3, 0), options=options)
    p = make_problem(case, "float32")
    want = train(p, None)
    got = train(p, least(p.layer, case))
    for key, value in want.items():
        assert_same_bits(got[key], value, key)


@given(
    T=st.integers(1, 60),
    lengths=st.lists(st.integers(0, 60), min_size=20, max_size=90),
    part=st.floats(0, 1),
    layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    cell=st.sampled_from(sorted(CELLS)),
    regularised=st.booleans(),
)
def test_any_lengths_and_limits(
    T: int,
    lengths: list[int],
    part: float,
    layers: int,
    bidirectional: bool,
    cell: str,
    regularised: bool,
) -> None:
    case = Case(
        T=T,
        B=len(lengths),
        I=2,
        H=3,
        lengths=tuple(min(n, T) for n in lengths),
        options={
            "num_layers": layers,
            "bidirectional": bidirectional,
            **(REGULARISED if regularised else {}),
            **CELLS[cell],
        },
        cell=cell.split()[0],
    )
    p = make_problem(case, "float32")
    whole = p.layer.training_memory(case.T, case.B, lengths=case.lengths).bytes
    try:
        p.layer.training_memory(case.T, case.B, lengths=case.lengths, memory_limit=1)
    except ValueError as error:
        bottom = int(str(error).partition("at least ")[2].split()[0])
    else:
        raise AssertionError("one byte is not enough")
    limit = int(bottom + part * (whole - bottom))
    want, got = train(p, None), train(p, limit)
    for key, value in want.items():
        assert_same_bits(got[key], value, key)


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: fastlstm.GRU(3, 6, **o),
        lambda **o: fastlstm.RNN(3, 6, **o),
        lambda **o: fastlstm.GRU(3, 6, **REGULARISED, **o),
        lambda **o: fastlstm.GRU(3, 6, reset_after=False, clip=0.5, **REGULARISED, **o),
        lambda **o: fastlstm.RNN(3, 6, nonlinearity="relu", **REGULARISED, **o),
        lambda **o: fastlstm.LSTM(
            3, 6, peepholes=True, activations=("Sigmoid", "Elu", "Tanh"), **o
        ),
        lambda **o: fastlstm.LSTM(3, 6, recurrent_dropout=0.3, zoneout=(0.2, 0.1), **o),
        lambda **o: fastlstm.LSTM(3, 6, weight_dropout=0.4, merge="mul", **o),
    ],
    ids=[
        "GRU",
        "RNN",
        "GRU, regularised",
        "GRU before, regularised",
        "RNN, regularised",
        "peepholes",
        "zoneout",
        "weight dropout",
    ],
)
def test_cells_and_options_have_the_same_bits_too(make: Any) -> None:
    layer = make(num_layers=2, bidirectional=True, dropout=0.2, seed=0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((150, 40, 3)).astype(np.float32)
    lengths = (31 * np.arange(40)) % 151
    case = Case(T=150, B=40, lengths=tuple(lengths.tolist()))
    results = []
    for limit in (None, least(layer, case)):
        output, state, tape = layer.forward(x, lengths=lengths, seed=3, memory_limit=limit)
        grads = tape.backward(np.ones_like(output))
        states = [*np.atleast_1d(np.stack(state)), *np.stack(grads.state)]
        results.append([output, *states, grads.x, *grads.params.values()])
    for want, got in zip(*results, strict=True):
        assert_same_bits(got, want)


def test_back_propagation_may_be_repeated_and_accumulated() -> None:
    case = LARGE["all at once"]
    p = make_problem(case, "float32")
    limit = least(p.layer, case)
    tapes = [
        p.layer.forward(p.x, p.state, lengths=p.lengths, seed=5, memory_limit=m)[2]
        for m in (None, limit)
    ]
    # A tape keeps the parameters of its call.
    p.layer.update({name: 0 * value for name, value in p.layer.params.items()})
    results = []
    for tape in tapes:
        grads = tape.backward(p.d_output)
        results.append(gradient_arrays(tape.backward(None, p.d_state, accumulate=grads)))
    for key, value in results[0].items():
        assert_same_bits(results[1][key], value, key)


def test_threads_change_no_bit() -> None:
    case = LARGE["all at once"]
    p = make_problem(case, "float32")
    with fastlstm.num_threads(3):
        limit = least(p.layer, case)  # each thread takes some
        got = train(p, limit)
    with fastlstm.num_threads(1):
        want = train(p, limit)
    for key, value in want.items():
        assert_same_bits(got[key], value, key)


def test_more_memory_is_less_time_and_an_impossible_limit_tells_the_least() -> None:
    layer = fastlstm.LSTM(8, 32)
    bottom = least(layer, Case(T=10_000, B=4))
    limits = np.linspace(bottom, 2 * bottom, 20).astype(int).tolist()
    times = [layer.training_memory(10_000, 4, memory_limit=n).extra_time for n in limits]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) > 5
    x = np.zeros((10_000, 4, 8), np.float32)
    message = f"memory_limit: expected at least {bottom} bytes for this call, got {bottom - 1}"
    with pytest.raises(ValueError, match=message):
        layer.forward(x, memory_limit=bottom - 1)
    layer.forward(x, memory_limit=bottom)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"memory_limit": 0}, ValueError, "memory_limit: expected an integer from 1"),
        ({"memory_limit": 1e9}, TypeError, "memory_limit: expected an integer, got float"),
        ({"T": -1}, ValueError, "T: expected an integer from 0"),
        ({"B": -1}, ValueError, "B: expected an integer from 0"),
        ({"lengths": [1]}, ValueError, r"lengths: expected \(3,\)"),
    ],
)
def test_wrong_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    layer = fastlstm.LSTM(2, 3)
    with pytest.raises(error, match=message):
        layer.training_memory(**{"T": 5, "B": 3, **change})
    if "memory_limit" in change:
        with pytest.raises(error, match=message):
            layer.forward(np.zeros((5, 3, 2)), **change)


# In a process that may take 100 MB more than it has.
PREDICT = """
import resource, sys
import fastlstm

with open("/proc/self/status") as file:
    now = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize"))
resource.setrlimit(resource.RLIMIT_AS, (now + 100 * 2**20,) * 2)
T, B = map(int, sys.argv[1:])
for options in ({}, {"bidirectional": True, "num_layers": 2, "dropout": 0.5}):
    layer = fastlstm.LSTM(2, 3, **options)
    whole = layer.training_memory(T, B).bytes
    try:
        layer.training_memory(T, B, memory_limit=1)
    except ValueError as error:
        least = int(str(error).partition("at least ")[2].split()[0])
    limited = layer.training_memory(T, B, memory_limit=(least + whole) // 2)
    assert limited.bytes <= (least + whole) // 2
    print(whole, least)
"""


@pytest.mark.parametrize(("T", "B"), [(1, 2**28 - 1), (2**28 - 1, 1), (2**16, 2**16)])
def test_predictions_take_no_memory(T: int, B: int) -> None:
    """Whatever the sizes: a small call's prediction, and a large one's, which is in proportion."""
    run = subprocess.run(
        [sys.executable, "-c", PREDICT, str(T), str(B)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stderr
    for line in run.stdout.splitlines():
        whole, least = map(int, line.split())
        assert 4 * (2 + 6 * 3) * T * B < whole < 4 * 1000 * T * B
        assert least <= whole


# Memory of a process before a training call, and at most until its end; less the caller's arrays.
MEASURE = """
import ctypes, json, sys
import numpy as np
import fastlstm

T, B, I, H, part = map(float, sys.argv[2:7])
T, B = int(T), int(B)
cell, options = sys.argv[1], json.loads(sys.argv[7])
uneven = options.pop("uneven", False)
if "GRU" in cell:
    options["reset_after"] = cell == "GRU"
layer = getattr(fastlstm, cell[:4].strip())(int(I), int(H), seed=0, **options)
def of_steps(n, width):
    return np.ones((B, n, width) if layer.batch_first else (n, B, width), np.float32)

small = of_steps(2, int(I))
output, _, tape = layer.forward(small)
tape.backward(output)  # what is needed once: weights packed, BLAS loaded
output_size = output.shape[-1]
del tape, output
x, d_output = of_steps(T, int(I)), of_steps(T, output_size)
# Few are long.
lengths = np.maximum(1, T >> np.arange(B) % 8) if uneven else None

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

whole = layer.training_memory(T, B, lengths=lengths).bytes
try:
    layer.training_memory(T, B, lengths=lengths, memory_limit=1)
except ValueError as error:
    least = int(str(error).partition("at least ")[2].split()[0])
limit = None if part > 1 else int(least + part * (whole - least))
predicted = layer.training_memory(T, B, lengths=lengths, memory_limit=limit)
ctypes.CDLL(None).malloc_trim(0)  # what is free already would not be seen to be taken
before = status("VmRSS")

def most_since_last_time():
    most = status("VmHWM")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the most so far counts no more
    return most - before

most_since_last_time()
output, _, tape = layer.forward(x, lengths=lengths, memory_limit=limit)
forward = most_since_last_time() - output.nbytes
grads = tape.backward(d_output)
given = sum(array.nbytes for array in (output, grads.x, *grads.params.values()))
print(predicted.bytes, max(forward, most_since_last_time() - given))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("part", [0, 0.5, 2], ids=["least", "half", "no limit"])
@pytest.mark.parametrize(
    ("cell", "T", "B", "I", "H", "options"),
    [
        ("LSTM", 6_000, 16, 32, 64, {}),
        ("LSTM", 3_000, 16, 16, 64, {"num_layers": 2}),
        ("LSTM", 50_000, 8, 16, 32, {}),  # many segments: gaps between them show
        ("GRU", 6_000, 16, 32, 64, {}),
        ("GRU before", 6_000, 16, 32, 64, {}),
        ("LSTM", 6_000, 16, 32, 64, {"batch_first": True}),  # copies what others have in place
        ("LSTM", 12_000, 16, 32, 64, {"uneven": True}),
        ("LSTM", 3_000, 16, 32, 64, {"bidirectional": True, "num_layers": 3, "dropout": 0.2}),
        ("LSTM", 4_000, 16, 32, 64, {"bidirectional": True, "merge": "sum"}),
        ("GRU", 6_000, 16, 32, 64, {"bidirectional": True, "merge": "mul", "uneven": True}),
        ("LSTM", 500, 8, 512, 512, {"weight_dropout": 0.3}),
        ("LSTM", 4_000, 16, 32, 64, {"layer_norm": True, "uneven": True}),
        pytest.param("LSTM", 100_000, 8, 32, 64, {}, marks=pytest.mark.soak),
    ],
)
def test_peak_memory_is_as_predicted(
    cell: str, T: int, B: int, I: int, H: int, options: dict[str, Any], part: float
) -> None:
    arguments = [cell, *map(str, (T, B, I, H, part)), json.dumps(options)]
    # Resident memory is measured, of which the system may take some away at any moment; a wrong
    # prediction is wrong each time. Large arrays are given back as they are released: in glibc's
    # heap, the holes between them were up to a sixth of all, as they happened to lie.
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", MEASURE, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
        )
        predicted, measured = map(int, done.stdout.split())
        if measured == pytest.approx(predicted, rel=0.1):
            break
    assert measured == pytest.approx(predicted, rel=0.1)


def test_lengths_that_would_be_listed_for_ever() -> None:
    layer = fastlstm.LSTM(3, 4)
    with pytest.raises(ValueError, match="lengths: expected at most 33554432, got 268435455"):
        layer.training_memory(2**28 - 1, 2, lengths=[2**28 - 1, 1])
