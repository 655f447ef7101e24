"""The blocks around a recurrent layer, each with a forward and a backward pass, as layers have."""

from __future__ import annotations

from ._attention import Attention, AttentionGradients
from ._batches import bucket_batches, pad
from ._block import Gradients
from ._crf import CRF
from ._ctc import ctc
from ._decode import Hypothesis, beam_search, ctc_decode, draw, greedy, sample
from ._decoder import AttentionDecoder, DecoderGradients, DecoderStream, DecoderTape
from ._dropout import Dropout
from ._embedding import Embedding
from ._linear import Linear
from ._losses import (
    binary_cross_entropy,
    cross_entropy,
    gaussian,
    linear_cross_entropy,
    mse,
    quantile,
)
from ._module import Module
from ._pool import Pool, pool

__all__ = [
    "CRF",
    "Attention",
    "AttentionDecoder",
    "AttentionGradients",
    "DecoderGradients",
    "DecoderStream",
    "DecoderTape",
    "Dropout",
    "Embedding",
    "Gradients",
    "Hypothesis",
    "Linear",
    "Module",
    "Pool",
    "beam_search",
    "binary_cross_entropy",
    "bucket_batches",
    "cross_entropy",
    "ctc",
    "ctc_decode",
    "draw",
    "gaussian",
    "greedy",
    "linear_cross_entropy",
    "mse",
    "pad",
    "pool",
    "quantile",
    "sample",
]
