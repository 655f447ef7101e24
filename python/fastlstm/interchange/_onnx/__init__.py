"""What reading ONNX models needs, from the file to a value.

:mod:`.file` reads models and tensors, :mod:`.graphs` finds recurrent nodes wherever they stand,
:mod:`.values` computes what does not depend on a model's inputs, with :mod:`.operators` in the
bounds of :mod:`.room`, and :mod:`.states` reads initial states and lengths.
"""
