"""Long calls can be interrupted, many calls keep no memory, and no thread goes on after a call."""

from __future__ import annotations

import functools
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn
from fastlstm.nn import Gradients


@pytest.mark.parametrize(
    "options",
    ["", "num_layers=2", "bidirectional=True, num_layers=2", "proj_size=8"],
)
@pytest.mark.parametrize("mode", ["inference", "training"])
def test_ctrl_c_ends_a_long_call(mode: str, options: str) -> None:
    # The process calls without end; it says when it starts, and again once the layer has been used
    # after the interruption. Everything is imported before (SciPy by the first call that needs
    # BLAS), since Python ignores a KeyboardInterrupt in a callback of its import system. A job that
    # a shell runs in the background, and what it starts, ignores SIGINT: the handler is set anew.
    program = f"""
        import signal, numpy as np, fastlstm
        signal.signal(signal.SIGINT, signal.default_int_handler)
        lstm = fastlstm.LSTM(64, 128, seed=0, {options})
        x = np.zeros((2000, 32, 64), dtype=np.float32)
        before, _, tape = lstm.forward(x[:3])
        tape.backward(before)
        try:
            print("started", flush=True)
            while True:
                if "{mode}" == "inference":
                    lstm(x)
                else:
                    output, _, tape = lstm.forward(x)
                    tape.backward(output)
        except KeyboardInterrupt:
            print("interrupted", bool((lstm(x[:3])[0] == before).all()), flush=True)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=300)
        finally:
            process.kill()
    assert output == "interrupted True\n", errors


class TimerError(Exception):
    pass


def seconds_of(call: Callable[[], object]) -> tuple[float, float]:
    """How long a call takes by the clock, and by the process's CPUs."""
    started, before = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - started, time.process_time() - before


def check_ends_early(call: Callable[[], object], of_cpus: float) -> None:
    """A timer interrupts a call, which takes so long of CPUs if nobody does, in its first half.

    What other processes take meanwhile does not count.
    """

    def interrupt(*_: object) -> None:
        raise TimerError

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        started = time.process_time()
        with pytest.raises(TimerError):
            call()
        assert time.process_time() - started < of_cpus / 2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_long_call_ends_before_its_time() -> None:
    """A single call stops in the middle, which would take 6 s or more."""
    lstm = fastlstm.LSTM(8, 256, proj_size=8, seed=0)
    x = np.zeros((1000, 16, 8), dtype=np.float32)
    lstm(x)
    once, of_cpus = seconds_of(lambda: lstm(x))
    times = max(10, math.ceil(6 / once))
    long_x = np.tile(x, (times, 1, 1))
    check_ends_early(lambda: lstm(long_x), of_cpus * times)


def linear_call(B: int) -> Callable[[], object]:
    return functools.partial(nn.Linear(2048, 2048, seed=0), np.ones((B, 250, 2048), "f4"))


def linear_backward(B: int) -> Callable[[], object]:
    x = np.ones((B, 250, 2048), np.float32)
    return functools.partial(nn.Linear(2048, 2048, seed=0).forward(x)[1].backward, x)


def crf_loss(B: int) -> Callable[[], object]:
    emissions, tags = np.zeros((500, B, 512), np.float32), np.zeros((500, B), np.int64)
    return functools.partial(nn.CRF(512, seed=0).loss, emissions, tags)


def crf_decode(B: int) -> Callable[[], object]:
    return functools.partial(nn.CRF(512, seed=0).decode, np.zeros((500, B, 512), np.float32))


def ctc(B: int) -> Callable[[], object]:
    logits, targets = np.zeros((2000, B, 4), np.float32), np.ones((B, 900), np.int64)
    return functools.partial(nn.ctc, logits, None, targets)


@pytest.mark.parametrize("make", [linear_call, linear_backward, crf_loss, crf_decode, ctc])
def test_one_long_call_of_a_block_ends_before_its_time(
    make: Callable[[int], Callable[[], object]],
) -> None:
    """And the next gives what it would have given."""
    with fastlstm.num_threads(1):
        few = make(2)
        before = few()
        _, of_cpus = seconds_of(few)
        times = max(4, math.ceil(1.2 / of_cpus))
        check_ends_early(make(2 * times), of_cpus * times)
        np.testing.assert_equal(arrays_of(few()), arrays_of(before))


