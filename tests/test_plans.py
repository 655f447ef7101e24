"""How calls are divided among threads: what a layer says of it, and that no bit depends on it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import _core, _costs, _tune
from fastlstm._runtime import divided
from fastlstm._tune import corrected, experiments
from fastlstm.cli import main
from hypothesis import given, settings
from hypothesis import strategies as st
from support import (
    Case,
    assert_same_bits,
    assert_same_states,
    gradient_arrays,
    make_problem,
)

# --- bits ---------------------------------------------------------------------------------------


@st.composite
def divisions(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Of 1 to 64 threads. Those that meet are few more than CPUs, or they would take minutes."""
    directions, layers = draw(st.sampled_from([(1, 1), (2, 1), (1, 2), (1, 4)]))
    units = draw(st.sampled_from([1, 2, 3, 4]))
    most = 64 if units * layers == 1 else max(1, 4 // (units * directions * layers))
    rows = draw(st.integers(1, max(1, most // directions)))
    return rows, directions, layers, units


CELLS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "LSTM, projection": ("LSTM", {"proj_size": 13}),
    "LSTM, layer_norm": ("LSTM", {"layer_norm": True}),
    "GRU": ("GRU", {}),
    "GRU, reset before": ("GRU", {"reset_after": False}),
    "RNN": ("RNN", {}),
}


@pytest.mark.parametrize("cell", CELLS)
@settings(max_examples=8)
@given(
    division=divisions(),
    T=st.integers(1, 12),
    B=st.sampled_from([1, 2, 5, 8, 33, 70]),
    H=st.sampled_from([16, 33, 64, 96]),
    layers=st.sampled_from([1, 2, 4]),
    bidirectional=st.booleans(),
    uneven=st.booleans(),
)
def test_no_bit_depends_on_the_division(
    cell: str,
    division: tuple[int, int, int, int],
    T: int,
    B: int,
    H: int,
    layers: int,
    bidirectional: bool,
    uneven: bool,
) -> None:
    name, options = CELLS[cell]
    lengths = tuple(int(n) for n in np.random.default_rng(B).integers(0, T + 1, B))
    case = Case(
        T=T,
        B=B,
        I=24,
        H=H,
        options={**options, "num_layers": layers, "bidirectional": bidirectional},
        cell=name,
        lengths=lengths if uneven else None,
    )
    p = make_problem(case, "float32")
    results = []
    for plan in ((1, 1, 1, 1), division):
        with divided(*plan):
            output, final = p.layer(p.x, p.state, lengths=p.lengths)
            *_, tape = p.layer.forward(p.x, p.state, lengths=p.lengths, seed=1)
            results.append((output, final, gradient_arrays(tape.backward(p.d_output, p.d_state))))
    (output, final, grads), (other, other_final, other_grads) = results
    assert_same_bits(other, output, "output")
    assert_same_states(other_final, final)
    for key, array in grads.items():
        assert_same_bits(other_grads[key], array, key)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(
    ("weights", "activations"),
    [("bfloat16", "float32"), ("int8", "float32"), ("bfloat16", "bfloat16"), ("int8", "int8")],
)
def test_no_bit_of_a_quantized_layer_depends_on_the_division(
    cell: str, weights: str, activations: str
) -> None:
    name, options = CELLS[cell]
    layer = getattr(fastlstm, name)(24, 67, num_layers=2, seed=0, **options)
    layer = layer.quantize(weights, activations)
    for B in (1, 9):
        x = np.random.default_rng(B).normal(size=(11, B, 24)).astype(np.float32)
        with divided(1, 1, 1, 1):
            output, final = layer(x)
        for division in ((1, 1, 1, 2), (3, 1, 1, 1), (2, 1, 1, 2), (1, 1, 2, 1), (1, 1, 1, 3)):
            with divided(*division):
                other, other_final = layer(x)
                stream = layer.stream(B)
                steps = np.stack([stream.step(step) for step in x])
            assert_same_bits(other, output, f"output, {division}")
            assert_same_states(other_final, final)
            assert_same_bits(steps, output, f"steps, {division}")


@pytest.mark.parametrize("division", [(64, 1, 1, 1), (1, 1, 1, 64), (8, 1, 1, 8)])
def test_sixty_four_threads(division: tuple[int, int, int, int]) -> None:
    """Slow on few CPUs, but right."""
    layer = fastlstm.LSTM(16, 1024, seed=0) if division[3] > 8 else fastlstm.LSTM(16, 128, seed=0)
    x = np.random.default_rng(0).normal(size=(2, 70, 16)).astype(np.float32)
    with divided(1, 1, 1, 1):
        expected = layer(x)[0]
    with divided(*division):
        assert_same_bits(layer(x)[0], expected)


# --- what a layer says of it ----------------------------------------------------------------------


@pytest.fixture
def sixteen_cpus() -> Iterator[None]:
    before = _core.plan_for_cpus(16)
    yield
    _core.plan_for_cpus(before)


def test_a_plan_says_how_a_call_is_divided(sixteen_cpus: None) -> None:
    layer = fastlstm.LSTM(512, 512, seed=0)
    for threads in (1, 2, 5, 16):
        plan = layer.plan(50, 64, threads=threads)
        assert isinstance(plan, fastlstm.Plan)
        assert plan.threads == plan.rows * plan.directions * plan.layers * plan.units
        assert 1 <= plan.threads <= threads
        assert plan.seconds == pytest.approx(sum(plan.parts.values()))
        assert plan.bound == max(plan.parts, key=lambda name: plan.parts[name])
        assert plan.backward == ()
    assert plan.threads > 8
    assert plan.seconds < layer.plan(50, 64, threads=1).seconds / 4


def test_a_plan_of_training_has_the_backward_pass_of_each_cell(sixteen_cpus: None) -> None:
    layer = fastlstm.GRU(64, 128, num_layers=2, bidirectional=True, seed=0)
    plan = layer.plan(50, 32, threads=4, training=True)
    assert len(plan.backward) == 4
    for backward in plan.backward:
        assert 1 <= backward.threads <= 4
        assert backward.rows * backward.units <= backward.threads
        assert backward.seconds > 0


def test_a_plan_as_people_read_it(sixteen_cpus: None) -> None:
    layer = fastlstm.LSTM(512, 512, seed=0)
    with divided(4, 1, 1, 4):
        plan = layer.plan(50, 64)
    text = repr(plan)
    assert text.startswith("16 threads (4 groups of rows x 4 that share units): ")
    assert " ms, products " in text
    assert repr(layer.plan(50, 64, threads=1)).startswith("1 thread: ")
    two = layer.plan(50, 64, threads=1, training=True)
    assert "\n  backward 0: 1 thread: " in repr(two)


def test_small_weights_count() -> None:
    layer = fastlstm.LSTM(512, 512, seed=0)
    small = layer.quantize("int8", "int8")
    assert small.plan(50, 1, threads=1).seconds < layer.plan(50, 1, threads=1).seconds
    with pytest.raises(TypeError, match="plan"):
        small.plan(50, 1, training=True)


def test_lengths_count(sixteen_cpus: None) -> None:
    layer = fastlstm.LSTM(64, 256, seed=0)
    whole = layer.plan(100, 8, threads=1).seconds
    assert layer.plan(100, 8, [10] * 8, 1).seconds < whole / 5
    assert layer.plan(100, 8, [100] * 8, 1).seconds == pytest.approx(whole)
    for nothing in (layer.plan(0), layer.plan(5, 0), layer.plan(5, 2, [0, 0])):
        assert nothing.threads == 1
        assert nothing.seconds == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"T": -1}, ValueError, "T: expected"),
        ({"T": 3, "B": 2.5}, TypeError, "B: expected"),
        ({"T": 3, "B": 2, "lengths": [1]}, ValueError, "lengths: expected"),
        ({"T": 3, "threads": 0}, ValueError, "threads: expected"),
        ({"T": 3, "training": 1}, TypeError, "training: expected"),
    ],
)
def test_errors_of_plans(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        fastlstm.LSTM(3, 4, seed=0).plan(**arguments)


def test_the_threads_of_the_context_count(sixteen_cpus: None) -> None:
    layer = fastlstm.LSTM(512, 512, seed=0)
    with fastlstm.num_threads(3):
        assert 1 < layer.plan(50, 64).threads <= 3
        assert layer.plan(50, 64, threads=2).threads == 2
        assert fastlstm.get_num_threads() == 3


# --- other processes --------------------------------------------------------------------------


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: "")(0)) < 2, reason="one CPU")
def test_threads_that_lack_a_cpu_are_given_up_and_come_back() -> None:
    """Four threads that share units, on CPUs that other processes keep busy: calls find out, and
    when those have ended, the threads are there again."""
    layer = fastlstm.LSTM(256, 256, seed=0)
    x = np.ones((50, 1, 256), np.float32)
    before = _core.plan_for_cpus(4)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        with fastlstm.num_threads(4):
            assert _until(lambda: layer(x) and layer.plan(50, 1).threads < 4)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    try:
        # Now and then four are tried, though there may be fewer CPUs than that.
        with fastlstm.num_threads(4):
            assert _until(lambda: layer.plan(50, 1).threads > 1)
    finally:
        _core.plan_for_cpus(before)


