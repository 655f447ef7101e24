"""What calls lose where their threads have not a CPU each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

# Speeds of one layer with one thread and with four, in turns, so that whatever else the machine
# does is the same to both; then the best of the quotients, of which crowding that is not noticed
# leaves none near 1.
SPEEDS = """
import os, sys, time
import numpy as np
import fastlstm

cpus = sorted(os.sched_getaffinity(0))[:2]
os.sched_setaffinity(0, cpus)
T, B, H, training, one_cpu = map(int, sys.argv[1:])
layer = fastlstm.LSTM(H, H, seed=0)
x = np.random.default_rng(0).normal(size=(T, B, H)).astype(np.float32)

def call():
    if training:
        output, _, tape = layer.forward(x)
        tape.backward(d_output=output)
    else:
        layer(x)

def speed(threads):
    with fastlstm.num_threads(threads):
        call()
        calls, start = 0, time.perf_counter()
        while time.perf_counter() - start < 0.25:
            call()
            calls += 1
        return calls / (time.perf_counter() - start)

speed(2)  # starts the workers, which stay where this puts them
if one_cpu:
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cpus[:1])
print(max(speed(4) / speed(1) for _ in range(8)))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
        reason="needs two CPUs, and a system where threads can be kept on one",
    ),
]


def quotient_of_speeds(T: int, B: int, H: int, *, training: bool, one_cpu: bool) -> float:
    arguments = [str(int(n)) for n in (T, B, H, training, one_cpu)]
    done = subprocess.run(
        [sys.executable, "-c", SPEEDS, *arguments], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


@pytest.fixture
def busy_process() -> Iterator[None]:
    """A process that never waits, on one of the CPUs."""
    code = f"import os\nos.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[:1]})\n"
    with subprocess.Popen([sys.executable, "-c", code + "while True: pass"]) as process:
        yield
        process.kill()


# One row, whose threads meet at every step; rows, which have shares of their own.
SHAPES = {"units": (100, 1, 128), "rows": (20, 32, 128)}


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("shape", SHAPES)
def test_four_threads_beside_a_busy_process_are_as_good_as_one(
    shape: str, training: bool, busy_process: None
) -> None:
    assert quotient_of_speeds(*SHAPES[shape], training=training, one_cpu=False) > 2 / 3


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_threads_that_have_one_cpu_give_each_other_up(training: bool) -> None:
    T, B, H = SHAPES["units"]
    assert quotient_of_speeds(T, B, H, training=training, one_cpu=True) > 2 / 3
