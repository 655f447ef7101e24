"""Tapes that travel as tensors, where only tensors may be kept between the passes.

A token is a tensor of zeros whose memory owns a tape: the tape lives as long as that memory does,
and is found again by its address. A copy of a token (a hook that moves what autograd saves, a graph
that was loaded) is only zeros: who finds no tape computes forward again.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

# Compiled code counts on operators' results to lie as PyTorch's allocator would place them.
_BYTES = 64


class _Owner(np.ndarray[Any, Any]):
    """Memory of a token."""

    tape: Any = None


_owners: WeakValueDictionary[int, _Owner] = WeakValueDictionary()


def token(tape: Any) -> Tensor:
    """A tensor that keeps a tape; None is kept as no tape. uint8, zeros."""
    memory = np.zeros(_BYTES, np.uint8).view(_Owner)
    kept = torch.from_numpy(memory)
    if tape is not None:
        memory.tape = tape
        _owners[kept.data_ptr()] = memory
    return kept


def empty_token(like: Tensor) -> Tensor:
    """What a token looks like, for who computes with shapes alone."""
    return like.new_empty(_BYTES, dtype=torch.uint8)


def find(kept: Tensor) -> Any:
    """The tape of a token, or None."""
    owner = _owners.get(kept.data_ptr())
    return None if owner is None else owner.tape
