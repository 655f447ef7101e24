"""What reading Keras' models needs, from the file to a layer's weights.

:mod:`.files` finds layers in models' files and :mod:`.groups` their weights, over :mod:`.hdf5`,
which reads HDF5 files, and :mod:`.hdf5_format`, which explains their bytes; :mod:`.objects` finds
layers in memory.
"""
