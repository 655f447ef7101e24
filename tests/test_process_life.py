"""The end of the process, interruptions in the middle of a step, and forks there."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from typing import Any

import fastlstm
import numpy as np
import pytest


def run(program: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


SETUP = """
import sys, threading, time, fastlstm, numpy as np
lstm = fastlstm.LSTM(64, 256, seed=0)
small = lstm.quantize("int8", "int8")
tiny = fastlstm.GRU(2, 3, seed=0)
x, tiny_x = np.ones((100, 16, 64), np.float32), np.ones((1, 1, 2), np.float32)
values = dict(lstm.params)
output, _, tape = lstm.forward(x)
grads = tape.backward(output).params
optimizer = fastlstm.optim.Adam()
"""

# What threads do when the process ends; {k} is the thread's number.
WORK = {
    "call": "lstm(x)",
    "tiny call": "tiny(tiny_x)",
    "training": "output, _, tape = lstm.forward(x); tape.backward(output)",
    "backward": "tape.backward(output)",
    "trace": "lstm.trace(x)",
    "quantize": "lstm.quantize('int8', 'int8')",
    "small call": "small(x)",
    "plan": "lstm.plan(100, 16, training=True)",
    "stream": "streams[k].step(step_x)",
    "run": "streams[k].run(x)",
    "update": "lstm.update(values)",
    "make": "fastlstm.LSTM(64, 256)",
    "optimiser": "fastlstm.optim.Adam().step(values, grads)",
}


@pytest.mark.parametrize("work", WORK)
def test_threads_in_the_middle_of_calls_do_not_disturb_the_end(work: str) -> None:
    program = f"""
{SETUP}
streams = [lstm.stream(16) for _ in range(3)]
step_x = np.ones((16, 64), np.float32)
def work(k):
    while True:
        {WORK[work]}
for k in range(3):
    threading.Thread(target=work, args=(k,), daemon=True).start()
time.sleep(0.2)
"""
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_call_at_exit() -> None:
    program = f"""
import atexit
{SETUP}
class Last:
    def __del__(self, lstm=lstm, x=x):
        try:
            lstm(x)
        except TypeError:  # 3.13t has cleared the modules before
            pass
