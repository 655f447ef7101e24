"""The process that one system runs in. It does what it is told, one line of JSON at a time.

``python -m fastlstm_bench.worker MODULE THREADS``, requests on standard input, replies on standard
output. What a library prints goes to standard error. `workers.Worker` is the other end.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from fastlstm_bench import machine
from fastlstm_bench.cases import CHECKED_STEPS, CHECKED_UPDATES, Case
from fastlstm_bench.problem import Arrays, make_problem
from fastlstm_bench.systems import Call, UnsupportedError

# Part of a turn that warms up untimed: caches, the clock, threads that sleep.
_WARM_UP = 0.1
# A turn ends when the process's threads have stopped spinning: less than a tenth of one CPU over 5
# ms.
_IDLE_SLICE, _IDLE_SHARE, _IDLE_PATIENCE = 0.005, 0.1, 1.0


def checked_results(call: Call, case: Case) -> Arrays:
    """Run a prepared case as it will be timed, and return what it gave: outputs of several steps of
    a stream, what several steps of an optimiser came to, or the results of one call."""
    with call.mode():
        if case.task != "step":
            for _ in range(CHECKED_UPDATES if case.task == "optimiser" else 1):
                call.run()
            return call.fetch()
        outputs = []
        for x in make_problem(case).x:
            call.feed(x)
            call.run()
            outputs.append(call.fetch()["output"].copy())
    assert len(outputs) == CHECKED_STEPS
    return {"output": np.stack(outputs)}


def time_calls(call: Call, seconds: float) -> list[int]:
    """Nanoseconds of each call, for about `seconds` and at least one call, after a warm-up.

    A call that takes longer than all of it is its own warm-up.
    """
    clock, run = time.perf_counter_ns, call.run
    turn = int(seconds * 1e9)
    times: list[int] = []
    collecting = gc.isenabled()
    gc.disable()
    try:
        with call.mode():
            begin = stop = clock()
            while stop < begin + _WARM_UP * turn:
                run()
                stop = clock()
            if stop > begin + turn:
                return [stop - begin]
            end = stop + turn
            while stop < end:
                start = clock()
                run()
                stop = clock()
                times.append(stop - start)
    finally:
        if collecting:
            gc.enable()
    return times


def wait_until_idle() -> float:
    """Sleep until this process's own threads use no CPU: they would disturb the next system.

    Returns the seconds that this took.
    """
    start = time.perf_counter()
    while time.perf_counter() - start < _IDLE_PATIENCE:
        used = time.process_time()
        time.sleep(_IDLE_SLICE)
        if time.process_time() - used < _IDLE_SHARE * _IDLE_SLICE:
            break
    return time.perf_counter() - start


class _Session:
    """The state between requests: at most one prepared case."""

    def __init__(self, adapter: Any, threads: int) -> None:
        self.adapter, self.threads = adapter, threads
        self.bytes_at_start = machine.resident_bytes()
        self.call: Call | None = None

    def prepare(self, case: dict[str, Any], results: str) -> dict[str, Any]:
        self.call = None
        gc.collect()
        wanted = Case(**case)
        try:
            if wanted.use not in getattr(self.adapter, "USES", ("layer",)):
                raise UnsupportedError(f"not used for {wanted.use}")
            if wanted.dtype not in getattr(self.adapter, "DTYPES", ("float32", "float64")):
                raise UnsupportedError(f"not used with {wanted.dtype}")
            self.call = self.adapter.prepare(wanted, make_problem(wanted), self.threads)
        except UnsupportedError as reason:
            return {"unsupported": str(reason)}
        np.savez(results, **checked_results(self.call, wanted))  # type: ignore[arg-type]
        wait_until_idle()
        return {}

    def measure(self, seconds: float) -> dict[str, Any]:
        assert self.call is not None
        times = time_calls(self.call, seconds)
        return {"times_ns": times, "until_idle_s": wait_until_idle()}

    def release(self) -> dict[str, Any]:
        self.call = None
        gc.collect()
        return {"kept_bytes": machine.resident_bytes() - self.bytes_at_start}


def _start(module: str, threads: int) -> tuple[_Session | None, dict[str, Any]]:
    cpus = machine.pin(threads)
    try:
        adapter = importlib.import_module(module)
        versions = adapter.start(threads)
    except ImportError as error:
        return None, {"absent": f"{error}"}
    # What the library made while it loaded stays: no collection need look at it again, which took
    # TensorFlow 0.2 s for each case.
    gc.collect()
    gc.freeze()
    wait_until_idle()
    return _Session(adapter, threads), {"versions": versions, "cpus": cpus}


def _guarded(action: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a request; an exception becomes a reply, and the worker lives on."""
    try:
        return action()
    except Exception as error:
        traceback.print_exc()
        text = str(error).strip().splitlines()
        return {"failed": f"{type(error).__name__}: {text[0] if text else ''}"}


def main(argv: list[str]) -> int:
    module, threads = argv[0], int(argv[1])
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    session: _Session | None = None

    def start() -> dict[str, Any]:
        nonlocal session
        session, message = _start(module, threads)
        return message

    reply(_guarded(start))
    if session is None:
        return 0
    requests: dict[str, Callable[..., dict[str, Any]]] = {
        "prepare": session.prepare,
        "measure": session.measure,
        "release": session.release,
    }
    for line in sys.stdin:
        request = json.loads(line)
        reply(_guarded(functools.partial(requests[request.pop("do")], **request)))
    return 0


if __name__ == "__main__":
    # A parent that is gone cannot be told anything.
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        sys.exit(main(sys.argv[1:]))
