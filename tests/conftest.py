"""Settings for all tests. One process tests one instruction set: FASTLSTM_ISA chooses it."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import fastlstm
import hypothesis
import numpy as np
import pytest

# All that the library has kernels for, on some machine.
KNOWN_ISAS = ("avx512", "avx2", "neon", "generic")

# The same examples in every run, so that a failure is one of the change that it came with.
hypothesis.settings.register_profile(
    "fastlstm", deadline=None, derandomize=True, print_blob=True, max_examples=60
)
# --hypothesis-profile=search looks further, for new examples each time.
hypothesis.settings.register_profile("search", deadline=None, max_examples=2000)

# Whatever is tested of threads is tested of as many as a test asks for.
fastlstm._core.plan_for_cpus(64)

# Those that this process may use.
CPUS = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--soak", action="store_true", help="tests of many calls and long sequences, too"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(pytest.mark.skip(reason="long: --soak runs it"))


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--hypothesis-profile", default=None):
        hypothesis.settings.load_profile("fastlstm")
    # Where processes share the work, the first runs no tests itself.
    runs_tests = hasattr(config, "workerinput") or not config.getoption("numprocesses", default=0)
    if runs_tests and importlib.util.find_spec("torch") is not None:
        import torch

        torch.set_num_threads(1)


def pytest_report_header() -> list[str]:
    available = fastlstm.available_isas()
    skipped = [isa for isa in KNOWN_ISAS if isa not in available]
    return [
        f"fastlstm {fastlstm.__version__}: ISA {fastlstm.isa()} "
        f"(FASTLSTM_ISA chooses one of: {', '.join(available)})",
        f"not on this machine, not tested: {', '.join(skipped) or 'none'}",
    ]


@pytest.fixture(autouse=True)
def keeps_the_cpus() -> Iterator[None]:
    """A test that leaves the process on fewer CPUs makes others slow, and fail."""
    yield
    if CPUS is not None and (left := os.sched_getaffinity(0)) != CPUS:
        os.sched_setaffinity(0, CPUS)
        pytest.fail(f"it, or what it needs, left the process on the CPUs {left} of {CPUS}")


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def example_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """examples/data.py with an empty cache."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "examples"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return importlib.import_module("data")


@pytest.fixture
def small_data(example_data: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same with a few examples of each kind, and without pip."""
    from example_archives import put_into_cache

    put_into_cache(example_data, monkeypatch)
    return example_data


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """ONNX's own tests of the recurrent operators, counted."""
    counts = {
        outcome: sum(
            "test_onnx_backend_node" in report.nodeid
            for report in terminalreporter.stats.get(outcome, [])
        )
        for outcome in ("passed", "failed", "skipped")
    }
    if any(counts.values()):
        text = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
        terminalreporter.write_line(f"ONNX's backend node tests of LSTM, GRU and RNN: {text}")
