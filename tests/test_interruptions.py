"""What an exception of a signal's handler leaves: raised after each call of the library's code."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import fastlstm
import numpy as np
import pytest
from fastlstm import nn
from fastlstm.optim import Adam, SparseRows


class InterruptError(BaseException):
    pass


def interruptions(act: Callable[[], object]) -> Iterator[InterruptError]:
    """Run `act` with an exception where its first call ends, where its second does, until it ends.

    Python runs the handlers of signals where a function in C returns, and where one of its own
    begins.
    """
    folder = str(Path(fastlstm.__file__).parent)
    places = (folder, contextlib.__file__)
    for n in itertools.count():
        left = n

        def profile(frame: FrameType, event: str, _: Any) -> None:
            nonlocal left
            if event in ("call", "c_return") and frame.f_code.co_filename.startswith(places):
                left -= 1
                if left < 0:
                    sys.setprofile(None)
                    raise InterruptError

        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            act()
        except InterruptError as error:
            raised = error
        else:
            return
        finally:
            sys.setprofile(before)
        yield raised


def test_a_step_of_an_optimiser() -> None:
    optimizer, values = Adam(), {"w": np.ones(4)}
    count = 0
    for raised in interruptions(lambda: optimizer.step(values, values)):
        optimizer.step(values, values)  # while the exception lives, with its frames
        count += isinstance(raised, InterruptError)
    assert count > 20


def test_an_update_of_a_layer() -> None:
    layer = fastlstm.RNN(2, 2, seed=0)
    values = dict(layer.params)
    count = 0
    for raised in interruptions(lambda: layer.update(values)):
        other = threading.Thread(target=layer.update, args=(values,), daemon=True)
        other.start()
        other.join(200)
        assert not other.is_alive()
        count += isinstance(raised, InterruptError)
    assert count > 20


def test_a_step_of_a_module() -> None:
    """Each part computes with the parameters that it shows."""
    model = nn.Module(words=nn.Embedding(4, 2, seed=0), out=nn.Linear(2, 3, seed=0))
    rows = SparseRows([1], np.ones((1, 2), np.float32), 4)
    of_out = {name: np.ones_like(value) for name, value in model.out.params.items()}
    optimizer, x, count = Adam(lr=0.1), np.ones((1, 2), np.float32), 0

    def step() -> None:
        model.step(optimizer, {"words": {"weight": rows}, "out": of_out}, clip=1.0)
        model.words.update({"weight": model.words.params["weight"] + 1})

    for raised in interruptions(step):
        params = model.params
        np.testing.assert_array_equal(model.words([0, 1, 2, 3]), params["words.weight"])
        y = x @ params["out.weight"].T + params["out.bias"]
        np.testing.assert_allclose(model.out(x), y, rtol=1e-5, atol=1e-6)
        count += isinstance(raised, InterruptError)
    assert count > 50


def test_a_block_with_a_number_of_threads() -> None:
    def block() -> None:
        with fastlstm.num_threads(7):
            pass

    def places() -> list[bool]:
        before, changed = fastlstm.get_num_threads(), []
        for _ in interruptions(block):
            changed.append(fastlstm.get_num_threads() != before)
            fastlstm._runtime._blocks.set(())
        return changed

    changed = contextvars.Context().run(places)
    # One is left, where the block's end begins: as long as the context has it.
    assert len(changed) > 5
    assert sum(changed) <= 1


def test_an_object_is_for_one_block() -> None:
    threads = fastlstm.num_threads(7)
    with threads, pytest.raises(RuntimeError, match="an object for each block"), threads:
        pass
    with pytest.raises(RuntimeError, match="an object for each block"), threads:
        pass
    decorated = fastlstm.num_threads(7)(fastlstm.get_num_threads)
    assert [decorated(), decorated()] == [7, 7]


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_save(tmp_path: Path) -> None:
    layer = fastlstm.RNN(2, 2, seed=0)
    path = tmp_path / "f"
    layer.save(path)
    before, content, places = open_files(), path.read_bytes(), 0
    for _ in interruptions(lambda: layer.save(path)):
        assert os.listdir(tmp_path) == ["f"]
        assert path.read_bytes() == content
        places += 1
    assert places > 50
    del _  # the last exception, with its frames
    gc.collect()
    assert open_files() <= before + 1  # which is that of the folder


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_load(tmp_path: Path) -> None:
    path = tmp_path / "f"
    fastlstm.RNN(2, 2, seed=0).save(path)
    fastlstm.load(path)
    before, places = open_files(), 0
    for _ in interruptions(lambda: fastlstm.load(path)):
        places += 1
    assert places > 100
    del _  # the last exception, with its frames
    gc.collect()
    assert open_files() == before


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of a fork with threads
def test_the_child_of_a_fork_in_the_middle_of_a_step() -> None:
    optimizer, values = Adam(), {"w": np.ones(4)}

    class Slow(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            in_step.set()
            go_on.wait()
            return super().__getitem__(name)

    in_step, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=optimizer.step, args=(Slow(values), values))
    thread.start()
    in_step.wait()
    with pytest.raises(RuntimeError, match="in use by another call"):
        optimizer.step(values, values)
    child = os.fork()
    if child == 0:
        signal.alarm(200)
        try:
            optimizer.step(values, values)
            optimizer.step(values, values)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitpid(child, 0)[1]
    go_on.set()
    thread.join()
    assert code == 0
    optimizer.step(values, values)
