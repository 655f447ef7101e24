"""Weights in and out: layers from other frameworks' models and files, and ONNX models of layers.

No reader needs its framework. Each makes a
:class:`~fastlstm.interchange._description.Description`, from which one function builds the layer.
What one side cannot represent of the other is refused by name.
"""

from .keras import from_keras
from .onnx_export import to_onnx
from .onnx_import import from_onnx
from .torch import from_torch

__all__ = ["from_keras", "from_onnx", "from_torch", "to_onnx"]
