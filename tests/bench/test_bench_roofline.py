"""The roofline, against sums done by hand; the limits it stands on."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from fastlstm_bench import limits, machine
from fastlstm_bench.cases import Case
from fastlstm_bench.limits import Level, Limits
from fastlstm_bench.problem import make_lengths
from fastlstm_bench.results import Run
from fastlstm_bench.roofline import flop, roofline, weights_read

SOURCE = Path(limits.__file__).resolve().parents[1] / "native" / "limits.cpp"


def test_flop_of_one_layer() -> None:
    # 2 * T*B * G*H * (I+H)
    assert flop(Case("inference", "lstm", 10, 3, 8)) == 2 * 30 * 32 * 16
    assert flop(Case("inference", "gru", 10, 3, 8)) == 2 * 30 * 24 * 16
    assert flop(Case("inference", "rnn", 10, 3, 8)) == 2 * 30 * 8 * 16
    job = Case("inference", "lstm", 10, 3, 8, use="transcriber", V=5)
    assert flop(job) == 2 * 30 * 32 * (40 + 8) + 2 * 30 * 8 * 5
    job = Case("optimiser", "lstm", 10, 3, 8, bidirectional=True, use="classifier", V=5)
    assert flop(job) == 3 * (2 * (2 * 30 * 32 * 16) + 2 * 3 * 16 * 5)
    assert flop(Case("training", "lstm", 10, 3, 8, use="linear", V=5)) == 3 * 2 * 30 * 8 * 5
    assert flop(Case("training", "lstm", 10, 3, 8, use="crf")) == 0
    assert flop(Case("training", "lstm", 10, 3, 8)) == 3 * 2 * 30 * 32 * 16
    # No gradient of x.
    assert flop(Case("optimiser", "lstm", 10, 3, 8)) == 2 * 30 * 32 * (3 * 16 - 8)


def test_flop_of_layers_and_directions() -> None:
    case = Case("inference", "lstm", 10, 3, 8, layers=2)
    assert flop(case) == 2 * flop(Case("inference", "lstm", 10, 3, 8))
    # The second layer reads both directions of the first: I = 2H.
    case = dataclasses.replace(case, bidirectional=True)
    assert flop(case) == 2 * (2 * 30 * 32 * 16) + 2 * (2 * 30 * 32 * 24)
    case = dataclasses.replace(case, task="optimiser")
    assert flop(case) == 2 * (2 * 30 * 32 * (3 * 16 - 8)) + 2 * (2 * 30 * 32 * 3 * 24)


def test_flop_does_not_count_padding() -> None:
    case = Case("inference", "lstm", 10, 3, 8, lengths=True)
    lengths = make_lengths(case)
    assert lengths is not None
    assert flop(case) == 2 * lengths.sum() * 32 * 16


def test_weights_read() -> None:
    R = 4 * 8 * 8 * 4
    assert weights_read(Case("inference", "lstm", 10, 3, 8)) == (R, 10 * R)
    assert weights_read(Case("training", "lstm", 10, 3, 8)) == (R, 20 * R)
    assert weights_read(Case("optimiser", "lstm", 10, 3, 8)) == (R, 20 * R)
    assert weights_read(Case("inference", "lstm", 10, 3, 8, 2, bidirectional=True)) == (R, 40 * R)
    assert weights_read(Case("inference", "lstm", 10, 3, 8, dtype="float64")) == (2 * R, 20 * R)
    # A step reads W and R of all layers.
    assert weights_read(Case("step", "lstm", 1, 3, 8, layers=2)) == (4 * R, 4 * R)


LIMITS = Limits(
    flops={"float32": 100e9},
    levels=(
        Level("L1", 32 << 10, False, 200e9),
        Level("L2", 1 << 20, False, 100e9),
        Level("L3", 32 << 20, True, 50e9),
        Level("memory", float("inf"), True, 10e9),
    ),
)


@pytest.mark.parametrize(
    ("H", "threads", "level", "bandwidth", "nearer", "held"),
    [
        (32, 1, "L1", 200e9, 1, 0),  # R: 16 KiB
        (256, 1, "L2", 100e9, 200e9, 32 << 10),  # 1 MiB, of which L1 holds a part
        (288, 1, "L3", 50e9, 100e9, 1 << 20),  # 1.3 MiB
        (288, 2, "L2", 100e9, 200e9, 64 << 10),  # half of it for each thread
        (1024, 2, "L3", 50e9, 100e9, 2 << 20),  # 16 MiB
        # 64 MiB: sharing does not make it fit into a shared cache
        (2048, 2, "memory", 10e9, 50e9, 32 << 20),
    ],
)
def test_roof_of_one_sequence_is_reading_the_recurrent_weights(
    H: int, threads: int, level: str, bandwidth: float, nearer: float, held: int
) -> None:
    # A peak so high that the weights always bind.
    high = dataclasses.replace(LIMITS, flops={"float32": 1e15})
    bound = roofline(Case("inference", "lstm", 100, 1, H), threads, high)
    assert bound is not None
    assert bound.level == level
    step = held / nearer + (16 * H * H - held) / bandwidth
    assert bound.seconds == pytest.approx(100 * step)


def test_roof_of_a_batch_is_the_peak() -> None:
    case = Case("inference", "lstm", 100, 64, 256)
    bound = roofline(case, 1, LIMITS)
    assert bound is not None
    assert bound.level == "products"
    assert bound.seconds == pytest.approx(flop(case) / 100e9)


def test_no_roof_without_limits() -> None:
    case = Case("inference", "lstm", 10, 1, 8)
    assert roofline(case, 1, Limits()) is None
    # The peak alone, where the caches are unknown.
    bound = roofline(case, 1, Limits(flops={"float32": 1e9}))
    assert bound is not None
    assert bound.level == "products"


def test_part_of_the_roofline(run: Run) -> None:
    result = next(r for r in run.results if r.case.task == "inference" and r.system == "fastlstm")
    bound = run.roofline(result)
    assert bound is not None
    assert run.roofline_fraction(result) == pytest.approx(bound.seconds / 1e-3)


def test_results_above_the_roofline_are_found(run: Run) -> None:
    # The batch is 3.4 GFLOP; the made-up times are 1 ms for fastlstm, 2 and 3 ms for the others.
    run.limits[1] = Limits(flops={"float32": 10e12})
    assert run.above_roofline(1) == []
    run.limits[1] = Limits(flops={"float32": 2.5e12})
    assert [(r.case.task, r.system) for r in run.above_roofline(1)] == [("inference", "fastlstm")]
    assert run.above_roofline(2) == []


def test_limits_survive_json() -> None:
    assert Limits.from_json(LIMITS.to_json()) == LIMITS


def test_best_of_two_measurements() -> None:
    better = dataclasses.replace(LIMITS, flops={"float32": 120e9, "float64": 60e9})
    assert limits.best_of(LIMITS, better).flops == {"float32": 120e9, "float64": 60e9}
    assert limits.best_of(better, LIMITS) == limits.best_of(LIMITS, better)
    assert limits.best_of(LIMITS, Limits()) == LIMITS


def test_contradictions_are_found() -> None:
    assert LIMITS.suspicions() == []
    fast_gemm = dataclasses.replace(LIMITS, gemm={"float32": 120e9})
    assert "1.20 of the measured peak" in fast_gemm.suspicions()[0]
    upside_down = dataclasses.replace(LIMITS, levels=LIMITS.levels[::-1])
    assert "L3 reads faster than memory" in upside_down.suspicions()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed library, or one compiled by the line that the source gives."""
    found = limits.find_library()
    if found is not None:
        return found
    compiler = shutil.which("c++")
    if compiler is None or not SOURCE.exists():
        pytest.skip("limits.cpp is not compiled, and no compiler is at hand")
    path = tmp_path_factory.mktemp("limits") / "_limits.so"
    options = ["-std=c++17", "-O3", "-shared", "-fPIC", "-pthread"]
    subprocess.run([compiler, *options, str(SOURCE), "-o", str(path)], check=True)
    return path


def test_limits_can_be_measured(library: Path) -> None:
    found = limits.measure(1, seconds=0.002, path=library)
    assert found.isa in ("avx512", "avx2", "baseline")
    assert found.flops["float32"] > found.flops["float64"] > 0
    assert all(level.bandwidth > 0 for level in found.levels)
    assert [level.name for level in found.levels][:1] in (["L1"], [])
    assert [level.size for level in found.levels] == sorted(level.size for level in found.levels)


def test_limits_are_missing_where_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "find_library", lambda: None)
    with pytest.raises(FileNotFoundError, match="not compiled"):
        limits.measure(1)


def test_machine_is_described() -> None:
    description = machine.describe()
    assert description["cpu"]
    assert description["cpus_allowed"] == machine.available_cpus()
    assert all(size >= 1024 for size in machine.cache_sizes().values())
