"""Threads, instruction sets, environment variables, show_config, and what an import costs."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import fastlstm
import numpy as np
import pytest
from support import Case, assert_same_bits, make_problem

TESTS = Path(__file__).parent


def output_of(code: str, input: str = "", **environment: str) -> str:
    """What code prints in a new process, without FASTLSTM_ variables but these."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("FASTLSTM_")}
    path = os.pathsep.join([str(TESTS), clean.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"PYTHONPATH": path} | environment,
        input=input,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# --- importing ----------------------------------------------------------------------------------


def test_import_loads_neither_scipy_nor_safetensors_nor_frameworks() -> None:
    code = """
import sys, numpy
before = set(sys.modules)
def loaded():
    new = {m.partition(".")[0] for m in set(sys.modules) - before}
    ours = new - set(sys.stdlib_module_names) - {"numpy"}
    return sorted(m for m in ours if "cython" not in m)  # of numpy.random
import fastlstm
print(loaded())
fastlstm.LSTM(3, 4).update({})
fastlstm.show_config()
print(loaded())
"""
    assert output_of(code).splitlines() == ["['fastlstm']"] * 2


def test_the_public_names() -> None:
    for name in fastlstm.__all__:
        assert hasattr(fastlstm, name), name
    names = {"LSTM", "load", "set_num_threads", "get_num_threads", "num_threads"}
    assert names | {"available_isas", "isa", "show_config", "reference"} <= set(fastlstm.__all__)


# --- instruction sets ---------------------------------------------------------------------------


def test_the_best_isa_is_active_unless_another_is_asked_for() -> None:
    isas = fastlstm.available_isas()
    assert isas[-1] == "generic"
    assert len(set(isas)) == len(isas)
    assert fastlstm.isa() in isas
    assert fastlstm.isa() == (os.environ.get("FASTLSTM_ISA") or isas[0])
    code = "import fastlstm; print(fastlstm.isa())"
    assert output_of(code) == output_of(code, FASTLSTM_ISA="") == isas[0]


# The whole suite runs for one ISA; here the others show that they are used, and right.
OTHER_ISA = """
import fastlstm, numpy as np
from support import CASES, DTYPES, assert_gradients_close, make_problem, solve_case
from tolerances import BACKWARD, FORWARD, assert_close
for name in ("plain", "H=53", "large weights", "lengths, everything", "B=17"):
    for dtype in DTYPES:
        p, expected = make_problem(CASES[name], dtype), solve_case(name, dtype)
        output, _, tape = p.layer.forward(p.x, p.state, lengths=p.lengths)
        assert_close(output, expected.output, FORWARD[dtype], name)
        grads = tape.backward(p.d_output, p.d_state)
        assert_gradients_close(grads, expected.grads, BACKWARD[dtype])
print(fastlstm.isa(), p.layer(p.x, p.state)[0].tobytes().hex())
"""


def test_every_isa_is_right_and_the_forced_one_is_used() -> None:
    results = {}
    for isa in fastlstm.available_isas():
        active, results[isa] = output_of(OTHER_ISA, FASTLSTM_ISA=isa).split()
        assert active == isa
    if "avx2" in results:
        # Without FMA instructions products are rounded, so that the bits are others.
        assert results["avx2"] != results["generic"]


def test_an_unknown_or_unsupported_isa_is_an_error() -> None:
    isas = fastlstm.available_isas()
    wrong = {"nonsense", "AVX2", " generic", "generic,avx2", "neon", "avx512"} - set(isas)
    code = """
import os, sys, fastlstm
for isa in sys.stdin.read().split("|"):
    os.environ["FASTLSTM_ISA"] = isa
    for action in (fastlstm.isa, fastlstm.show_config, lambda: fastlstm.LSTM(3, 4)([[[1, 2, 3]]])):
        try:
            action()
        except ValueError as error:
            print(error)
os.environ["FASTLSTM_ISA"] = "generic"
print(fastlstm.isa())
"""
    valid = ", ".join(f"'{name}'" for name in isas)
    expected = [
        f"FASTLSTM_ISA: expected one of {valid} on this CPU, got '{isa}'"
        for isa in sorted(wrong)
        for _ in range(3)
    ]
    lines = output_of(code, input="|".join(sorted(wrong)), FASTLSTM_ISA="nonsense").splitlines()
    assert lines == [*expected, "generic"]


# --- threads ------------------------------------------------------------------------------------


@pytest.fixture
def restored_threads():
    before = fastlstm.get_num_threads()
    yield before
    fastlstm.set_num_threads(before)


def test_the_default_is_what_this_process_may_use() -> None:
    code = """
import os
if {one}:
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
import fastlstm
print(fastlstm.get_num_threads())
"""
    assert 1 <= int(output_of(code.format(one=False))) <= len(os.sched_getaffinity(0))
    assert output_of(code.format(one=True)) == "1"


def test_set_num_threads(restored_threads: int) -> None:
    for n in (1, 3, 4096, np.int64(2)):
        fastlstm.set_num_threads(n)
        assert fastlstm.get_num_threads() == n
        seen = []
        thread = threading.Thread(target=lambda seen=seen: seen.append(fastlstm.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [n]


def test_num_threads_is_for_one_block_and_one_thread(restored_threads: int) -> None:
    fastlstm.set_num_threads(2)
    seen = []
    with fastlstm.num_threads(5):
        assert fastlstm.get_num_threads() == 5
        with fastlstm.num_threads(3):
            assert fastlstm.get_num_threads() == 3
        assert fastlstm.get_num_threads() == 5
        thread = threading.Thread(target=lambda: seen.append(fastlstm.get_num_threads()))
        thread.start()
        thread.join()
        fastlstm.set_num_threads(4)
        assert fastlstm.get_num_threads() == 5
    assert seen == [2]
    assert fastlstm.get_num_threads() == 4
    with pytest.raises(KeyError), fastlstm.num_threads(7):
        raise KeyError
    assert fastlstm.get_num_threads() == 4


def test_a_block_ends_with_the_innermost_that_is_open(restored_threads: int) -> None:
    """Generators share their caller's context: their blocks end in any order."""

    def block(n: int) -> Iterator[None]:
        with fastlstm.num_threads(n):
            yield

    fastlstm.set_num_threads(2)
    for order in itertools.permutations(range(3)):
        blocks = dict(enumerate(map(block, (5, 6, 7))))
        for generator in blocks.values():
            next(generator)
        assert fastlstm.get_num_threads() == 7
        for n in order:
            blocks.pop(n).close()
            expected = max((5 + k for k in blocks), default=2)
            assert fastlstm.get_num_threads() == expected


def test_blocks_of_generators_that_overlap_without_end(restored_threads: int) -> None:
    """Nothing grows."""

    def block(n: int) -> Iterator[None]:
        with fastlstm.num_threads(n):
            yield

    before = None
    for n in range(1, 100):
        now = block(n)
        next(now)
        before = now  # which ends the one before
        assert fastlstm.get_num_threads() == n
        kept = {var.name: value for var, value in contextvars.copy_context().items()}
        assert len(kept["fastlstm.num_threads"]) <= 2
    del before, now
    assert fastlstm.get_num_threads() == restored_threads


def test_tasks_have_their_own_numbers(restored_threads: int) -> None:
    fastlstm.set_num_threads(2)
    layer = fastlstm.LSTM(3, 4, seed=0)
    x = np.ones((5, 2, 3), np.float32)

    async def task(n: int, begins: int, ends: int) -> list[int]:
        seen = []
        for step in range(8):
            if step == begins:
                block = fastlstm.num_threads(n)
                block.__enter__()
            if step == ends:
                block.__exit__(None, None, None)
            layer(x)
            seen.append(fastlstm.get_num_threads())
            await asyncio.sleep(0)
        return seen

    async def main() -> list[list[int]]:
        return await asyncio.gather(task(5, 1, 4), task(7, 2, 6), task(3, 3, 5))

    assert asyncio.run(main()) == [
        [2, 5, 5, 5, 2, 2, 2, 2],
        [2, 2, 7, 7, 7, 7, 2, 2],
        [2, 2, 2, 3, 3, 2, 2, 2],
    ]
    assert fastlstm.get_num_threads() == 2


def test_what_begins_in_a_block_has_its_number(restored_threads: int) -> None:
    fastlstm.set_num_threads(2)
    seen = []

    async def main() -> None:
        async def note() -> None:
            seen.append(fastlstm.get_num_threads())
            await asyncio.sleep(0.01)
            seen.append(fastlstm.get_num_threads())  # the block has ended

        with fastlstm.num_threads(5):
            task = asyncio.create_task(note())
            await asyncio.sleep(0)
            seen.append(await asyncio.to_thread(fastlstm.get_num_threads))
        await task

    asyncio.run(main())
    assert seen == [5, 5, 2]


def test_a_block_may_end_in_another_thread(restored_threads: int) -> None:
    """As that of an abandoned generator does, where the garbage collector runs."""
    fastlstm.set_num_threads(2)
    block = fastlstm.num_threads(5)
    block.__enter__()
    thread = threading.Thread(target=block.__exit__, args=(None, None, None))
    thread.start()
    thread.join()
    assert fastlstm.get_num_threads() == 2
    with fastlstm.num_threads(6):
        assert fastlstm.get_num_threads() == 6
    assert fastlstm.get_num_threads() == 2


def test_an_object_begins_one_block_of_all_threads(restored_threads: int) -> None:
    fastlstm.set_num_threads(2)
    start = threading.Barrier(4)
    blocks = [fastlstm.num_threads(5) for _ in range(200)]
    begun: list[int] = []
    left: list[int] = []

    def work() -> None:
        for block in blocks:
            start.wait()
            try:
                with block:
                    begun.append(fastlstm.get_num_threads())
            except RuntimeError:
                pass
            left.append(fastlstm.get_num_threads())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == [5] * len(blocks)
    assert set(left) == {2}


def test_calls_have_the_number_of_their_context() -> None:
    """What a call uses, by the threads that it starts: in a block of one, none."""
    code = """
import os, fastlstm, numpy as np
fastlstm._core.plan_for_cpus(8)
fastlstm.set_num_threads(4)
layer = fastlstm.LSTM(64, 256, seed=0)
x = np.ones((10, 48, 64), np.float32)
def threads():
    return len(os.listdir("/proc/self/task"))
before = threads()
with fastlstm.num_threads(1):
    output, _, tape = layer.forward(x)
    tape.backward(output)
    stream = fastlstm.LSTM(256, 512).stream(8)
    stream.step(np.ones((8, 256), np.float32))
    stream.run(np.ones((2, 8, 256), np.float32))
    params = {"w": np.ones(1 << 22, np.float32)}
    fastlstm.optim.Adam().step(params, params)
    print(threads() - before)
    with fastlstm.num_threads(3):
        layer(x)
        print(threads() - before)
fastlstm._core.plan_for_cpus(8)  # those that had no CPU are tried again
layer(x)
print(threads() - before)
"""
    lines = output_of(code, FASTLSTM_ISA=fastlstm.isa(), OPENBLAS_NUM_THREADS="1").split()
    assert lines == ["0", "2", "3"]


def test_the_environment_sets_the_number_of_threads() -> None:
    code = """
import fastlstm
print(fastlstm.get_num_threads())
fastlstm.set_num_threads(2)
print(fastlstm.get_num_threads())
"""
    assert output_of(code, FASTLSTM_NUM_THREADS="3").split() == ["3", "2"]


def test_a_wrong_number_in_the_environment_is_an_error() -> None:
    wrong = ["0", "-1", "two", "1.5", "3x", "99999999999999999999", "4097"]
    code = """
import os, sys, fastlstm
layer = fastlstm.LSTM(3, 4)
for text in sys.stdin.read().split():
    os.environ["FASTLSTM_NUM_THREADS"] = text
    for action in (fastlstm.get_num_threads, fastlstm.show_config, lambda: layer([[[1, 2, 3]]])):
        try:
            action()
        except ValueError as error:
            print(error)
os.environ["FASTLSTM_NUM_THREADS"] = ""
print(fastlstm.get_num_threads() >= 1)
"""
    expected = [
        f"FASTLSTM_NUM_THREADS: expected an integer from 1 to 4096, got '{text}'"
        for text in wrong
        for _ in range(3)
    ]
    assert output_of(code, input=" ".join(wrong)).splitlines() == [*expected, "True"]


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_results_do_not_depend_on_the_number_of_threads(n: int) -> None:
    p = make_problem(Case(T=20, B=9, I=40, H=65, options={"num_layers": 2}), "float32")
    with fastlstm.num_threads(1):
        expected, _ = p.layer(p.x, p.state)
    with fastlstm.num_threads(n):
        assert_same_bits(p.layer(p.x, p.state)[0], expected)
        assert_same_bits(p.layer.forward(p.x, p.state)[0], expected)


def test_results_are_the_same_run_after_run() -> None:
    p = make_problem(Case(T=20, B=9, I=40, H=65, options={"bidirectional": True}), "float32")
    expected, _ = p.layer(p.x, p.state)
    for _ in range(20):
        assert_same_bits(p.layer(p.x, p.state)[0], expected)


def test_calls_leave_the_number_of_threads_alone(restored_threads: int) -> None:
    p = make_problem(Case(), "float32")
    fastlstm.set_num_threads(3)
    output, _, tape = p.layer.forward(p.x)
    tape.backward(output)
    with pytest.raises(ValueError, match="x: expected"):
        p.layer(p.x[0, 0])
    assert fastlstm.get_num_threads() == 3


def test_calls_after_a_fork() -> None:
    """The child of a fork has none of the parent's threads; it must compute all the same."""
    code = """
import os, warnings, fastlstm, numpy as np
warnings.simplefilter("ignore", DeprecationWarning)
fastlstm.set_num_threads(4)
layer = fastlstm.LSTM(64, 256, seed=0)
x = np.ones((10, 8, 64), np.float32)
expected = layer(x)[0]
child = os.fork()
if child == 0:
    output, _, tape = layer.forward(x)
    tape.backward(output)
    os._exit(0 if np.allclose(layer(x)[0], expected, atol=1e-6) else 1)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), np.allclose(layer(x)[0], expected, atol=1e-6))
"""
    assert output_of(code) == "0 True"


def test_calls_after_a_fork_in_the_middle_of_other_threads_calls() -> None:
    """What other threads hold at a fork, the child would find taken for ever."""
    code = """
import os, signal, threading, warnings, fastlstm, numpy as np
warnings.simplefilter("ignore", DeprecationWarning)
fastlstm.set_num_threads(2)
layer = fastlstm.LSTM(32, 64, seed=0)
x = np.ones((20, 8, 32), np.float32)

def gradient():
    output, _, tape = layer.forward(x)
    return tape.backward(output).x

expected, stop = gradient(), threading.Event()

def work():
    while not stop.is_set():
        gradient()

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
results = []
for _ in range(40):
    child = os.fork()
    if child == 0:
        signal.alarm(200)
        os._exit(0 if np.allclose(gradient(), expected, atol=1e-5) else 1)
    results.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
print(set(results))
"""
    assert output_of(code, FASTLSTM_ISA=fastlstm.isa()) == "{0}"


def test_a_fork_within_a_call() -> None:
    """A signal's handler forks between two regions of a call, which goes on in parent and child."""
    code = """
import os, signal, warnings, fastlstm, numpy as np
warnings.simplefilter("ignore", DeprecationWarning)
fastlstm.set_num_threads(2)
# Many layers, one after the other, so that each region of the threads is brief on any machine.
layer = fastlstm.LSTM(64, 64, 64, bidirectional=True, seed=0)
layer.update({name: 2 * values for name, values in layer.params.items()})  # else they forget x
x = np.random.default_rng(0).standard_normal((60, 8, 64), np.float32)
expected, _, tape = layer.forward(x)

def gradients():
    found = tape.backward(expected)
    return [found.x, *found.params.values()]

expected_gradients = gradients()
children = []

def fork(*_):
    children.append(os.fork())
    if children[-1] == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(200)

signal.signal(signal.SIGALRM, fork)
good = []
for call in range(8):
    signal.setitimer(signal.ITIMER_REAL, 0.03)
    try:
        if call % 2:
            good.append(all(map(np.array_equal, gradients(), expected_gradients)))
        else:
            good.append(np.array_equal(layer(x)[0], expected))
    except RuntimeError as error:  # the system took a thread off its CPU within a region
        if children[-1] == 0 and "fork in the middle" in str(error):
            os._exit(2)
        raise
    if children and children[-1] == 0:
        os._exit(0 if all(good) else 1)
codes = {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}
print(codes - {2}, all(good))
"""
    assert output_of(code, FASTLSTM_ISA=fastlstm.isa()) == "{0} True"


def test_the_child_of_a_fork_gives_blas_its_threads_back() -> None:
    """BLAS has one thread during a call; at a fork in one, the child's would keep it."""
    code = """
import ctypes, os, signal, threading, warnings, fastlstm, numpy as np
import scipy.linalg.cython_blas as scipy_blas
warnings.simplefilter("ignore", DeprecationWarning)
library = ctypes.CDLL(scipy_blas.__file__)
library.scipy_openblas_set_num_threads(3)
layer = fastlstm.LSTM(64, 128, seed=0)
x = np.ones((400, 32, 64), np.float32)
output, _, tape = layer.forward(x)
stop = threading.Event()

def work():
    while not stop.is_set():
        tape.backward(output)

thread = threading.Thread(target=work)
thread.start()
while library.scipy_openblas_get_num_threads() != 1:
    pass
child = os.fork()
if child == 0:
    signal.alarm(200)
    small = layer.forward(x[:2])
    small[2].backward(small[0])
    os._exit(library.scipy_openblas_get_num_threads())
stop.set()
thread.join()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), library.scipy_openblas_get_num_threads())
"""
    assert output_of(code, FASTLSTM_ISA=fastlstm.isa()) == "3 3"


def test_calls_where_no_more_threads_can_be_started() -> None:
    """They run on the caller's own."""
    code = """
import resource, threading, fastlstm, numpy as np

def memory():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmSize"))

layer = fastlstm.LSTM(64, 96, seed=0)
x = np.ones((10, 8, 64), np.float32)
with fastlstm.num_threads(1):
    expected, _, tape = layer.forward(x)
    expected_gradient = tape.backward(expected).x
    limit = memory() + (4 << 20)  # less than the stack of a thread
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    threading.Thread(target=print).start()
except RuntimeError as error:
    print(error)
fastlstm.set_num_threads(8)
output, _, tape = layer.forward(x)
print(np.allclose(output, expected, atol=1e-6))
print(np.allclose(tape.backward(output).x, expected_gradient, atol=1e-5))
"""
    lines = output_of(code, FASTLSTM_ISA=fastlstm.isa(), OPENBLAS_NUM_THREADS="1").splitlines()
    assert lines == ["can't start new thread", "True", "True"]


def test_the_process_ends_while_workers_wait() -> None:
    code = """
import fastlstm, numpy as np
fastlstm.set_num_threads(4)
fastlstm.LSTM(64, 256, seed=0)(np.ones((10, 8, 64), np.float32))
print("done")
"""
    assert output_of(code) == "done"


# --- show_config --------------------------------------------------------------------------------


def test_show_config() -> None:
    fastlstm.LSTM(3, 4)(np.ones((1, 1, 3)))
    lines = fastlstm.show_config().splitlines()
    values = {line[:9].strip(): line[9:].strip() for line in lines}
    assert list(values) == ["fastlstm", "Python", "compiler", "ISA", "BLAS", "threads"]
    assert values["fastlstm"] == fastlstm.__version__
    assert np.__version__ in values["Python"]
    isas = fastlstm.available_isas()
    assert values["ISA"] == f"{fastlstm.isa()} (available: {', '.join(isas)})"
    assert values["threads"].startswith(f"{fastlstm.get_num_threads()} (usable CPUs: ")
    with fastlstm.num_threads(7):
        assert "threads   7 (" in fastlstm.show_config()
