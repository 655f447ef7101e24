"""Updates of one layer at the same time: in threads, in signal handlers, across forks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator

import fastlstm
import numpy as np
import pytest
from support import assert_same_bits

NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "weight_ih_l1")


@pytest.fixture
def layer() -> fastlstm.LSTM:
    return fastlstm.LSTM(8, 16, num_layers=2, seed=0)


@pytest.fixture
def _impatient_threads() -> Iterator[None]:
    """Threads take turns so often that they come between any two operations."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def assert_all_is_used(layer: fastlstm.LSTM) -> None:
    """The layer computes with the parameters that it shows."""
    other = fastlstm.LSTM(8, 16, num_layers=2)
    other.load_state_dict(layer.params)
    x = np.ones((3, 2, 8), np.float32)
    assert_same_bits(layer(x)[0], other(x)[0])


@pytest.mark.usefixtures("_impatient_threads")
def test_threads_that_update_different_parameters_lose_nothing(layer: fastlstm.LSTM) -> None:
    start = threading.Barrier(len(NAMES))

    def work(name: str) -> None:
        start.wait()
        for n in range(600):
            layer.update({name: np.full_like(layer.params[name], n)})
            # Nobody else gives this one a value.
            if (layer.params[name] != n).any():
                lost.append((name, n))

    lost: list[tuple[str, int]] = []
    threads = [threading.Thread(target=work, args=(name,)) for name in NAMES]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lost == []
    for name in NAMES:
        assert (layer.params[name] == 599).all(), name
    assert_all_is_used(layer)


@pytest.mark.usefixtures("_impatient_threads")
def test_calls_see_all_of_an_update_or_nothing(layer: fastlstm.LSTM) -> None:
    x = np.ones((2, 1, 8), np.float32)
    zeros = {name: np.zeros_like(w) for name, w in layer.params.items()}
    ones = {name: np.ones_like(w) for name, w in layer.params.items()}
    expected = []
    for values in (zeros, ones):
        layer.update(values)
        expected.append(layer(x)[0].tobytes())
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            layer.update(zeros)
            layer.update(ones)

    thread = threading.Thread(target=work)
    thread.start()
    seen = {layer(x)[0].tobytes() for _ in range(500)}
    means = {np.unique([w.mean() for w in layer.params.values()]).size for _ in range(500)}
    stop.set()
    thread.join()
    assert seen <= set(expected)
    assert means == {1}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_update_within_an_update(layer: fastlstm.LSTM) -> None:
    """A signal's handler updates the layer whose update it interrupts: both have their effect."""
    outer, inner = "weight_ih_l0", "bias_hh_l1"
    count = 0
    lost = []

    def handle(*_: object) -> None:
        nonlocal count
        count += 1
        layer.update({inner: np.full_like(layer.params[inner], count)})

    delays = np.random.default_rng(0).uniform(1e-6, 1e-4, 3000)  # an update takes as long
    before = signal.signal(signal.SIGALRM, handle)
    try:
        for n, delay in enumerate(delays):
            signal.setitimer(signal.ITIMER_REAL, delay)
            layer.update({outer: np.full_like(layer.params[outer], n)})
            if (layer.params[outer] != n).any():
                lost.append(n)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count > 0
    assert lost == []
    assert (layer.params[inner] == count).all()
    assert_all_is_used(layer)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_while_other_threads_update() -> None:
    """The child has none of the threads that were in the middle of an update; its own must end."""
    code = """
        import os, signal, sys, threading, warnings, fastlstm, numpy as np
        warnings.simplefilter("ignore", DeprecationWarning)
        sys.setswitchinterval(1e-6)
        layer = fastlstm.LSTM(8, 64, seed=0)
        values = {name: w.copy() for name, w in layer.params.items()}
        stop = threading.Event()

        def work(name):
            while not stop.is_set():
                layer.update({name: values[name]})

        names = ("weight_ih_l0", "weight_hh_l0")
        threads = [threading.Thread(target=work, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        results = set()
        for n in range(100):
            child = os.fork()
            if child == 0:
                signal.alarm(200)
                bias = np.full(256, n, np.float32)
                layer.update({"bias_ih_l0": bias})
                expected = {**values, "bias_ih_l0": bias}
                good = all((layer.params[name] == w).all() for name, w in expected.items())
                os._exit(0 if good else 1)
            results.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        stop.set()
        for thread in threads:
            thread.join()
        print(results)
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert run.stdout == "{0}\n", run.stderr


def test_a_large_update_is_not_held_up_by_small_ones() -> None:
    layer = fastlstm.LSTM(256, 256, num_layers=2, seed=0)
    everything = layer.state_dict()
    done = threading.Event()
    small = 0

    def work() -> None:
        nonlocal small
        while not done.is_set():
            layer.update({"bias_ih_l0": everything["bias_ih_l0"]})
            small += 1

    thread = threading.Thread(target=work)
    thread.start()
    most = 0
    for _ in range(5):
        before = small
        layer.update(everything)
        most = max(most, small - before)
    done.set()
    thread.join()
    # Turns: a few, and more where other processes want the CPUs. Whoever packs longest and has none
    # waits for ten thousands, or without end.
    assert most < 2000
