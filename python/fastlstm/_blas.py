"""Hands SciPy's BLAS to the core, when it is first needed: importing SciPy takes half a second."""

from __future__ import annotations

import ctypes
import logging  # noqa: F401  (SciPy does: its fork handlers must be older than those below)
import os
import threading

from . import _core

_lock = threading.RLock()  # which a signal's handler may find taken by its own thread
_library = "not loaded"
_STACK = 1 << 20

# The thread settings are not part of the BLAS interface; these are the names in the builds of
# OpenBLAS that SciPy's wheels carry, and in a plain one.
_PREFIXES = ("scipy_openblas", "openblas")


# A fork waits for another thread's import, whose locks nobody would release in the child. Handlers
# run the newest first: a fork that had logging's lock already would wait for ever for an import
# that needs it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )


def _address(library: ctypes.CDLL, name: str) -> int:
    """Where a function of the library, or of what it is linked to, stands; 0 without one."""
    try:
        return ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0
    except AttributeError:
        return 0


def require_blas() -> None:
    """Give the core its BLAS, unless it has one."""
    if _core.has_blas():
        return
    with _lock:
        if not _core.has_blas():
            _load()


def _load() -> None:
    """Import SciPy, which needs more of a stack than calls do: some 100 KB."""
    stack = threading.stack_size()
    if not 0 < stack < _STACK:
        _import()
        return
    errors: list[BaseException] = []

    def work() -> None:
        try:
            _import()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    threading.stack_size(_STACK)
    try:
        thread.start()
    finally:
        threading.stack_size(stack)
    thread.join()
    if errors:
        raise errors[0]


def _import() -> None:
    global _library
    import scipy.linalg.cython_blas as scipy_blas

    from . import _scipy_blas

    functions = _scipy_blas.addresses()
    library = ctypes.CDLL(scipy_blas.__file__)
    get_num_threads = set_num_threads = 0
    _library = "SciPy's, its threads out of reach"
    for prefix in _PREFIXES:
        get_num_threads = _address(library, f"{prefix}_get_num_threads")
        set_num_threads = _address(library, f"{prefix}_set_num_threads")
        if get_num_threads and set_num_threads:
            _library = "SciPy's OpenBLAS"
            break
    _core.set_blas(functions["sgemm"], functions["dgemm"], get_num_threads, set_num_threads)


def blas_name() -> str:
    """What the core's BLAS is, for people."""
    return _library