def _until(holds: Any, seconds: float = 60.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
    return True


# --- costs of this machine ------------------------------------------------------------------------

IN_A_NEW_PROCESS = """
import fastlstm
from fastlstm import _core, _costs
costs = {name: value for name, value, _ in _core.tuning()}
print(costs["products_per_us"], costs["meeting_us"])
print(_costs.note or "no note")
"""


def in_a_new_process(costs: str) -> tuple[str, str]:
    env = {**os.environ, "FASTLSTM_COSTS": costs}
    run = subprocess.run(
        [sys.executable, "-c", IN_A_NEW_PROCESS],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    values, note = run.stdout.splitlines()
    return values, note


def test_later_processes_use_the_costs_of_a_file(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "costs.txt")
    usual, note = in_a_new_process("none")
    assert note == "no note"
    assert in_a_new_process(path) == (usual, "no note")  # there is none yet
    _costs.write(path, {"products_per_us": 12345.0, "meeting_us": 0.75})
    assert in_a_new_process(path) == ("12345.0 0.75", f"costs measured here, from {path}")
    assert os.listdir(tmp_path / "new") == ["costs.txt"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "in its first line"),
        ("another file\n", "in its first line"),
        ("fastlstm costs 1\nanother CPU, avx2, 8 CPUs\nproducts_per_us 1e4\n", "another machine"),
        ("fastlstm costs 1\n{machine}\nproducts_per_us\n", "a name and a value"),
        ("fastlstm costs 1\n{machine}\nproducts_per_us fast\n", "could not convert"),
        ("fastlstm costs 1\n{machine}\nproducts_per_us nan\n", "cannot be"),
        ("fastlstm costs 1\n{machine}\nproducts_per_us -3\n", "cannot be"),
        ("fastlstm costs 1\n{machine}\nproducts_per_us 1e300\n", "cannot be"),
        ("fastlstm costs 1\n{machine}\noverlap 1.01\n", "cannot be"),
        ("fastlstm costs 1\n{machine}\nrows_per_wish 3\n", "no cost is called"),
        ("fastlstm costs 1\n{machine}\nalternate_rows 3\n", "no cost is called"),
        ("\udc80\udcff", "codec"),
        ("x" * 70000, "too long"),
    ],
    ids=lambda value: value[-24:].strip() if len(value) < 100 else "long",
)
def test_a_bad_or_foreign_file_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    path = tmp_path / "costs.txt"
    text = text.replace("{machine}", _costs.machine())
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    monkeypatch.setenv("FASTLSTM_COSTS", str(path))
    monkeypatch.setattr(_costs, "note", "")
    before = _core.tuning()
    _costs.use_file()
    assert _core.tuning() == before
    assert _costs.note.startswith(f"{path} is not used: ")
    assert reason in _costs.note


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTLSTM_COSTS", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.abspath("cache"))
    found = _costs.default_path()
    assert found == os.path.join(os.path.abspath("cache"), "fastlstm", "costs.txt")
    monkeypatch.setenv("XDG_CACHE_HOME", "not absolute")
    assert _costs.default_path() is None
    monkeypatch.setenv("FASTLSTM_COSTS", "named")
    assert _costs.default_path() == "named"
    monkeypatch.setenv("FASTLSTM_COSTS", "none")
    assert _costs.default_path() is None


