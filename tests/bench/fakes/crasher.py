"""Is killed in its third call: after the check and the warm-up, while it is timed."""

import os
import signal

from fastlstm_bench.cases import Case
from fastlstm_bench.problem import Arrays, Problem
from fastlstm_bench.systems import Call, run_reference

start = run_reference.start


class _Killed(Call):
    def __init__(self, call: Call) -> None:
        self.call, self.calls = call, 0

    def run(self) -> None:
        self.calls += 1
        if self.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        self.call.run()

    def fetch(self) -> Arrays:
        return self.call.fetch()


def prepare(case: Case, problem: Problem, threads: int) -> Call:
    call = run_reference.prepare(case, problem, threads)
    # Only the RNN's case kills, so that the next shows the system to be alive again.
    return _Killed(call) if case.cell == "rnn" else call
