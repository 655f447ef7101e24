"""Hands the core PyTorch's OpenMP: calls then run on the threads that its operators run on.

Those spin for milliseconds after each operator, on the CPUs that threads of our own would need.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch

from fastlstm import _core

_FUNCTIONS = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_in_parallel")


def share_openmp() -> bool:
    """Do so; False where PyTorch has another kind of threads, or another interface to them."""
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # As it is in memory. Its functions are its own and those of what it is linked to: another
        # OpenMP of the process, scikit-learn's, has other threads.
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        functions = [getattr(library, name) for name in _FUNCTIONS]
    except (OSError, AttributeError):
        return False
    addresses = [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]
    _core.set_openmp(*addresses)
    return True