def test_what_a_file_says_is_shown_as_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal obeys none of it, and it is not long; nor is there a path that cannot be shown."""
    for content in ("\x1b[31m" + "x" * 60000, f"{_costs.machine()}\n\x1b[31m 1"):
        path = tmp_path / "new\x1b[31m\udcff"
        path.write_text(f"fastlstm costs 1\n{content}\n")
        monkeypatch.setenv("FASTLSTM_COSTS", str(path))
        monkeypatch.setattr(_costs, "note", "")
        _costs.use_file()
        assert r"new\x1b[31m\udcff is not used: " in _costs.note
        assert r"\x1b[31m" in _costs.note.partition("not used")[2]
        assert _costs.note.isprintable()
        assert len(_costs.note) < 1000


def test_tuning_measures_costs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of them, though so few steps say little."""
    L2, L3, cpus = _core.hardware()
    brief = [e._replace(T=2) for e in experiments(cpus, L2, L3) if e.part != "memory"]
    monkeypatch.setattr(_tune, "experiments", lambda *_: brief)
    costs = {experiment.cost for experiment in brief}
    path = tmp_path / "costs.txt"
    before = [(name, value) for name, value, _ in _core.tuning()]
    try:
        assert main(["tune", "--out", str(path), "--seconds", "0.001"]) == 0
    finally:
        _core.set_costs([(name, value) for name, value in before if name in costs])
    printed = capsys.readouterr().out
    assert f"written to {path}" in printed
    found = dict(_costs.read(str(path)))
    assert "products_per_us" in found
    assert found.keys() <= costs
    for cost in found:
        assert f"  {cost} " in printed
    with pytest.raises(SystemExit):
        main(["tune", "--seconds", "0"])