def arrays_of(result: Any) -> Any:
    """A result without its objects, which have no equality."""
    if isinstance(result, tuple):
        return [arrays_of(part) for part in result]
    return [result.x, result.params] if isinstance(result, Gradients) else result


@pytest.mark.parametrize("calls", [3000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_many_calls_from_many_threads_keep_no_memory(calls: int) -> None:
    rng = np.random.default_rng(0)
    layers = [
        fastlstm.LSTM(5, 9, seed=0),
        fastlstm.LSTM(16, 33, num_layers=2, bidirectional=True, seed=0),
        fastlstm.LSTM(7, 24, num_layers=2, proj_size=5, dtype="float64", seed=0),
    ]
    problems = []
    for layer in layers:
        for T, B in ((1, 1), (7, 3), (30, 20)):
            x = rng.normal(size=(T, B, layer.input_size)).astype(layer.dtype)
            lengths = rng.integers(0, T, B, endpoint=True)
            problems.append((layer, x, lengths, layer(x, lengths=lengths)[0]))

    def call(k: int) -> None:
        layer, x, lengths, expected = problems[k % len(problems)]
        output = layer(x, lengths=lengths)[0]
        np.testing.assert_array_equal(output, expected)
        if k % 10 == 0:
            layer.forward(x, lengths=lengths)[2].backward(output)

    def soak(most: int) -> int:
        # One task for each thread: a pool keeps what it was given to the end, 1 KiB a task.
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda first: [call(k) for k in range(first, most, 8)], range(8)))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    warm = soak(calls // 2)
    grown = soak(calls) - warm
    assert grown < 8 * 1024  # KiB; arenas of the allocator settle, leaks of a call would add up


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator")
def test_released_memory_stays_for_the_next_call() -> None:
    code = """
        import ctypes, resource, numpy as np, fastlstm

        output, _, tape = fastlstm.LSTM(64, 64, seed=0).forward(np.ones((100, 32, 64), np.float32))
        tape.backward(output)
        libc = ctypes.CDLL(None)
        libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
        libc.free.argtypes = [ctypes.c_void_p]

        def fresh_pages(size):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            block = libc.malloc(size)
            libc.memset(block, 1, size)
            libc.free(block)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        fresh_pages(20 << 20)
        print(fresh_pages(20 << 20))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    # Of 5,120 pages. Left alone, glibc keeps the block from its second use on.
    assert int(done.stdout) < 500


def test_no_thread_works_after_a_call() -> None:
    lstm = fastlstm.LSTM(64, 64, seed=0)
    x = np.zeros((200, 32, 64), dtype=np.float32)
    with fastlstm.num_threads(4):
        lstm(x)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1  # four spinning workers would use 1 to 2 s


def test_memory_that_cannot_be_had_is_an_error() -> None:
    limit = 2 << 30
    program = f"""
        import resource, numpy as np, fastlstm
        lstm = fastlstm.LSTM(8, 16, num_layers=2, bidirectional=True, seed=0)
        x = np.zeros((10, 2, 8), dtype=np.float32)
        lstm.forward(x)[2].backward(lstm(x)[0])
        resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
        try:
            lstm.forward(np.zeros((1_000_000, 4, 8), dtype=np.float32))
        except MemoryError:
            print("refused", lstm(x)[0].shape)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        timeout=300,
        check=False,
    )
    assert done.stdout == "refused (10, 2, 32)\n", done.stderr


def test_interruptions_belong_to_the_main_thread() -> None:
    """A call in another thread goes on when a signal arrives; Python handles it in the main one."""
    lstm = fastlstm.LSTM(64, 64, seed=0)
    x = np.zeros((4000, 16, 64), dtype=np.float32)
    expected = lstm(x)[0]
    results: list[np.ndarray] = []
    handled: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: handled.append(number))
    try:
        thread = threading.Thread(target=lambda: results.append(lstm(x)[0]))
        thread.start()
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        thread.join()
    finally:
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_allclose(results[0], expected, rtol=0, atol=1e-6)
