"""The textbook, in plain NumPy: every cell of the library, forward and backward, in float64.

Beside the cells: the losses over whole sequences, CRF and CTC, and layers of few bits.

Read :mod:`fastlstm.reference.lstm` to learn how an LSTM works. All kernels of the library are
checked against this package, and the package itself is checked by finite differences. It is made to
be read and to be right, not to be fast: one loop over time, one line for each formula.
"""

from __future__ import annotations

from typing import Any

from . import blocks, gru, losses, low_precision, lstm, rnn
from ._arrays import sigmoid
from ._cell import Cell
from ._layers import Gradients
from ._masks import HiddenMasks
from .activations import activate, slope
from .crf import CRFGradients, crf_decode, crf_loss, crf_marginals
from .ctc import ctc_beam_search, ctc_greedy, ctc_loss
from .gru import (
    GRUOptions,
    GRUStep,
    GRUStepGradients,
    GRUTape,
    GRUTrace,
    gru_backward,
    gru_cell,
    gru_cell_backward,
    gru_forward,
)
from .lstm import (
    LSTMMasks,
    LSTMOptions,
    LSTMStep,
    LSTMStepGradients,
    LSTMTape,
    LSTMTrace,
    lstm_backward,
    lstm_cell,
    lstm_cell_backward,
    lstm_forward,
)
from .rnn import (
    RNNOptions,
    RNNStep,
    RNNStepGradients,
    RNNTape,
    RNNTrace,
    rnn_backward,
    rnn_cell,
    rnn_cell_backward,
    rnn_forward,
)

# By the name of the layer.
CELLS: dict[str, Cell[Any]] = {"LSTM": lstm.CELL, "GRU": gru.CELL, "RNN": rnn.CELL}

__all__ = [
    "CRFGradients",
    "GRUOptions",
    "GRUStep",
    "GRUStepGradients",
    "GRUTape",
    "GRUTrace",
    "Gradients",
    "HiddenMasks",
    "LSTMMasks",
    "LSTMOptions",
    "LSTMStep",
    "LSTMStepGradients",
    "LSTMTape",
    "LSTMTrace",
    "RNNOptions",
    "RNNStep",
    "RNNStepGradients",
    "RNNTape",
    "RNNTrace",
    "activate",
    "blocks",
    "crf_decode",
    "crf_loss",
    "crf_marginals",
    "ctc_beam_search",
    "ctc_greedy",
    "ctc_loss",
    "gru_backward",
    "gru_cell",
    "gru_cell_backward",
    "gru_forward",
    "losses",
    "low_precision",
    "lstm_backward",
    "lstm_cell",
    "lstm_cell_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_cell",
    "rnn_cell_backward",
    "rnn_forward",
    "sigmoid",
    "slope",
]
