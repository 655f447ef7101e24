"""The blocks around a recurrent layer: losses over sequences, and decoding."""

from __future__ import annotations

from ._crf import CRF, CRFGradients
from ._ctc import ctc
from ._decode import Hypothesis, beam_search, ctc_decode, draw, greedy, sample

__all__ = [
    "CRF",
    "CRFGradients",
    "Hypothesis",
    "beam_search",
    "ctc",
    "ctc_decode",
    "draw",
    "greedy",
    "sample",
]
