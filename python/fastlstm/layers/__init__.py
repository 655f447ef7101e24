"""Recurrent layers: a file for each thing, and imports go down this list only.

- :mod:`.load`: layers from files.
- :mod:`.truncated`: truncated back-propagation.
- :mod:`.lstm`, :mod:`.gru`, :mod:`.rnn`: a class for each kind: its options and its trace.
- :mod:`.layer`: what they share.
- :mod:`.stream`, :mod:`.tape`, :mod:`.trace`, :mod:`.files`: what a layer makes; they know none.
- :mod:`.backward`, :mod:`.calls`: the arrays of calls, checked and with room for results.
- :mod:`.values`: the values of parameters.
- :mod:`.quantization`: small weights.
- :mod:`.states`: states, whatever the cell has.
- :mod:`.spec`: what a layer is without its values.
- :mod:`.plan`: how a call would be divided among threads.
- :mod:`.options`: the table of options.
- :mod:`.layouts`: batch or time first, with or without a batch.
- :mod:`.core`: what the C++ core is asked for.
- :mod:`.public`: where users find classes.
"""

from .gru import GRU, GRUTrace
from .layer import (
    RecurrentLayer,
    TrainingMemory,
    check_layer,
    make_layer,
    make_spec,
    quantized_layer,
    spec_of,
)
from .load import LAYERS, load
from .lstm import LSTM, LSTMTrace
from .options import table_of
from .plan import Plan
from .quantization import Quantization
from .rnn import RNN, RNNTrace
from .stream import Stream
from .tape import Gradients, Tape
from .truncated import Chunk, truncated_bptt

__all__ = [
    "GRU",
    "LAYERS",
    "LSTM",
    "RNN",
    "Chunk",
    "GRUTrace",
    "Gradients",
    "LSTMTrace",
    "Plan",
    "Quantization",
    "RNNTrace",
    "RecurrentLayer",
    "Stream",
    "Tape",
    "TrainingMemory",
    "check_layer",
    "load",
    "make_layer",
    "make_spec",
    "quantized_layer",
    "spec_of",
    "table_of",
    "truncated_bptt",
]
