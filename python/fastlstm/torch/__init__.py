"""PyTorch modules on fastlstm's core: subclasses of ``torch.nn``'s, and a line that puts them in.

- :mod:`._accelerate`: existing models, made of them.
- :mod:`._modules`, :mod:`._cells`: the modules.
- :mod:`._compile`: models in one graph.
- :mod:`._function`: what autograd sees of a call.
- :mod:`._engine`: calls of the core on tensors' memory. It knows no module.
"""

from ._accelerate import accelerate, report, restore
from ._compile import compile
from ._modules import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "accelerate", "compile", "report", "restore"]
