"""One stream and several threads: in turns it is right, at once it is refused."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import fastlstm
import numpy as np
import pytest

LAYERS = {
    "LSTM": lambda: fastlstm.LSTM(16, 256, seed=0),
    "GRU": lambda: fastlstm.GRU(16, 256, seed=0),
    "RNN": lambda: fastlstm.RNN(16, 512, seed=0),
    "two layers": lambda: fastlstm.LSTM(16, 256, 2, seed=0),
    "float64": lambda: fastlstm.LSTM(16, 256, dtype="float64", seed=0),
    "small": lambda: fastlstm.LSTM(16, 8, seed=0),
    "int8": lambda: fastlstm.LSTM(16, 512, seed=0).quantize("int8", "int8"),
}


@pytest.mark.parametrize("layer", LAYERS)
def test_threads_take_turns(layer: str) -> None:
    B, threads, rounds = 8, 4, 20
    rng = np.random.default_rng(0)
    made = LAYERS[layer]()
    x = rng.standard_normal((threads * rounds, B, 16)).astype(made.dtype)
    alone = made.stream(B)
    want = [alone.step(x_t) for x_t in x]
    stream = made.stream(B)
    got = {}
    turn = threading.Condition()

    def use(rank: int) -> None:
        for t in range(rank, len(x), threads):
            with turn:
                turn.wait_for(lambda t=t: len(got) == t)
                got[t] = stream.step(x[t])
                turn.notify_all()

    workers = [threading.Thread(target=use, args=(rank,)) for rank in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal([got[t] for t in range(len(x))], want)


class InTheMiddleError(Exception):
    pass


def assign(stream: fastlstm.Stream) -> None:
    zeros = np.zeros((1, 4, 256), np.float32)
    stream.state = (zeros, zeros)


USES: dict[str, Callable[[fastlstm.Stream], object]] = {
    "step": lambda stream: stream.step(np.ones((4, 16), np.float32)),
    "step with a conversion": lambda stream: stream.step(np.ones((4, 16))),
    "step into out": lambda stream: stream.step(
        np.ones((4, 16), np.float32), out=np.empty((4, 256), np.float32)
    ),
    "run": lambda stream: stream.run(np.ones((3, 4, 16), np.float32)),
    "state": lambda stream: stream.state,
    "assigning the state": assign,
    "reset": lambda stream: stream.reset(),
    "reset of a row": lambda stream: stream.reset(2),
    "reorder": lambda stream: stream.reorder([3, 2, 1, 0]),
}


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
@pytest.mark.parametrize("use", USES)
def test_what_comes_in_the_middle_is_refused(use: str) -> None:
    """A signal's handler comes in the middle of a run for certain, as another thread may."""
    lstm = fastlstm.LSTM(16, 256, seed=0)
    stream = lstm.stream(4)
    refusals = []

    def handle(*_: object) -> None:
        try:
            USES[use](stream)
        except RuntimeError as error:
            refusals.append(str(error))
        raise InTheMiddleError

    before = signal.signal(signal.SIGALRM, handle)
    x = np.ones((20000, 4, 16), np.float32)  # half a second
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(InTheMiddleError):
            stream.run(x)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert "in use" in refusals[0]
    # A run that was interrupted has not changed the state, and the stream can be used again.
    np.testing.assert_array_equal(stream.run(x[:3]), lstm(x[:3])[0])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "layer",
    [
        "LSTM(64, 512, seed=0)",
        "GRU(64, 512, seed=0)",
        "RNN(64, 1024, seed=0)",
        "LSTM(64, 1024, seed=0).quantize('int8', 'int8')",
        "GRU(64, 1024, seed=0).quantize('bfloat16')",
    ],
)
def test_a_storm_of_threads_does_not_end_the_process(layer: str, threads: int) -> None:
    program = f"""
        import threading, time, fastlstm, numpy as np
        fastlstm.set_num_threads({threads})
        stream = fastlstm.{layer}.stream(4)
        x = np.ones((4, 64), np.float32)
        out = [np.empty_like(stream.step(x)) for _ in range(4)]
        end = time.monotonic() + 1.0
        def use(k):
            rng = np.random.default_rng(k)
            uses = [
                lambda: stream.step(x), lambda: stream.step(x, out=out[k]),
                lambda: stream.run(np.ones((3, 4, 64), np.float32)),
                lambda: stream.reset(k), lambda: setattr(stream, "state", stream.state),
            ]
            while time.monotonic() < end:
                try:
                    uses[rng.integers(len(uses))]()
                except RuntimeError as error:
                    assert "in use" in str(error)
        workers = [threading.Thread(target=use, args=(k,)) for k in range(4)]
        for worker in workers: worker.start()
        for worker in workers: worker.join()
        stream.reset()
        stream.step(x)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
