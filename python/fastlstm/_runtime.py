"""Settings of the process: threads and instruction sets."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import ParamSpec, TypeVar

import numpy as np

from . import _core, _costs
from ._blas import blas_name
from ._checks import as_bool, as_int
from ._version import __version__

MOST_THREADS = 4096  # the core's limit

P = ParamSpec("P")
R = TypeVar("R")

# The blocks of `num_threads` of this context, the innermost last: a list with the block's number,
# and something more if calls run on OpenMP's threads where there are some; empty once it has ended.
# What a context has of them may have ended in another.
_blocks: ContextVar[tuple[list[int], ...]] = ContextVar("fastlstm.num_threads", default=())
_core.set_threads_variable(_blocks)
_costs.use_file()


def get_num_threads() -> int:
    """Return how many threads a call from here may use.

    The default is the number of physical cores that this process may use (its affinity, limited by
    the container's CPU quota; of CPUs, where the system does not tell them apart), or what the
    environment variable ``FASTLSTM_NUM_THREADS`` says.

    Raises
    ------
    ValueError
        ``FASTLSTM_NUM_THREADS`` is not an integer from 1 to 4096.

    Examples
    --------
    >>> with fastlstm.num_threads(1):
    ...     fastlstm.get_num_threads()
    1
    """
    return _core.num_threads()


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use, for the whole process.

    Inside a block of :func:`num_threads` its number stays.

    Parameters
    ----------
    n : int
        From 1 to 4096.

    Raises
    ------
    ValueError, TypeError
        `n` is something else.
    """
    _core.set_num_threads(as_int("n", n, 1, MOST_THREADS))


class num_threads:  # noqa: N801
    """Set how many threads calls may use inside a ``with`` block, or in a function it decorates.

    The number is the context's (:mod:`contextvars`): a task of asyncio and a thread have their own.
    A task that begins inside the block, and ``asyncio.to_thread``, have the block's; a new thread
    has that of the process. The innermost block that has not ended counts, in whatever order
    blocks end: those of generators, which share a context with their callers, end in any.

    Parameters
    ----------
    n : int
        From 1 to 4096.

    Raises
    ------
    ValueError, TypeError
        `n` is something else.
    RuntimeError
        A second block begins with the same object.
    """

    def __init__(self, n: int) -> None:
        self._n = as_int("n", n, 1, MOST_THREADS)
        self._begun: dict[None, list[int]] = {}  # the block, once it has begun

    def __enter__(self) -> None:
        block = [self._n]
        if self._begun.setdefault(None, block) is not block:  # one operation, for all threads
            raise RuntimeError("num_threads: expected an object for each block, got one twice")
        try:
            _blocks.set((*_open_blocks(), block))
        except BaseException:  # of a signal's handler, as after any call
            block.clear()
            raise

    def __exit__(self, *error: object) -> None:
        if None in self._begun:  # at once: a signal's handler may raise after the first call
            self._begun[None].clear()
        _blocks.set(_open_blocks())

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            with num_threads(self._n):
                return function(*args, **kwargs)

        return call


def _open_blocks() -> tuple[list[int], ...]:
    return tuple([block for block in _blocks.get() if block])


@functools.cache
def _lasting_blocks(n: int) -> tuple[list[int], ...]:
    return ([n, True],)


def begin_threads(n: int) -> Token[tuple[list[int], ...]]:
    """Set the number of threads as a block does, with less around it, until :func:`end_threads`.

    They are those of the OpenMP runtime that `_core.set_openmp` has been told of, if any. For who
    calls the core thousands of times a second. n: not checked. Nothing else may begin or end blocks
    of this context before it ends.
    """
    return _blocks.set(_lasting_blocks(n))


end_threads = _blocks.reset


@contextmanager
def divided(rows: int, directions: int, layers: int, units: int) -> Iterator[None]:
    """Have all calls of the process divided so, as far as they can be: to test and to measure it.

    Parameters
    ----------
    rows, directions, layers, units : int
        As in :class:`fastlstm.layers.Plan`.
    """
    _core.force_plan(rows, directions, layers, units)
    try:
        yield
    finally:
        _core.force_plan(0, 0, 0, 0)


def available_isas() -> list[str]:
    """Return the instruction sets this build has kernels for and this CPU can run, best first.

    They are "avx512", "avx2", "neon" and, always and last, "generic"; those with instructions
    for quantized layers besides are "avx512_bf16", "avx512_vnni", "avx2_vnni", "neon_dot", and
    "amx", if the environment variable FASTLSTM_ISA asks for it.
    """
    return _core.available_isas()


def isa() -> str:
    """Return the active instruction set: the best available, or what ``FASTLSTM_ISA`` asks for.

    Raises
    ------
    ValueError
        ``FASTLSTM_ISA`` names none of :func:`available_isas`.
    """
    return _core.isa()


def show_config(all: bool = False) -> str:
    """Return a few lines for people: version, compiler, instruction set, BLAS, threads.

    Parameters
    ----------
    all : bool
        Also what is tuned for this kind of machine, a line for each value. No bit of a result
        depends on these. What they were measured at stands in csrc/runtime/tuning.hpp; those of
        this machine, if ``fastlstm tune`` has measured them, come from the file that is named last.
    """
    lines = {
        "fastlstm": __version__,
        "Python": f"{platform.python_version()}, NumPy {np.__version__}",
        "compiler": _core.compiler(),
        "ISA": f"{isa()} (available: {', '.join(available_isas())})",
        "BLAS": blas_name(),
        "threads": f"{get_num_threads()} (usable CPUs: {_core.usable_cpus()})",
    }
    shown = [f"{name:<9} {value}" for name, value in lines.items()]
    if as_bool("all", all):
        shown += ["", f"tuned for a CPU with {_core.machine()}:"]
        shown += [f"  {name:<30} {value:<9g} {text}" for name, value, text in _core.tuning()]
        shown += [_costs.note] if _costs.note else []
    return "\n".join(shown)