def test_costs_that_a_machine_does_not_show_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is to lie in L3 fits into L2: a CPU without an L3 cache."""
    L2, _, _ = _core.hardware()
    of_L3 = [e for e in experiments(1, L2, L2 / 2) if e.part == "L3"]
    monkeypatch.setattr(_tune, "experiments", lambda *_: [e._replace(T=2) for e in of_L3])
    assert _tune.measure(0.001) == {}


@pytest.mark.parametrize("path", ["folder", "file/costs.txt", "x" * 300])
def test_where_nothing_can_be_written_nothing_is_measured(
    path: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(_tune, "measure", lambda *_: pytest.fail("measured"))
    assert main(["tune", "--out", str(tmp_path / path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(tmp_path / path.partition("/")[0]) in printed.err


def test_experiments_find_the_cost_that_a_call_shows() -> None:
    kinds = {experiment.cost for experiment in experiments(16, 2**21, 2**25)}
    assert {"memory_bytes_per_us", "meeting_us_per_thread", "wake_us_per_thread"} <= kinds
    alone = [experiment.threads for experiment in experiments(1, 2**20, 2**28)]
    assert set(alone) == {1}
    # A part that takes twice as long as expected: half as many in a microsecond, and so on.
    assert corrected("products_per_us", 100.0, 1, 1.0, 2.0) == 50.0
    assert corrected("meeting_us", 0.2, 2, 1.0, 2.0) == 0.4
    assert corrected("thread_slows_L3", 0.0, 5, 1.0, 2.0) == 0.25
    assert corrected("thread_slows_L3", 0.1, 2, 1.0, 0.5) == 0.0
    assert corrected("wake_us", 1.0, 2, 1.0, -3.0) == 0.01
