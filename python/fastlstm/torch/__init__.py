"""PyTorch modules on fastlstm's core: subclasses of ``torch.nn``'s, and a line that puts them in.

- :mod:`._accelerate`: existing models, made of them.
- :mod:`._convert`: modules made of layers.
- :mod:`._modules`, :mod:`._cells`: the modules, over :mod:`._base`, what they share.
- :mod:`._compile`: models in one graph, over :mod:`._optimized`, which imports Dynamo.
- :mod:`._traced`: calls that become part of a graph, by the operators of :mod:`._ops`.
- :mod:`._tracing`: what is traced, and what tracers do not see.
- :mod:`._function`: what autograd sees of a call; :mod:`._steps`: of steps in a loop over a cell.
- :mod:`._internals`: what PyTorch keeps to itself, all that we ask of it.
- :mod:`._tapes`: tapes that travel as tensors.
- :mod:`._lengths`: lengths of sequences.
- :mod:`._engine`: calls of the core on tensors' memory. It knows no module.
- :mod:`._openmp`: PyTorch's threads, on which they run.
"""

from fastlstm._extras import needs_extra

with needs_extra("fastlstm.torch", "torch"):
    import torch  # noqa: F401  (the examples have it, too)

from ._accelerate import Report, Row, accelerate, freeze, report, restore
from ._cells import GRUCell, LSTMCell, RNNCell
from ._compile import compile
from ._modules import GRU, LSTM, RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "RNNCell",
    "Report",
    "Row",
    "accelerate",
    "compile",
    "freeze",
    "report",
    "restore",
]

# Where users find them: pickles and messages do not name the files.
for _cls in (GRU, LSTM, RNN, GRUCell, LSTMCell, RNNCell, Report, Row):
    _cls.__module__ = __name__
