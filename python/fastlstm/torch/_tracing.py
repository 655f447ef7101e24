"""What is traced, and what tracers must not look into."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from ._internals import jit_is_tracing, skip_frames

F = TypeVar("F", bound=Callable[..., object])


def untraced(function: F) -> F:
    """Keep Dynamo out of a function that works on memory, and of all that it calls.

    As ``torch.compiler.disable``, which would import Dynamo with this package (2 s) and costs each
    call a wrapper. Where a graph has broken, Dynamo tries every function that is called on its own.
    """
    skip_frames(function.__code__)
    return function


@untraced  # as a frame of its own it would be compiled, and from then on say that it is
def is_traced() -> bool:
    """Whether a call becomes part of a graph: of torch.compile, torch.export or torch.jit.trace."""
    return bool(torch.compiler.is_compiling() or jit_is_tracing())
