"""Compiled calls while which Dynamo may look at recurrent modules. Imports Dynamo: 2 s."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch._dynamo.eval_frame import OptimizedModule

from ._internals import dynamo_patcher

_allow = dynamo_patcher(allow_rnn=True)


def allowing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function: it compiles when calls come, so the setting is that of its calls."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        revert = _allow()
        try:
            return function(*args, **kwargs)
        finally:
            revert()

    return call


class Optimized(OptimizedModule):
    """What ``torch.compile`` makes of a module, with such calls; also when copied and loaded."""

    def _initialize(self) -> None:
        super()._initialize()
        self.forward: Callable[..., Any] = allowing(self.forward)

    @classmethod
    def of(cls, compiled: Any) -> Optimized:
        """Make one of what ``torch.compile`` gave."""
        compiled.__class__ = cls
        compiled._initialize()
        optimized: Optimized = compiled
        return optimized