last = Last()
atexit.register(lambda: print(lstm(x)[0].shape))
threading.Thread(target=lambda: [lstm(x) for _ in range(10000)], daemon=True).start()
sys.exit(3)
"""
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (3, "(100, 16, 256)\n", "")


def test_calls_import_nothing() -> None:
    """A fork in the middle of an import leaves the child a lock that nobody releases."""
    done = run("""
        import sys, fastlstm, numpy as np
        lstm = fastlstm.LSTM(3, 4, seed=0)
        x = np.ones((2, 1, 3), np.float32)
        before = set(sys.modules)
        lstm(x)
        lstm.forward(x)
        lstm.update(dict(lstm.params))
        stream = lstm.stream()
        stream.step(x[0])
        stream.run(x)
        stream.reset()
        print(sorted(set(sys.modules) - before))
    """)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_forks_while_blas_is_loaded() -> None:
    done = run("""
        import os, signal, threading, time, warnings, fastlstm, numpy as np
        warnings.simplefilter("ignore")  # of a fork with threads
        lstm = fastlstm.LSTM(3, 4, seed=0)
        output, _, tape = lstm.forward(np.ones((2, 1, 3), np.float32))
        first = threading.Thread(target=lambda: tape.backward(output))
        first.start()
        children = []
        for _ in range(5):
            time.sleep(0.02)
            child = os.fork()
            if child == 0:
                signal.alarm(200)
                tape.backward(output)
                os._exit(0)
            children.append(child)
        first.join()
        print([os.waitpid(child, 0)[1] for child in children])
    """)
    # Python's logging, which SciPy imports meanwhile, complains of its own lock.
    assert done.stdout == "[0, 0, 0, 0, 0]\n", done.stderr


def test_a_fork_does_not_hold_the_lock_of_logging_while_blas_is_loaded() -> None:
    done = run("""
        import os, signal, sys, threading, time, types, warnings, fastlstm, numpy as np
        warnings.simplefilter("ignore")  # of a fork with threads
        signal.alarm(200)
        class Finder:  # what SciPy imports, while a fork waits for it
            def find_spec(self, name, path=None, target=None):
                if name.startswith("scipy") and not started.is_set():
                    started.set()
                    time.sleep(0.5)
                    import logging
                    logging.getLogger("new").addHandler(logging.StreamHandler())
        started = threading.Event()
        sys.meta_path.insert(0, Finder())
        lstm = fastlstm.LSTM(3, 4, seed=0)
        output, _, tape = lstm.forward(np.ones((2, 1, 3), np.float32))
        first = threading.Thread(target=lambda: tape.backward(output))
        first.start()
        started.wait()
        import logging
        child = os.fork()
        if child == 0:
            tape.backward(output)
            os._exit(0)
        first.join()
        print(os.waitpid(child, 0)[1])
    """)
    assert done.stdout == "0\n", done.stderr


@pytest.mark.skipif(not hasattr(signal, "alarm"), reason="needs forks")
def test_a_stream_that_another_thread_used_at_a_fork() -> None:
    """The child may set its state, and then use it."""
    done = run("""
        import os, signal, threading, time, warnings, fastlstm, numpy as np
        warnings.simplefilter("ignore")  # of a fork with threads
        lstm = fastlstm.RNN(512, 512, seed=0)
        stream = lstm.stream(20)
        x = np.ones((5000, 20, 512), np.float32)
        other = threading.Thread(target=lambda: stream.run(x), daemon=True)
        other.start()
        time.sleep(0.1)
        child = os.fork()
        if child == 0:
            signal.alarm(200)
            try:
                stream.step(x[0])
            except RuntimeError as error:
                assert "fork" in str(error), error
            else:
                os._exit(1)
            stream.reset()
            os._exit(0 if (stream.step(x[0]) == lstm(x[:1])[0][0]).all() else 2)
        print(os.waitpid(child, 0)[1], other.is_alive(), flush=True)
        os._exit(0)
    """)
    assert done.stdout == "0 True\n", done.stderr


def test_the_first_backward_on_a_small_stack() -> None:
    done = run("""
        import threading, fastlstm, numpy as np
        output, _, tape = fastlstm.LSTM(8, 16, seed=0).forward(np.ones((5, 3, 8), np.float32))
        threading.stack_size(32 * 1024)
        thread = threading.Thread(target=lambda: print(tape.backward(output).x.shape))
        thread.start()
        thread.join()
        print(threading.stack_size())
    """)
    assert done.stdout == "(5, 3, 8)\n32768\n", done.stderr


@pytest.mark.every_isa
def test_small_weights_losses_and_plans_on_a_small_stack() -> None:
    """64 KB, half of what musl's threads have."""
    done = run("""
        import threading, fastlstm, numpy as np
        from fastlstm import nn
        x = np.ones((30, 9, 64), np.float32)
        layer = fastlstm.LSTM(64, 256, 2, seed=0)
        crf, tags = nn.CRF(64, seed=0), np.zeros((30, 9), np.int64)
        done = []
        def work():
            for pair in (("int8", "int8"), ("int8",), ("bfloat16",), ("bfloat16", "bfloat16")):
                small = layer.quantize(*pair)
                small(x)
                small.stream(9).run(x)
            layer.plan(30, 9, training=True)
            crf.loss(x, tags)
            crf.decode(x)
            nn.ctc(x, None, [[1, 2, 3]] * 9)
            done.append(True)
        threading.stack_size(64 * 1024)
        for threads in (1, 2):
            fastlstm.set_num_threads(threads)
            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
        print(done)
    """)
    assert done.stdout == "[True, True]\n", done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_while_other_threads_quantize_and_plan() -> None:
    done = run("""
        import os, signal, threading, warnings, fastlstm, numpy as np
        warnings.simplefilter("ignore", DeprecationWarning)
        layer, x = fastlstm.LSTM(64, 256, seed=0), np.ones((5, 2, 64), np.float32)
        want = layer.quantize("int8", "int8")(x)[0]
        stop = threading.Event()
        def work():
            while not stop.is_set():
                layer.quantize("int8", "int8")
                layer.plan(100, 8)
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        results = set()
        for _ in range(50):
            child = os.fork()
            if child == 0:
                signal.alarm(200)
                layer.plan(100, 8)
                good = (layer.quantize("int8", "int8")(x)[0] == want).all()
                os._exit(0 if good else 1)
            results.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        for thread in threads:
            thread.join()
        print(results)
    """)
    assert done.stdout == "{0}\n", done.stderr


class InterruptError(Exception):
    pass


def interrupt(*_: object) -> None:
    raise InterruptError


def ends_early(act: Callable[[], object]) -> None:
    """A timer interrupts what takes long: it ends in less than half of its time.

    Time is that of the process: other processes may want the CPUs in the meantime. Its threads may
    then wait for each other, so one of five times is enough.
    """
    quickest = whole = math.inf
    for _ in range(3):  # the first ones may get new memory, which takes long
        started, started_cpu = time.perf_counter(), time.process_time()
        act()
        quickest = min(quickest, time.perf_counter() - started)
        whole = min(whole, time.process_time() - started_cpu)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(5):
            signal.setitimer(signal.ITIMER_REAL, quickest / 10)
            started_cpu = time.process_time()
            with contextlib.suppress(InterruptError):
                act()
            taken = time.process_time() - started_cpu
            if taken < whole / 2:
                return
        raise AssertionError(f"{taken:.2f} s of {whole:.2f}")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


LAYERS = {
    "LSTM": lambda: fastlstm.LSTM(512, 512, seed=0),
    "GRU": lambda: fastlstm.GRU(512, 512, seed=0),
    "GRU, reset before": lambda: fastlstm.GRU(512, 512, reset_after=False, seed=0),
    "RNN": lambda: fastlstm.RNN(1024, 1024, seed=0),
    "layer norm": lambda: fastlstm.LSTM(512, 512, layer_norm=True, seed=0),
    "projection": lambda: fastlstm.LSTM(512, 640, proj_size=256, seed=0),
}


