"""Calls run on the threads of PyTorch's OpenMP. Each test in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

pytest.importorskip("torch")

import torch

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not torch.backends.openmp.is_available(),
    reason="needs PyTorch's OpenMP on Linux",
)

SETUP = """
import os, signal, warnings
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # SciPy's BLAS would start its own
import fastlstm, fastlstm.torch, torch
from fastlstm._runtime import divided
from fastlstm.torch._openmp import share_openmp
warnings.simplefilter("ignore")  # of a fork with threads
torch.manual_seed(0)
torch.set_num_threads(3)
model = fastlstm.torch.LSTM(64, 128, 2, bidirectional=True)
x = torch.randn(30, 16, 64)

def train():
    model.zero_grad()
    output, _ = model(x)
    output.square().sum().backward()
    return [output.detach(), *(p.grad for p in model.parameters())]

def same(one, other):  # PyTorch's operators on several threads never end in the child of a fork
    return all((a.numpy() == b.numpy()).all() for a, b in zip(one, other, strict=True))

def threads():
    return len(os.listdir("/proc/self/task"))
"""


def run(program: str) -> str:
    program = SETUP + textwrap.dedent(program)
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.stderr == ""
    return done.stdout


def test_no_other_threads_are_started() -> None:
    program = """
        torch.ones(1 << 20).add_(1)  # OpenMP has its threads
        before = threads()
        train()
        print(share_openmp(), before >= 3, threads() - before)
        with fastlstm.num_threads(2), divided(2, 1, 1, 1):  # not PyTorch's, however busy CPUs are
            fastlstm.LSTM(64, 128, seed=0)(x.numpy())
        print(threads() - before)
    """
    assert run(program) == "True True 0\n1\n"


def test_the_bits_are_those_of_other_threads() -> None:
    program = """
        got = train()
        fastlstm._core.set_openmp(*[0] * 4)  # not to be called with one thread
        torch.set_num_threads(1)
        print(same(got, train()))
    """
    assert run(program) == "True\n"


def test_callers_in_several_threads() -> None:
    program = """
        import threading
        want = train()[0]
        right = []
        def call():
            torch.set_num_threads(2)
            for _ in range(20):
                with torch.no_grad():
                    right.append(torch.equal(model(x)[0], want))
        callers = [threading.Thread(target=call) for _ in range(3)]
        for caller in callers: caller.start()
        for caller in callers: caller.join()
        print(len(right), all(right))
    """
    assert run(program) == "60 True\n"


def test_a_forked_child_has_the_cores_own_threads() -> None:
    program = """
        want = train()
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # instead of waiting for threads that are not there
            with torch.no_grad():
                os._exit(0 if same([model(x)[0]], want[:1]) else 1)
        print(os.waitpid(child, 0)[1], same(train(), want))
    """
    assert run(program) == "0 True\n"


def test_a_fork_in_the_middle_of_a_region() -> None:
    """OpenMP would wait in the child for threads that are not there: its call ends instead."""
    program = """
        torch.set_num_threads(2)
        large = fastlstm.torch.LSTM(1024, 1024)
        x = torch.zeros(1, 8192, 1024)  # a region, each thread its rows
        child = None
        def fork(*_):
            global child
            child = os.fork()
            if child == 0:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.alarm(60)
        with torch.no_grad():
            want = large(x)[0]
            signal.signal(signal.SIGALRM, fork)
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            try:
                right = same([large(x)[0]], [want])
            except RuntimeError as error:
                right = child == 0 and "fork in the middle" in str(error)
            if child == 0:
                os._exit(0 if right and same([large(x[:, :99])[0]], [want[:, :99]]) else 1)
        print(right, os.waitpid(child, 0)[1])
    """
    assert run(program) == "True 0\n"
