"""Pretrained word embeddings as input for the layers: Word2Vec, GloVe and FastText files.

>>> import os, tempfile
>>> path = os.path.join(tempfile.mkdtemp(), "vectors.txt")
>>> with open(path, "w") as file:
...     _ = file.write("the 0.5 1\\ncat -1 0.25\\nsat 2 3\\n")
>>> embeddings = fastlstm.embeddings.load(path)
>>> embeddings
Embeddings(3 words, dim=2, dtype=float32)
>>> embeddings["cat"]
array([-1.  ,  0.25], dtype=float32)
>>> x, lengths = embeddings.lookup([["the", "cat", "sat"], ["the", "dog"]])
>>> x.shape, lengths
((3, 2, 2), array([3, 2]))
>>> output, state = fastlstm.LSTM(embeddings.dim, 8, seed=0)(x, lengths=lengths)
"""

from ._embeddings import Embeddings
from ._load import load

__all__ = ["Embeddings", "load"]
