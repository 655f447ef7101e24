"""What reading PyTorch's models needs, from the file to a layer's parameters.

:mod:`.file` reads what torch.save wrote, over :mod:`.pickle`, :mod:`.objects` (what PyTorch's names
in a pickle mean), :mod:`.script` and :mod:`.zip`; :mod:`.safetensors` reads the other format.
:mod:`.walk` names what nested things hold, in files and in memory. :mod:`.parameters` and
:mod:`.modules` say what these compute, and :mod:`.contents` which of them are a layer.
"""
