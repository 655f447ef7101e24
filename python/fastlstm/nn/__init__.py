"""The blocks around a recurrent layer: losses over sequences, and decoding."""

from __future__ import annotations

from ._crf import CRF, CRFGradients
from ._ctc import ctc

__all__ = [
    "CRF",
    "CRFGradients",
    "ctc",
]
