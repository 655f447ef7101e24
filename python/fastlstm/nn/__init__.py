"""The blocks around a recurrent layer, each with a forward and a backward pass, as layers have."""

from __future__ import annotations

from ._block import Gradients
from ._dropout import Dropout
from ._embedding import Embedding
from ._linear import Linear

__all__ = [
    "Dropout",
    "Embedding",
    "Gradients",
    "Linear",
]
