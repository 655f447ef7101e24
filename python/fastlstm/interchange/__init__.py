"""Weights in and out: layers from other frameworks' models and files, without the frameworks.

Each reader makes a :class:`~fastlstm.interchange._description.Description`, from which one function
builds the layer. What a layer of fastlstm cannot represent is refused by name.
"""

from .keras import from_keras
from .onnx_import import from_onnx
from .torch import from_torch

__all__ = ["from_keras", "from_onnx", "from_torch"]