def rows_of_a_long_step(layer: Any, threads: int) -> np.ndarray:
    """[1, B, I] that take a fifth of a second, as calls look for signals every 50 ms at most."""
    for k in range(4):
        x = np.zeros((1, 8000 << k, layer.input_size), np.float32)
        taken = []
        for _ in range(2):  # the first one gets new memory
            started = time.process_time()
            layer(x)
            taken.append(time.process_time() - started)
        if min(taken) > 0.2 * threads:
            break
    return x


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.parametrize(("layer", "threads"), [*((layer, 2) for layer in LAYERS), ("LSTM", 1)])
def test_one_long_step_can_be_interrupted(layer: str, threads: int) -> None:
    made = LAYERS[layer]()
    with fastlstm.num_threads(threads):
        x = rows_of_a_long_step(made, threads)
        want = made(x[:, :5])[0]
        ends_early(lambda: made(x))
        stream = made.stream(x.shape[1])
        ends_early(lambda: stream.step(x[0]))
        stream.reset()
        np.testing.assert_array_equal(stream.step(x[0])[:5], want[0])  # all is as before
        output, _, tape = made.forward(x)
        ends_early(lambda: tape.backward(output))
        np.testing.assert_array_equal(made(x[:, :5])[0], want)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.parametrize("pair", [("int8", "int8"), ("bfloat16", "float32")])
def test_small_weights_can_be_interrupted(pair: tuple[str, str]) -> None:
    layer = fastlstm.LSTM(1024, 1024, seed=0)
    ends_early(lambda: [layer.quantize(*pair) for _ in range(3)])
    small = layer.quantize(*pair)
    x = rows_of_a_long_step(small, fastlstm.get_num_threads())
    want = small(x[:, :5])[0]
    ends_early(lambda: small(x))
    stream = small.stream(x.shape[1])
    ends_early(lambda: stream.step(x[0]))
    stream.reset()
    np.testing.assert_array_equal(stream.step(x[0])[:5], want[0])


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_update_can_be_interrupted() -> None:
    lstm = fastlstm.LSTM(2048, 2048, seed=0)
    values, other = dict(lstm.params), {k: v + 1 for k, v in lstm.params.items()}
    ends_early(lambda: lstm.update(values))
    # At its latest between two parameters, where new memory takes most of the time.
    many = {f"w{k}": np.ones((4096, 1024), np.float32) for k in range(8)}
    ends_early(lambda: fastlstm.optim.Adam().step(many, many))
    assert all(lstm.params[name] is not other[name] for name in values)
    np.testing.assert_array_equal(lstm.params["bias_ih_l0"], values["bias_ih_l0"])


def test_a_fork_in_the_middle_of_a_step() -> None:
    """The child lacks the other threads: its call ends, and the next one is right."""
    program = """
        import os, signal, warnings, fastlstm, numpy as np
        warnings.simplefilter("ignore")  # of a fork with threads
        fastlstm.set_num_threads(2)
        lstm = fastlstm.LSTM(512, 512, seed=0)
        x = np.zeros((1, 20000, 512), np.float32)
        want = lstm(x)[0]
        child = None
        def fork(*_):
            global child
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(200)
        signal.signal(signal.SIGALRM, fork)
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        try:
            right = bool((lstm(x)[0] == want).all())
        except RuntimeError as error:
            right = child == 0 and "fork in the middle" in str(error)
        if child == 0:
            os._exit(0 if right and (lstm(x[:, :9])[0] == want[:, :9]).all() else 1)
        print(right, os.waitpid(child, 0)[1])
    """
    done = run(program)
    assert (done.stdout, done.stderr) == ("True 0\n", "")


def parts(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.slow
@pytest.mark.parametrize(
    "layer",
    [
        "LSTM(512, 8, seed=0)",
        "LSTM(512, 8, peepholes=True, zoneout=(0.1, 0.2), seed=0)",
        "LSTM(512, 9, proj_size=7, seed=0)",
        "GRU(512, 8, seed=0)",
        "RNN(512, 40, seed=0)",
    ],
)
def test_parts_of_a_step_change_no_bits(layer: str) -> None:
    """A step of so many rows that even a block of units is computed in parts."""
    made = eval(layer, vars(fastlstm))
    B = 32000
    x = np.random.default_rng(0).standard_normal((2, B, 512), dtype=np.float32)
    output, state = made(x)
    if not made.zoneout:  # which training draws
        np.testing.assert_array_equal(made.forward(x)[0], output)
    for first in range(0, B, B // 5):
        rows = slice(first, first + 100)
        few, few_state = made(np.ascontiguousarray(x[:, rows]))
        np.testing.assert_array_equal(output[:, rows], few)
        for whole, part in zip(parts(state), parts(few_state), strict=True):
            np.testing.assert_array_equal(whole[:, rows], part)
